"""Texts out of files, and words as tokens."""
