"""What happens around Hydra: help, safety, error messages, resuming, sweeps.

Nothing is imported here, so that `--help` costs no more than the module that prints it.
"""
