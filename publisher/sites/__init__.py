"""What a site includes, made from the release index."""
