"""Checkpoints of fairseq's layout, read without running anything in them."""
