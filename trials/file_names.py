"""Names of the files that the evaluation of a candidate writes into its folder."""

WEIGHTS = "weights.pt"
CHECKPOINT = "checkpoint.bin"
MODEL = "model.yaml"
ERROR = "error.txt"
SCRATCH = "ultralytics"
"""Folder in which Ultralytics' trainer writes; deleted with the end of the training."""
