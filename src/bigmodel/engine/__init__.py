"""How steps are done: one after another by torch's operations, or many by one compiled piece of code."""
