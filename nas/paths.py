"""Default locations of files."""

from pathlib import Path

RUNS = Path("runs/nas")
"""Default folder of all studies."""
