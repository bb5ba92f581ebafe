"""Run trials: supervisor, worker processes, pruning at rungs, watchdog, recovery of trials whose worker exited."""
