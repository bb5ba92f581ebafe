"""Running trials: a supervisor, its worker processes, pruning at rungs, recovery of what a dead worker left."""
