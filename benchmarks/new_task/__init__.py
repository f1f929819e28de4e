"""Few-shot classifiers on new tasks: one fit to five images a class, scored on images that it has not seen.

`draws` makes the tasks, `autokeras_peer` fits AutoKeras to one of them in an environment of its own, and `peer` runs
that for as long as a multiple of what our own fit took.
"""
