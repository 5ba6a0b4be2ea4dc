"""What the release manager writes, parsed into frozen values."""
