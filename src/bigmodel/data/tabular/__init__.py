"""Reads tables from files, and turns their columns into model inputs and targets."""
