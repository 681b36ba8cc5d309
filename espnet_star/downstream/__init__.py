"""The student at work in recognition and speaker tasks."""
