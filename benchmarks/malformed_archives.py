"""Changes of an archive of `nas pack`: its list, its members; for `benchmarks/malformed.py`."""

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

from benchmarks.malformed_documents import mutated
from benchmarks.malformed_values import TEXTS

_KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)


def edit_archive(draw: random.Random, path: Path) -> str:
    """Change the list of an archive, or a member's name, kind, content or place."""
    with tarfile.open(path) as archive:
        entries = [(info, archive.extractfile(info)) for info in archive.getmembers()]
        members = [(info, file.read() if file is not None else b"") for info, file in entries]
    kind = draw.choice(("list", "list", "list", "name", "kind", "content", "swap", "double", "drop"))
    at = draw.randrange(1, len(members))
    info, content = members[at]
    done = f"archive: {kind} of {info.name}"
    match kind:
        case "list":
            document, done = mutated(draw, json.loads(members[0][1]))
            members[0] = (members[0][0], json.dumps(document, default=str).encode())
            done = f"archive: list: {done}"
        case "name":
            info.name = draw.choice(("../../outside/stranger", "/tmp/stranger", "golden-holdout/x.py", "a" * 90, "é"))  # noqa: S108
        case "kind":
            info.type, info.linkname = draw.choice(_KINDS), "/etc/passwd"
            content = b""
            members[at] = (info, content)
        case "content":
            members[at] = (info, draw.choice(TEXTS).encode("utf-8", "surrogatepass"))
        case "swap":
            other = draw.randrange(1, len(members))
            members[at], members[other] = members[other], members[at]
        case "double":
            members.insert(at, members[at])
        case _:
            del members[at]
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry, bytes_of in members:
            entry.size = len(bytes_of)
            archive.addfile(entry, io.BytesIO(bytes_of))
        end = archive.offset  # tarfile fills up to a whole record
    path.write_bytes(gzip.compress(written.getvalue()[:end] + bytes(1024)))
    return done
