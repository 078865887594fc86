"""`-m`: from what is typed to a sweep's jobs, and from Hydra's plugins to `bigmodel.sweeps`."""
