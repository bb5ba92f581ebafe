"""File format of `nas pack`: a gzip-compressed tar archive whose first member lists all others with their SHA-256.

It is read by a reader of its own, for a closed subset of tar: plain files in the order of the list, no links, no
devices, no extended headers. So nothing of a foreign archive is believed that the list does not say, and nothing is
read into memory that is longer than one block, but the list.
"""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, cast

from pydantic import Field, StrictFloat, StrictInt, StrictStr, ValidationError

from nas.settings import FrozenModel
from search_spaces.errors import StudyError, unwrapped
from search_spaces.files import atomic_path, is_special

_MANIFEST = "manifest.json"
_MOST_MANIFEST = 1 << 26
"""Bytes of the longest list that is read."""
_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
_LEVEL = 1
"""Compression level of gzip: higher ones make weights hardly smaller, and take longer."""
_UNREADABLE = (OSError, EOFError, zlib.error)
_LATEST = 8**11 - 1
"""Latest time of a file that tar can store, in seconds since 1970: in the year 2242."""

Show = Callable[[int, int], None]


class Member(FrozenModel):
    """One file of an archive.

    Attributes:
        path: name of the study and path in its folder, with slashes.
        size: in bytes.
        sha256: of the content.
        modified: in seconds since 1970.
    """

    path: StrictStr
    size: Annotated[StrictInt, Field(ge=0)]
    sha256: Annotated[StrictStr, Field(pattern=r"[0-9a-f]{64}")]
    modified: Annotated[StrictFloat, Field(ge=0, le=_LATEST)]


class Manifest(FrozenModel):
    """List of what an archive holds.

    Attributes:
        version: of this package.
        study: name of the study that was packed.
        studies: names of it and of the studies beside it.
    """

    format: Literal[1]
    version: StrictStr
    study: StrictStr
    studies: tuple[StrictStr, ...]
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)


def member_of(path: str, file: Path) -> Member:
    """Return a file as a member; its time is brought within what tar can store, for clocks go wrong."""
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    found = file.stat()
    return Member(path=path, size=found.st_size, sha256=sha256, modified=min(max(found.st_mtime, 0.0), float(_LATEST)))


def write(path: Path, manifest: Manifest, files: Sequence[Path], show: Show = lambda _done, _all: None) -> None:
    """Write an archive.

    Args:
        path: of the archive.
        manifest: of its files.
        files: by the order of the manifest.
        show: called with how many of how many bytes are written.

    Raises:
        StudyError: a file has changed since the manifest was made, or its name is too long.
    """
    text, done = manifest.model_dump_json(indent=1).encode(), 0
    with atomic_path(path) as temporary, temporary.open("wb") as packed, _compressed(packed) as zipped:
        out = cast("BinaryIO", zipped)
        _write_header(out, _MANIFEST, len(text), 0.0)
        out.write(text)
        _pad(out, len(text))
        for member, file in zip(manifest.members, files, strict=True):
            _write_header(out, member.path, member.size, member.modified)
            checksum, size = hashlib.sha256(), 0
            with file.open("rb") as content:
                while chunk := content.read(_CHUNK):
                    out.write(chunk)
                    checksum.update(chunk)
                    size += len(chunk)
                    show(done + size, manifest.size)
            if (size, checksum.hexdigest()) != (member.size, member.sha256):
                raise StudyError(f"{file}: has changed while it was packed; pack again")
            _pad(out, size)
            done += size
        out.write(bytes(2 * _BLOCK))


def _compressed(file: BinaryIO) -> gzip.GzipFile:
    """Return a stream that compresses into a file; neither a name nor a time is in its header."""
    return gzip.GzipFile("", "wb", compresslevel=_LEVEL, fileobj=file, mtime=0)


def _write_header(out: BinaryIO, name: str, size: int, modified: float) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(modified), 0o644
    try:
        out.write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
    except (ValueError, UnicodeError) as error:
        raise StudyError(f"{name}: cannot be packed: {error}") from None


def _pad(out: BinaryIO, size: int) -> None:
    out.write(bytes(-size % _BLOCK))


def read(path: Path) -> Manifest:
    """Return the list of an archive, without a look at its files.

    Raises:
        StudyError: it is no archive of `nas pack`, or one of a newer version.
    """
    with _opened(path) as stream:
        return _read_manifest(path, stream)


def contents(path: Path, manifest: Manifest) -> Iterator[tuple[Member, Iterator[bytes]]]:
    """Yield the files of an archive, in the order of its list, each with its content, which must be read to its end.

    Raises:
        StudyError: the archive has other members than its list, another content, or is damaged.
    """
    with _opened(path) as stream:
        if _read_manifest(path, stream) != manifest:
            raise StudyError(f"{path}: has changed while it was unpacked")
        for member in manifest.members:
            name, size = _read_header(path, stream)
            if (name, size) != (member.path, member.size):
                raise StudyError(f"{path}: {name!r} of {size} bytes is there, its list has {member.path!r}")
            yield member, _read_content(path, stream, member)
        if any(_read(path, stream, 2 * _BLOCK)) or _read_some(path, stream, 1):
            raise StudyError(f"{path}: holds more than its list says")


def _read_content(path: Path, stream: BinaryIO, member: Member) -> Iterator[bytes]:
    checksum, left = hashlib.sha256(), member.size
    while left:
        chunk = _read(path, stream, min(left, _CHUNK))
        checksum.update(chunk)
        left -= len(chunk)
        yield chunk
    _read(path, stream, -member.size % _BLOCK)
    if checksum.hexdigest() != member.sha256:
        raise StudyError(f"{path}: {member.path} is damaged (its SHA-256 is another one than in the list)")


def _read_manifest(path: Path, stream: BinaryIO) -> Manifest:
    name, size = _read_header(path, stream)
    if name != _MANIFEST or size > _MOST_MANIFEST:
        raise StudyError(f"{path}: no archive of nas pack (it does not begin with a {_MANIFEST})")
    text = _read(path, stream, size)
    _read(path, stream, -size % _BLOCK)
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        advice = " (made by a newer version of nas?)" if place == "format" else ""
        raise StudyError(f"{path}: {_MANIFEST}: {place}: {first['msg']}{advice}") from None


def _read_header(path: Path, stream: BinaryIO) -> tuple[str, int]:
    """Return name and size of the next member, which is a plain file."""
    try:
        info = tarfile.TarInfo.frombuf(_read(path, stream, _BLOCK), "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeError) as error:
        raise StudyError(f"{path}: damaged, or no archive of nas pack ({error})") from None
    if info.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
        raise StudyError(f"{path}: {info.name!r} is no plain file (a link, a device or a folder); nothing was unpacked")
    if info.size < 0:
        raise StudyError(f"{path}: {info.name!r} has a size below 0")
    return info.name, info.size


def _read(path: Path, stream: BinaryIO, size: int) -> bytes:
    """Read so many bytes.

    Raises:
        StudyError: the archive ends before, or is damaged.
    """
    content = b""
    while len(content) < size and (more := _read_some(path, stream, size - len(content))):
        content += more
    if len(content) < size:
        raise StudyError(f"{path}: ends too early; it was not copied as a whole")
    return content


def _read_some(path: Path, stream: BinaryIO, most: int) -> bytes:
    """Read up to so many bytes; none at the end, where gzip compares length and checksum of the whole.

    Raises:
        StudyError: the archive is damaged.
    """
    try:
        return stream.read(most)
    except _UNREADABLE as error:
        raise StudyError(f"{path}: damaged, or no archive of nas pack ({unwrapped(error)})") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if is_special(path):
        raise StudyError(f"{path}: is no plain file; an archive of nas pack is expected")
    try:
        stream = gzip.open(path, "rb")  # noqa: SIM115 - closed below; what reading raises is `_read`'s business
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise StudyError(f"{path}: is a folder, an archive of nas pack is expected") from None
    except OSError as error:  # such as a link to itself
        raise StudyError(f"{path}: cannot be read: {error.strerror or error}") from None
    with stream:
        yield cast("BinaryIO", stream)
