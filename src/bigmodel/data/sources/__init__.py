"""The data sources that can be chosen by name, one file each."""
