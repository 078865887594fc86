"""Models, one file per family. A new one is a new file here and a YAML in configs/model."""
