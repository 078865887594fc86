"""The machine: device, random numbers, memory, signals, files written whole or not at all."""
