"""`bigmodel VERB`: what can be done with runs that exist."""
