"""Data sources, one file each. A new one is a new file here and a YAML in configs/data."""
