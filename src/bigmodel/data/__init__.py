"""Everything between files and batches; the registered sources are in `sources/`."""
