"""Malformed inputs: which changes a file allows, for `benchmarks/malformed.py`."""

import json
import random
from collections.abc import Callable
from pathlib import Path

from benchmarks.malformed_archives import edit_archive
from benchmarks.malformed_documents import edit_csv, edit_database, edit_json, edit_yaml
from benchmarks.malformed_files import edit_bytes, edit_checkpoint, edit_place, edit_text

Edit = Callable[[random.Random, Path], str]
"""Change a file; return what was done."""

EDITS: dict[str, tuple[Edit, ...]] = {
    ".yaml": (edit_yaml, edit_yaml, edit_yaml, edit_text, edit_bytes, edit_place),
    ".json": (edit_json, edit_json, edit_json, edit_text, edit_bytes, edit_place),
    ".jsonl": (edit_json, edit_json, edit_json, edit_text, edit_bytes, edit_place),
    ".csv": (edit_csv, edit_csv, edit_csv, edit_text, edit_bytes, edit_place),
    ".db": (edit_database, edit_database, edit_database, edit_place),
    ".pt": (edit_checkpoint, edit_checkpoint, edit_place),
    ".npz": (edit_bytes, edit_place),
    ".gz": (edit_archive, edit_archive, edit_bytes, edit_place),
    ".bin": (edit_bytes, edit_place),
    ".txt": (edit_text, edit_bytes, edit_place),
    ".png": (edit_bytes, edit_bytes, edit_place),
    "": (edit_text, edit_bytes, edit_place),
}
"""Changes of a file by the ending of its name; a frequent one stands there several times."""


def edit(draw: random.Random, path: Path) -> str:
    """Change a file in a way that its kind allows; return what was done."""
    return draw.choice(EDITS.get(path.suffix, EDITS[""]))(draw, path)


def set_value(path: Path, key: str, value: str) -> str:
    """Set a value in the mapping of a JSON file; return what was done."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(fields | {key: value}), encoding="utf-8")
    return f"{path.name}: {key} = {value}"
