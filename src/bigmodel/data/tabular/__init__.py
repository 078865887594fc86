"""Columns out of files, and what a table's columns become."""
