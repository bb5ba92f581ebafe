"""Store a study for `draw.py`, without weights and without the paths of the machine that ran it.

    nas search --space v9 && nas confirm v9t-digits --seeds 5
    python docs/figures/store.py runs/nas

writes `v9t-digits.tar.xz` beside this file: what the pictures and the tests read of the study and its confirmation. Of
the images that judged, accuracies on resamples are stored to a hundredth of a point, and no detections, which no
verdict reads: a tenth of the size.
"""

import lzma
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from search_spaces import cache_folder
from trials.accuracy.judged import JUDGED

STUDIES = ("v9t-digits", "v9t-digits-confirm")
KEPT = ("space.yaml", "study.json", "records.jsonl", "base/*", "trials/*/*")
TEXTS = {".yaml", ".json", ".jsonl"}
HOME = "/home/me"
ARCHIVE = Path(__file__).with_name(f"{STUDIES[0]}.tar.xz")


def store(runs: Path) -> None:
    """Write the archive of a study below the folder of all studies."""
    paths = {str(runs): f"{HOME}/runs/nas", str(cache_folder.path()): f"{HOME}/.cache/nas"}
    with tempfile.TemporaryDirectory() as folder:
        for name in STUDIES:
            copied = Path(folder) / "runs" / "nas" / name
            for file in (found for pattern in KEPT for found in (runs / name).glob(pattern)):
                if file.suffix in TEXTS:
                    _copy_text(file, copied / file.relative_to(runs / name), paths)
            _copy_database(runs / name / "study.db", copied / "study.db", paths)
            for file in (runs / name).glob(f"trials/*/{JUDGED}"):
                _copy_judged(file, copied / file.relative_to(runs / name))
        with tarfile.open(ARCHIVE, "w:xz", preset=9 | lzma.PRESET_EXTREME) as archive:
            archive.add(Path(folder) / "runs", "runs", filter=_anonymous)


def _copy_text(source: Path, copy: Path, paths: dict[str, str]) -> None:
    """Copy a file with other paths in it, and its time, from which MLflow's runs have theirs."""
    text = source.read_text(encoding="utf-8")
    for path, written in paths.items():
        text = text.replace(path, written)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text, encoding="utf-8")
    shutil.copystat(source, copy)


def _copy_database(source: Path, copy: Path, paths: dict[str, str]) -> None:
    """Copy what other processes may have written, too, and leave no free pages."""
    opened = sqlite3.connect(source)
    opened.execute("VACUUM INTO ?", (str(copy),))
    opened.close()
    opened = sqlite3.connect(copy)
    for path, written in paths.items():
        opened.execute("UPDATE study_user_attributes SET value_json = replace(value_json, ?, ?)", (path, written))
    opened.commit()
    opened.execute("VACUUM")
    opened.close()


def _copy_judged(source: Path, copy: Path) -> None:
    """Copy the accuracies on resamples of the images, rounded, without the detections."""
    with np.load(source) as archive:
        arrays = {name: array[:0] if array.ndim and name != "resampled" else array for name, array in archive.items()}
    np.savez(copy, **{**arrays, "resampled": arrays["resampled"].round(4)})


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    store(Path(sys.argv[1]).resolve())
    print(f"{ARCHIVE.name}: {ARCHIVE.stat().st_size:,} bytes")
