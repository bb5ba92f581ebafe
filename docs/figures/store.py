"""Store a study for `draw.py`, without weights and without the paths of the machine that ran it.

    nas search --space v9 && nas confirm v9t-digits --seeds 5
    python docs/figures/store.py runs/nas

writes `v9t-digits.tar.xz` beside this file: what the pictures and the tests read of the study and its confirmation.
"""

import lzma
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

from search_spaces import cache_folder

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
                    _write(copied / file.relative_to(runs / name), _replaced(file.read_text(encoding="utf-8"), paths))
            _copy_database(runs / name / "study.db", copied / "study.db", paths)
        with tarfile.open(ARCHIVE, "w:xz", preset=9 | lzma.PRESET_EXTREME) as archive:
            archive.add(Path(folder) / "runs", "runs", filter=_anonymous)


def _replaced(text: str, paths: dict[str, str]) -> str:
    for path, written in paths.items():
        text = text.replace(path, written)
    return text


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


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


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    store(Path(sys.argv[1]).resolve())
    print(f"{ARCHIVE.name}: {ARCHIVE.stat().st_size:,} bytes")
