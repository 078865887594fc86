"""From a typed configuration to a run, new or resumed."""
