"""The short training of a candidate on Ultralytics' trainer, its checkpoints, and full training."""
