"""Why a model says what it says: what it is asked about, the methods, and what they find.

Pure computation: a `Subject` goes in, a result comes out; nothing is drawn, printed or written here.

- `names`: the methods in words, and which is the default; imports no torch.
- `subject`: a `Subject` is a model, its preprocessing and samples, with the output that is explained.
  Its score is one number for each sample, linear in the model's raw outputs.
- `results`: what methods return, such as `Attributions`: numbers with the names of what they stand for.
- `groups`: what a person calls one part of an input, such as a column that became several features.
- `baselines`: what an input is compared with, and its name.
- `lookups`: gradients through categories and tokens, which have none of their own.
- a file for each method, with a function of a subject and `Options`.
- `methods`: chooses a method for a run, or says why it does not fit.

A new method is a file, a line in `names.METHODS` and one in `methods`. A new kind of result also needs a
writer in `cli/commands/explanations/output.py`, and, if it is drawn, a drawing in `reporting/report`.
"""
