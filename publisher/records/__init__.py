"""What a release leaves in the published tree: ``release.json`` and ``index.json``."""
