"""Arrays out of files, and what they are."""
