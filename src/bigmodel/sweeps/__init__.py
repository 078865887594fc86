"""Sweeps: many jobs, run a few at a time, gone on with after an interruption, and compared."""
