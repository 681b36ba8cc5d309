"""Scores, result tables and the progress of a training run."""
