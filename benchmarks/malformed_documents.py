"""Changes of YAML, JSON and CSV files and of databases, for `benchmarks/malformed.py`."""

import copy
import csv
import io
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from benchmarks.malformed_files import edit_bytes, edit_text
from benchmarks.malformed_values import CONTAINERS, SCALARS


def paths_in(document: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys that lead to every value of a document."""
    pairs = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in pairs:
        yield (key,)
        yield from ((key, *rest) for rest in paths_in(value))


def _owner(document: Any, path: Sequence[Any]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def value(draw: random.Random) -> Any:
    """Draw a value that hardly any place expects."""
    chosen = draw.choice(SCALARS) if draw.random() < 0.8 else draw.choice(CONTAINERS)
    return copy.deepcopy(chosen)


def mutated(draw: random.Random, document: Any) -> tuple[Any, str]:
    """Return a copy of a document with one to three changes, and their description."""
    document, done = copy.deepcopy(document), []
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(paths_in(document))
        if not places:
            return value(draw), "replaced as a whole"
        path = draw.choice(places)
        owner, key = _owner(document, path), path[-1]
        kind = draw.choice(("value", "value", "value", "delete", "add", "rename", "wrap", "repeat", "swap"))
        done.append(f"{kind} at {'.'.join(map(str, path))}")
        if kind == "value":
            owner[key] = value(draw)
            done[-1] += f" = {owner[key]!r:.60}"
        elif kind == "delete":
            del owner[key]
        elif kind == "wrap":
            owner[key] = draw.choice(([owner[key]], {"x": owner[key]}, [[owner[key]]] * 3))
        elif kind == "repeat" and isinstance(owner, list):
            owner.extend([owner[key]] * draw.choice((1, 40)))
        elif kind == "swap":
            other = draw.choice(places)
            owner[key] = copy.deepcopy(_owner(document, other)[other[-1]])
        elif isinstance(owner, dict):
            new = draw.choice(
                ("x", "", "a.b", "__proto__", "\x1b[31m", "name", "nc", 7, None, True, "é" * 400, "../up")
            )
            owner[new] = owner.pop(key) if kind == "rename" else value(draw)
            done[-1] += f" -> {new!r:.30}"
        else:
            owner.insert(int(key), value(draw))
    return document, "; ".join(done)


def edit_yaml(draw: random.Random, path: Path) -> str:
    """Change values and keys of a YAML file."""
    document, done = mutated(draw, yaml.safe_load(path.read_text(encoding="utf-8")))
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=draw.random() < 0.5, default_flow_style=None)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return done


def edit_json(draw: random.Random, path: Path) -> str:
    """Change values and keys of a JSON file, or of one of its lines."""
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else [text]
    if not lines:
        return edit_text(draw, path)
    chosen = draw.randrange(len(lines))
    document, done = mutated(draw, json.loads(lines[chosen]))
    lines[chosen] = json.dumps(document, default=str)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return done


def edit_csv(draw: random.Random, path: Path) -> str:
    """Change cells, rows or columns of a CSV file; lines that begin with `#` are kept or changed as text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comments, body = (
        [line for line in lines if line.startswith("#")],
        [line for line in lines if not line.startswith("#")],
    )
    rows = list(csv.reader(body))
    kind = draw.choice(("cell", "cell", "cell", "header", "column", "row", "comment", "double"))
    row = draw.randrange(1, len(rows))
    column = draw.randrange(len(rows[0]))
    done = f"{kind} at row {row}, column {column}"
    if kind == "comment" and comments:
        at = draw.randrange(len(comments))
        comments[at] = draw.choice(
            ("#", "# x", f"{comments[at].partition(':')[0]}: {draw.choice(SCALARS)}", comments[0])
        )
        done += f" -> {comments[at]!r:.60}"
    elif kind == "header":
        rows[0][column] = str(draw.choice(SCALARS))
    elif kind == "column":
        rows = [[cell for index, cell in enumerate(each) if index != column] for each in rows]
    elif kind == "row":
        rows[row] = rows[row][: draw.randrange(len(rows[row]))] + [str(draw.choice(SCALARS))] * draw.randrange(3)
    elif kind == "double":
        rows.append(rows[row])
    else:
        rows[row][column % len(rows[row])] = str(draw.choice(SCALARS))
        done += f" = {rows[row][column % len(rows[row])]!r:.60}"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    path.write_text("\n".join([*comments, out.getvalue()]), encoding="utf-8")
    return done


def edit_database(draw: random.Random, path: Path) -> str:
    """Change tables, rows or values of Optuna's database."""
    if draw.random() < 0.25:
        return edit_bytes(draw, path)
    with closing(sqlite3.connect(path)) as database, database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        table = draw.choice(tables)
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        column, kind = draw.choice(columns), draw.choice(("value", "value", "value", "json", "empty", "drop", "rename"))
        done = f"{kind} in {table}.{column}"
        if kind == "empty":
            database.execute(f"DELETE FROM {table}")  # noqa: S608 - names of the database itself
        elif kind == "drop":
            database.execute(f"DROP TABLE {table}")
        elif kind == "rename":
            database.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO strange")
        else:
            if kind == "json":
                table, column = draw.choice(
                    (("trial_user_attributes", "value_json"), ("trial_params", "distribution_json"))
                )
            changed = value(draw) if kind == "json" else draw.choice(SCALARS)
            stored = json.dumps(changed) if kind == "json" else changed
            stored = str(stored) if isinstance(stored, int) and abs(stored) > 2**62 else stored
            where = "" if draw.random() < 0.5 else f" WHERE rowid = {draw.randrange(1, 6)}"
            done = f"{kind} in {table}.{column} = {stored!r:.60}{where}"
            try:
                database.execute(f"UPDATE {table} SET {column} = ?{where}", (stored,))  # noqa: S608 - as above
            except sqlite3.IntegrityError:
                done += " (refused by SQLite)"
    return done


def edit_settings(draw: random.Random, path: Path) -> str:
    """Change the settings in the checkpoint of a training, from which it goes on."""
    import torch  # noqa: PLC0415 - after its variables are set

    checkpoint = torch.load(path, weights_only=False)
    checkpoint["train_args"], done = mutated(draw, checkpoint["train_args"])
    torch.save(checkpoint, path)
    return f"settings: {done}"
