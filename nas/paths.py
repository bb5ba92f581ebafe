"""Where studies lie when nothing else is said."""

from pathlib import Path

RUNS = Path("runs/nas")
"""Default folder of all studies."""
