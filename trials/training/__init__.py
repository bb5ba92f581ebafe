"""Short training of a candidate with Ultralytics' trainer, its checkpoints, and full training."""
