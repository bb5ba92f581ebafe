"""Changes of any file: its text, its bytes, what lies in its place; for `benchmarks/malformed.py`."""

import os
import random
import zipfile
from pathlib import Path

from benchmarks.malformed_values import CANARY, CODE, SHELL, TEXTS


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
    code = f"cbuiltins\nexec\n(V{CODE}\ntR.".encode()
    inside = next(name for name in members if name.endswith("data.pkl"))
    match kind:
        case "alone":
            path.write_bytes(code)
            return "checkpoint: a pickle that runs code"
        case "pickle":
            members[inside] = draw.choice(
                (code, b"", members[inside][:-20], b"cos\nsystem\n(V" + SHELL.encode() + b"\ntR.")
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
