"""Samples that are files: found, labelled by their paths or by a list, decoded once and cached."""
