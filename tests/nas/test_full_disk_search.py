"""Real searches on a disk that becomes full: a small form of `benchmarks/full_disk.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def require_mounts(folder: Path) -> None:
    """Skip the test where no file system can be mounted."""
    folder.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    subprocess.run(["/bin/umount", str(folder)], check=True)


@pytest.mark.skipif(not (ROOT / "benchmarks" / "full_disk.py").is_file(), reason="benchmarks are not beside the tests")
def test_searches_on_a_full_disk_end_with_a_line_and_lose_nothing(tmp_path: Path) -> None:
    require_mounts(tmp_path / "mounted")
    command = [sys.executable, "-m", "benchmarks.full_disk", "--cases", "6", "--seed", "1"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "full")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 problems" in done.stdout
