"""A small compiler for steps on one CPU thread: recorded, fused into loops, written as C++, loaded.

`recording` runs the step once and notes torch's operations; `operations` says what each of them means;
`schedule` puts those that run over the same elements into one loop; `memory` gives values their places;
`source` writes it all as C++, beside `kernels.cpp`; `compiler` has that translated, within a second or
two, and `engine` calls it. What it does not know is left to torch's compiler.
"""
