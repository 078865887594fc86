"""Pictures and recordings, decoded."""
