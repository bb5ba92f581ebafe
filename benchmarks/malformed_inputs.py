"""Malformed inputs: mutations of valid files and of command lines, for `benchmarks/malformed.py`."""

import copy
import csv
import io
import json
import os
import random
import sqlite3
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

CANARY = "ran-code.txt"
"""File that exists only if text of an input was executed."""

_CODE = f"open('{CANARY}', 'w').close()"
_SHELL = f"touch {CANARY}"

SCALARS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    10**9,
    10**17,
    -(10**17),
    10**30,
    0.5,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e308,
    5e-324,
    "",
    " ",
    "x" * 5000,
    "a\x00b",
    "\x1b[31mred\x1b]0;title\x07",
    "one\ntwo\rthree",
    "\u202etxt.exe",
    "é\N{COMBINING ACUTE ACCENT}",
    "\N{ARABIC-INDIC DIGIT ONE}\N{ARABIC-INDIC DIGIT TWO}",
    "../../../outside/stranger",
    "/etc/passwd",
    "/dev/zero",
    "~/x",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x.yaml",
    "https://example.com/a.pt",
    f"ssh://-oProxyCommand={_SHELL}/torch",
    f"__import__('os').system('{_SHELL}')",
    f"[{_CODE}, nn.ReLU()][1]",
    f"$({_SHELL})",
    f"; {_SHELL} #",
    "{0.__class__.__mro__}",
    "%s%n%(x)s",
    "[b]bold[/b]",
    "[/red]",
    "[link=http://127.0.0.1:9]x[/link]",
    "<script>alert(1)</script>",
    "| a | b |\n|---|---|",
    "=1+1",
    "-1",
    "1e-3",
    "nan",
    "2026-13-45",
    "yes",
    "None",
    "nn.Module",
    "torch.load",
    "__class__",
)
"""Values that a file or a command line may hold in any place."""

CONTAINERS: tuple[Any, ...] = (
    [],
    {},
    [[]],
    [None],
    [1, 2, 3],
    ["a", 1, None],
    {"a": {}},
    {"": ""},
    {"__class__": "x"},
    list(range(3000)),
    {str(number): number for number in range(500)},
)

TEXTS: tuple[str, ...] = (
    "",
    "\n \n",
    "---\n---\n",
    "a: 1\n---\nb: 2\n",
    "\tname: x\n",
    "[" * 100_000,
    "{" * 5_000,
    "- " * 3_000 + "x",
    "&a [*a]",
    "a: &a {b: *a}\n",
    "\n".join(
        ["a: &a0 [x, x, x, x, x, x, x, x, x]", *(f"b{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(10))]
    ),
    f"!!python/object/apply:os.system ['{_SHELL}']\n",
    f'name: !!python/object/apply:builtins.eval ["{_CODE}"]\n',
    "name: !!python/name:os.system\nx: !!python/module:os\n",
    "name: !!binary aGVsbG8=\nx: !!set {a, b}\ny: !!omap [a: 1]\nz: !!timestamp 2026-13-45\n",
    "name: !unknown {a: 1}\n",
    "<<: {a: 1}\n<<: *nowhere\n",
    "? [a, b]\n: c\n? {d: e}\n: f\n",
    "1: a\n1.0: b\ntrue: c\nnull: d\n2026-01-01: e\n",
    "name: " + "9" * 10_000,
    "name: 1:59:59:59:59\nx: 0o777\ny: 0xFFFFFFFFFFFFFFFFFFFF\nz: 1_000__000\n",
    '{"name": ' * 2_000,
    '{"a": 1, "a": 2}',
    '{"a": NaN, "b": Infinity, "c": -1e999}',
    "\ufeff\ufeffname: x\n",
    "%YAML 9.9\n---\nname: x\n",
    "a,b,c\n1,2\n",
    '"' * 1001,
    "=cmd|' /C calc'!A0,1\n",
    "\x1b[2J\x1b]8;;http://127.0.0.1:9\x07x\n",
)
"""Texts that replace the whole content of a file."""

Edit = Callable[[random.Random, Path], str]
"""Change a file; return what was done."""


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


def edit_text(draw: random.Random, path: Path) -> str:
    """Change lines and characters of a text file, or its encoding, or put another text in its place."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    kind = draw.choice(
        ("other", "other", "cut", "double", "lines", "utf-16", "latin", "nul", "repeat", "tab", "indent", "mac")
    )
    at = draw.randrange(max(1, len(text)))
    line = draw.randrange(max(1, len(lines)))
    changed: str | bytes = text
    match kind:
        case "other":
            changed = draw.choice(TEXTS)
        case "cut":
            changed = text[:at]
        case "double":
            changed = text + text
        case "lines":
            draw.shuffle(lines)
            changed = "".join(lines)
        case "utf-16":
            changed = text.encode("utf-16")
        case "latin":
            changed = (text[:at] + "\N{LATIN SMALL LETTER E WITH ACUTE}" + text[at:]).encode("latin-1", "replace")
        case "nul":
            changed = text[:at] + "\0" + text[at:]
        case "repeat":
            changed = "".join([*lines[:line], *lines[line : line + 1] * 300, *lines[line:]])
        case "tab":
            changed = text.replace("  ", "\t")
        case "indent":
            changed = "".join([*lines[:line], "   ", *lines[line:]])
        case _:
            changed = text.replace("\n", "\r")
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode("utf-8", "surrogatepass"))
    return f"text: {kind}, {str(changed[:40])!r}"


def edit_bytes(draw: random.Random, path: Path) -> str:
    """Change bytes of any file."""
    whole = bytearray(path.read_bytes())
    kind = draw.choice(("flip", "cut", "zeros", "binary", "empty", "append", "middle"))
    match kind:
        case "flip":
            for _ in range(draw.choice((1, 20, 400))):
                if whole:
                    whole[draw.randrange(len(whole))] = draw.randrange(256)
        case "cut":
            whole = whole[: draw.randrange(len(whole) + 1)]
        case "zeros":
            whole = bytearray(max(64, len(whole)))
        case "binary":
            whole = bytearray(range(256)) * 8
        case "empty":
            whole = bytearray()
        case "append":
            whole += bytes(draw.randrange(256) for _ in range(100))
        case _:
            half = len(whole) // 2
            whole[half : half + 64] = b"\xff" * 64
    path.write_bytes(whole)
    return f"bytes: {kind}"


def edit_place(draw: random.Random, path: Path) -> str:
    """Put something else than a plain file in the place of a file."""
    kind = draw.choice(
        ("folder", "outside", "dangling", "loop", "fifo", "endless", "missing", "large", "device", "name")
    )
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "outside":
            path.symlink_to(Path.cwd() / "outside" / "stranger")
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)
        case "fifo":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "large":
            with path.open("wb") as file:
                file.truncate(2**33)  # sparse: it takes no room
        case "device":
            path.symlink_to("/dev/tty")
        case "name":
            path.symlink_to("/proc/self/mem")
        case _:
            pass
    return f"place: {kind}"


def edit_checkpoint(draw: random.Random, path: Path) -> str:
    """Change a file that PyTorch has written: an archive with a pickle and tensors."""
    kind = draw.choice(("bytes", "pickle", "pickle", "member", "alone", "empty"))
    if kind == "bytes" or not zipfile.is_zipfile(path):
        return edit_bytes(draw, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    code = f"cbuiltins\nexec\n(V{_CODE}\ntR.".encode()
    inside = next(name for name in members if name.endswith("data.pkl"))
    match kind:
        case "alone":
            path.write_bytes(code)
            return "checkpoint: a pickle that runs code"
        case "pickle":
            members[inside] = draw.choice(
                (code, b"", members[inside][:-20], b"cos\nsystem\n(V" + _SHELL.encode() + b"\ntR.")
            )
        case "member":
            chosen = draw.choice(list(members))
            members[chosen] = draw.choice((b"", members[chosen][: len(members[chosen]) // 2]))
        case _:
            members = {}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if draw.random() < 0.3:
            archive.writestr(f"../../outside/{CANARY}", "x")
    return f"checkpoint: {kind}"


EDITS: dict[str, tuple[Edit, ...]] = {
    ".yaml": (edit_yaml, edit_yaml, edit_yaml, edit_text, edit_bytes, edit_place),
    ".json": (edit_json, edit_json, edit_json, edit_text, edit_bytes, edit_place),
    ".jsonl": (edit_json, edit_json, edit_json, edit_text, edit_bytes, edit_place),
    ".csv": (edit_csv, edit_csv, edit_csv, edit_text, edit_bytes, edit_place),
    ".db": (edit_database, edit_database, edit_database, edit_place),
    ".pt": (edit_checkpoint, edit_checkpoint, edit_place),
    ".npz": (edit_bytes, edit_place),
    ".bin": (edit_bytes, edit_place),
    ".txt": (edit_text, edit_bytes, edit_place),
    ".png": (edit_bytes, edit_bytes, edit_place),
    "": (edit_text, edit_bytes, edit_place),
}
"""Changes of a file by the ending of its name; a frequent one stands there several times."""


def edit(draw: random.Random, path: Path) -> str:
    """Change a file in a way that its kind allows; return what was done."""
    return draw.choice(EDITS.get(path.suffix, EDITS[""]))(draw, path)
