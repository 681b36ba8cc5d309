"""Files: read in one way, written whole or not at all, one run at a time."""
