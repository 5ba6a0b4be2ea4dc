"""Taking over what was published by hand: found, judged, written down; nothing is moved."""
