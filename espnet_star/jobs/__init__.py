"""Commands side by side, and how far they are."""
