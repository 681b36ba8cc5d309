"""Kaldi-style data directories: preparation, random channels and checks."""
