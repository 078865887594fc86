"""Training in several processes, called ranks: who does what, and what they agree on."""
