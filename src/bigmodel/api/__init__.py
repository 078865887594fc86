"""Runs from Python: `bigmodel.load` and what it returns. Importing `bigmodel` alone loads none of it."""
