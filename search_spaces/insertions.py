"""Insert layers into a base model, and convert between the layer indices of the base model and of the built one.

A slot is always named by the layer index of the base model. `after-9` is the layer inserted behind layer 9.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from search_spaces.errors import SpecError
from search_spaces.rows import Row

Feeds = Literal["next", "all"]
"""Readers of an inserted layer: the next layer alone, or every layer that read the layer before it."""
FEEDS: tuple[Feeds, ...] = ("next", "all")


def behind(layer: int) -> str:
    """Return the name of the layer that is inserted behind a layer of the base model: `after-9`."""
    return f"after-{layer}"


def labels(layers: int, after: Iterable[int]) -> tuple[str, ...]:
    """Return the names of a built model's layers, in order: `8`, `9`, `after-9`, `10`.

    Args:
        layers: number of layers of the base model.
        after: the layers behind which a layer is inserted.
    """
    places = set(after)
    return tuple(
        label
        for layer in range(layers)
        for label in ((str(layer), behind(layer)) if layer in places else (str(layer),))
    )


def splice(rows: Sequence[Row], inserted: Mapping[int, tuple[Feeds, Row]]) -> list[Row]:
    """Return rows with others inserted and every `from` renumbered.

    Args:
        rows: of the base model, backbone and head.
        inserted: readers and row of each insertion, by the layer that it follows.

    Raises:
        SpecError: `feeds: next`, but the next layer does not read the one before the insertion.
    """
    if not inserted:
        return [list(row) for row in rows]
    position = {label: index for index, label in enumerate(labels(len(rows), inserted))}
    spliced: list[Row] = []
    for reader, (source, *rest) in enumerate(rows):
        named = [source] if isinstance(source, int) else list(source)
        absolute = [read if read >= 0 else reader + read for read in named]
        _require_fed(reader, absolute, inserted)
        renumbered = []
        for written, read in zip(named, absolute, strict=True):
            index = position[_read(read, reader, inserted)] if read >= 0 else read  # below 0 is the image itself
            renumbered.append(-1 if written < 0 and index == len(spliced) - 1 else index)
        spliced.append([renumbered[0] if isinstance(source, int) else renumbered, *rest])
        if reader in inserted:
            spliced.append(inserted[reader][1])
    return spliced


def remove(rows: Sequence[Row], positions: Iterable[int]) -> list[Row]:
    """Return rows without some of them and every `from` renumbered: the inverse of `splice`.

    Args:
        rows: backbone and head.
        positions: of the rows to remove, each of which reads the layer before it alone; its readers read that layer.
    """
    gone = set(positions)
    remaining = [index for index in range(len(rows)) if index not in gone]
    position = {index: new for new, index in enumerate(remaining)}
    left: list[Row] = []
    for new, index in enumerate(remaining):
        source, *rest = rows[index]
        renumbered = []
        for written in [source] if isinstance(source, int) else source:
            read = written if written >= 0 else index + written
            while read in gone:
                read -= 1
            now = position.get(read, -1)  # below 0 is the image itself
            renumbered.append(-1 if written < 0 and now == new - 1 else now)
        left.append([renumbered[0] if isinstance(source, int) else renumbered, *rest])
    return left


def _require_fed(reader: int, absolute: Sequence[int], inserted: Mapping[int, tuple[Feeds, Row]]) -> None:
    before = reader - 1
    if before in inserted and inserted[before][0] == "next" and before not in absolute:
        raise SpecError(
            f"layer {reader} does not read layer {before}, so nothing would read the insertion (feeds: all)"
        )


def _read(layer: int, reader: int, inserted: Mapping[int, tuple[Feeds, Row]]) -> str:
    """Return the name of the layer that a reader of a layer reads after the insertions."""
    if layer in inserted and (inserted[layer][0] == "all" or reader == layer + 1):
        return behind(layer)
    return str(layer)
