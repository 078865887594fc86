"""Samples that are files: where they lie, what their names tell, decoded once and kept."""
