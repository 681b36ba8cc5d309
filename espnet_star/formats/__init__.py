"""Exchange formats of the student."""
