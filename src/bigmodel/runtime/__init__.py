"""The machine: device, random numbers, memory, signals, files written atomically."""
