"""State on disk: written whole, verified when read, without pickle."""
