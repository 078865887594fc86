"""How training steps run: one by one with torch's operations, or many in one piece of compiled code."""
