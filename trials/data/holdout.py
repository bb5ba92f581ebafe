"""Images that a study has sealed: `holdout.json` in its folder.

No training and no score of a search reads a sealed image or its label; a confirmation judges by them. The file lists
them, so that a resumed study has the same ones, whatever is drawn by then.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError

from search_spaces.errors import DataError
from search_spaces.files import read_plain, write_atomically

LEAST_JUDGING = 2
"""Fewest images that judge: one has no variance."""


class Holdout(BaseModel):
    """Sealed images of a data set.

    Attributes:
        share: of all images that was asked for.
        seed: with which they were drawn.
        images: sorted; relative to the data set's root if they lie in it, so that it can be moved; else absolute.
        of: number of images of `train` and `val`, sealed ones among them.
        fingerprint: of their names, file sizes and labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    share: Annotated[StrictFloat, Field(gt=0, lt=1)]
    seed: StrictInt
    images: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    of: StrictInt
    fingerprint: StrictStr

    def paths(self, root: Path) -> frozenset[str]:
        """Return the absolute paths of the sealed images of a data set with this root."""
        folder = root.resolve()
        return frozenset(str(folder / image) for image in self.images)

    def write(self, file: Path) -> None:
        """Write the file."""
        write_atomically(file, self.model_dump_json(indent=1))


def read(file: Path) -> Holdout:
    """Read a study's `holdout.json`.

    Raises:
        DataError: it is missing or damaged, so that nobody can say which images must not be read.
    """
    try:
        return Holdout.model_validate_json(read_plain(file))
    except FileNotFoundError:
        raise DataError(f"{file}: missing; it lists the images that the study has sealed (put it back)") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise DataError(f"{file}: damaged: {place}{first['msg']} (put it back as it was)") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None


def stored_names(paths: Sequence[str], root: Path) -> tuple[str, ...]:
    """Return the names of images as `Holdout.images` has them, sorted."""
    before = f"{root.resolve()}/"
    return tuple(sorted({path.removeprefix(before) for path in paths}))
