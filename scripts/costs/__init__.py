"""How cost grows with what is trained: the parts of `growth.py`."""
