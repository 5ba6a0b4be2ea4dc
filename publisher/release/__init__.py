"""The steps of a release, each a function from frozen values to frozen values."""
