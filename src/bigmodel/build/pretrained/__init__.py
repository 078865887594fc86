"""Models that start from weights that were trained before: by a run, or by others."""
