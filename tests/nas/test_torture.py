"""A small form of `benchmarks/torture.py`: a search, its export and its confirmation, killed at random moments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / "benchmarks" / "torture.py").is_file(), reason="benchmarks are not beside the tests")
@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_random_kills_lose_and_double_nothing(storage: str, tmp_path: Path) -> None:
    if storage == "postgresql" and not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("Debian's PostgreSQL is not installed")
    command = [sys.executable, "-m", "benchmarks.torture", "--kills", "4", "--early", "1", "--seed", "3"]
    command += ["--postgres"] if storage == "postgresql" else []
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "torture")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 problems" in done.stdout
