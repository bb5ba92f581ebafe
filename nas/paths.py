"""Default locations of files."""

import os
from pathlib import Path

HOME = "NAS_HOME"
"""Environment variable with the folder of everything that is written: studies in `runs`, the cache in `cache`."""
RUNS = Path(os.environ[HOME]) / "runs" if os.environ.get(HOME) else Path("runs/nas")
"""Default folder of all studies."""
