"""Layers that are added to a base model, and the two ways to count layers that follow from it.

A slot is named by the base model's layer index for ever; the built model counts its own layers. `after-9` is the layer
that is inserted behind the base model's layer 9.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from search_spaces.errors import SpecError
from search_spaces.rows import Row

Feeds = Literal["next", "all"]
"""Who reads the inserted layer: the next layer alone, or every layer that read the one before it."""
FEEDS: tuple[Feeds, ...] = ("next", "all")


def behind(layer: int) -> str:
    """What the layer is called that is inserted behind one of the base model's."""
    return f"after-{layer}"


def labels(layers: int, after: Iterable[int]) -> tuple[str, ...]:
    """What the layers of a built model are called, in order: `8`, `9`, `after-9`, `10`.

    Args:
        layers: of the base model.
        after: the layers behind which one is inserted.
    """
    places = set(after)
    return tuple(
        label
        for layer in range(layers)
        for label in ((str(layer), behind(layer)) if layer in places else (str(layer),))
    )


def splice(rows: Sequence[Row], inserted: Mapping[int, tuple[Feeds, Row]]) -> list[Row]:
    """Rows with others between them, every `from` counted anew.

    Args:
        rows: of the base model, backbone and head.
        inserted: who reads it, and the row, by the layer it follows.

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
        counted = []
        for written, read in zip(named, absolute, strict=True):
            index = position[_read(read, reader, inserted)] if read >= 0 else read  # below 0 is the image itself
            counted.append(-1 if written < 0 and index == len(spliced) - 1 else index)
        spliced.append([counted[0] if isinstance(source, int) else counted, *rest])
        if reader in inserted:
            spliced.append(inserted[reader][1])
    return spliced


def remove(rows: Sequence[Row], positions: Iterable[int]) -> list[Row]:
    """Return rows without some of them, every `from` counted anew: what `splice` inserted there is undone.

    Args:
        rows: backbone and head.
        positions: of rows that read the layer before alone; who read one of them reads that layer.
    """
    gone = set(positions)
    kept = [index for index in range(len(rows)) if index not in gone]
    position = {index: new for new, index in enumerate(kept)}
    left: list[Row] = []
    for new, index in enumerate(kept):
        source, *rest = rows[index]
        counted = []
        for written in [source] if isinstance(source, int) else source:
            read = written if written >= 0 else index + written
            while read in gone:
                read -= 1
            now = position.get(read, -1)  # below 0 is the image itself
            counted.append(-1 if written < 0 and now == new - 1 else now)
        left.append([counted[0] if isinstance(source, int) else counted, *rest])
    return left


def _require_fed(reader: int, absolute: Sequence[int], inserted: Mapping[int, tuple[Feeds, Row]]) -> None:
    before = reader - 1
    if before in inserted and inserted[before][0] == "next" and before not in absolute:
        raise SpecError(
            f"layer {reader} does not read layer {before}, so nothing would read the insertion (feeds: all)"
        )


def _read(layer: int, reader: int, inserted: Mapping[int, tuple[Feeds, Row]]) -> str:
    """What a reader of a layer reads now."""
    if layer in inserted and (inserted[layer][0] == "all" or reader == layer + 1):
        return behind(layer)
    return str(layer)
