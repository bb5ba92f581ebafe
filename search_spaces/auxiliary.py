"""Add the rows of YOLOv9's auxiliary branch to a deployed model, and remove them from a trained one.

Source: the model files of the original repository (WongKinYiu/yolov9, GPL-3.0). Its `-t`, `-s` and `-e` have a second
top-down path beside the neck's (from the first backbone, where there are two); its `-m` and `-c` have a second
backbone, to whose maps those of the first are added (`CBLinear`, `CBFuse`). In both cases the head reads six maps, the
auxiliary ones first.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from search_spaces import insertions, rows
from search_spaces.errors import SpecError
from search_spaces.rows import Row

HEADS_OF_PARTS = {
    "DualDetect": ("Detect", 2),
    "DualDDetect": ("DDetect", 2),
    "ImplicitDualDetect": ("AnchorDetect", 2),
    "ImplicitDetect": ("AnchorDetect", 1),
    "TripleDDetect": ("DDetect", 3),
}
"""Heads that are deployed as another one, with that one and the number of their parts, which read as many maps each.

All parts but the last are auxiliary: only training uses them. YOLOv7's learned values are folded into convolutions.
"""

Source = int | Sequence[int]
"""Inputs of a layer: indices of layers, or -1 for the layer before."""

_IDENTITY = "nn.Identity"
_BLOCKS = ("ELAN1", "RepNCSPELAN4")
_LEVELS = 3
"""P3, P4 and P5."""


def has_auxiliary(document: Mapping[str, Any]) -> bool:
    """Return whether the rows of a model YAML have an auxiliary branch."""
    return HEADS_OF_PARTS.get(document["head"][-1][2], ("", 1))[1] > 1


def can_have_branch(document: Mapping[str, Any]) -> bool:
    """Return whether a model has the structure of YOLOv9's, to which the branch can be added."""
    try:
        with_branch(document)
    except SpecError:
        return False
    return True


def with_branch(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deployed model with the auxiliary branch that it is trained with.

    The branch consists of copies of the base model's layers, without operators and insertions, so that it is the same
    for every candidate.

    Args:
        document: a model YAML with final numbers in its rows; one with a branch is returned unchanged.

    Raises:
        SpecError: the model has another structure than YOLOv9's.
    """
    whole = deepcopy(dict(document))
    if has_auxiliary(whole):
        return whole
    graph = _Graph.of(whole)
    added, maps = graph.second_top_down() if graph.has_small_path else graph.second_backbone()
    *body, head = graph.rows
    dual = [[*maps, *head[0]], head[1], "DualDetect", head[3]]
    return whole | {"backbone": body[: graph.backbone], "head": [*body[graph.backbone :], *added, dual]}


def without_branch(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model without its auxiliary branch; one without a branch is returned unchanged.

    The identity with which YOLOv9's files begin is removed, too, if only a second backbone needed it to read the image.
    """
    main = deepcopy(dict(document))
    if main["head"][-1][2] not in HEADS_OF_PARTS:
        return main
    written = [*main["backbone"], *main["head"]]
    remaining, parts = HEADS_OF_PARTS[written[-1][2]]
    sources = [row[0] for row in written]
    keep = deployed_layers(sources, begins_with_identity=written[0][2] == _IDENTITY, parts=parts)
    left = [[source, *written[i][1:]] for source, i in zip(renumber(sources, keep, parts=parts), keep, strict=True)]
    left[-1][2] = remaining
    split = sum(index < len(main["backbone"]) for index in keep)
    return main | {"backbone": left[:split], "head": left[split:]}


def deployed_layers(sources: Sequence[Source], *, begins_with_identity: bool, parts: int = 2) -> list[int]:
    """Return the layers of a model with a head of two or more parts that are deployed."""
    needed = _needed(sources, parts)
    readers = [index for index in range(len(sources)) if 0 in _read(sources, index)]
    if begins_with_identity and [index for index in readers if index in needed] == [1] and len(readers) > 1:
        needed.discard(0)
    return sorted(needed)


def auxiliary_layers(sources: Sequence[Source]) -> list[int]:
    """Return the layers of a model with a dual head that only its auxiliary half depends on."""
    needed = _needed(sources)
    return [index for index in range(len(sources)) if index not in needed]


def renumber(sources: Sequence[Source], keep: Sequence[int], *, parts: int = 2) -> list[Source]:
    """Return the inputs of the remaining layers, counted without the removed ones; the head reads its main part."""
    position = {index: new for new, index in enumerate(keep)}
    counted: list[Source] = []
    for new, index in enumerate(keep):
        read = _main_maps(sources[index], parts) if index == len(sources) - 1 else _listed(sources[index])
        found = [position.get(one if one >= 0 else index + one, -1) for one in read]  # -1: the image, or its identity
        relative = [-1 if one < 0 and now == new - 1 else now for one, now in zip(read, found, strict=True)]
        counted.append(relative[0] if isinstance(sources[index], int) else relative)
    return counted


def _needed(sources: Sequence[Source], parts: int = 2) -> set[int]:
    """Return the head and every layer that its main part depends on."""
    head = len(sources) - 1
    needed, left = {head}, _main_maps(sources[head], parts)
    while left:
        index = left.pop()
        if index not in needed:
            needed.add(index)
            left += _read(sources, index)
    return needed


def _main_maps(source: Source, parts: int) -> list[int]:
    """Return the inputs of a head's main part, which are the last ones."""
    listed = _listed(source)
    return listed[-(len(listed) // parts) :]


def _read(sources: Sequence[Source], index: int) -> list[int]:
    """Return the indices of the layers that a layer reads."""
    absolute = [index + one if one < 0 else one for one in _listed(sources[index])]
    return [one for one in absolute if one >= 0]


def _listed(source: Source) -> list[int]:
    return [source] if isinstance(source, int) else list(source)


@dataclass
class _Graph:
    """Rows of a deployed YOLOv9, to which those of an auxiliary branch are appended.

    Attributes:
        rows: backbone and head.
        backbone: number of rows in the backbone.
        inserted: indices of rows that the base model does not have.
        replaced: module and arguments of the base model's layers that an operator replaces as a whole, by index.
        added: the rows of the auxiliary branch.
    """

    rows: list[Row]
    backbone: int
    inserted: set[int]
    replaced: dict[int, list[Any]] = field(default_factory=dict)
    added: list[Row] = field(default_factory=list)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "_Graph":
        """Read a document.

        Raises:
            SpecError: no model of YOLOv9's kind.
        """
        written = [*document["backbone"], *document["head"]]
        origin = document.get("nas") or {}
        after, stock = origin.get("insert", {}), origin.get("stock", {})
        places = insertions.labels(len(written) - len(after), after)
        graph = cls(
            rows=written,
            backbone=len(document["backbone"]),
            inserted={index for index, label in enumerate(places) if not label.isdecimal()},
            replaced={places.index(str(layer)): replaced for layer, replaced in stock.items()},
        )
        modules = [row[2] for row in map(graph.stock, range(len(written)))]
        if "SPPELAN" not in modules or len(graph.blocks) < _LEVELS or len(_listed(written[-1][0])) != _LEVELS:
            raise SpecError("pgi: only YOLOv9's models (SPPELAN, RepNCSPELAN4, three maps) have an auxiliary branch")
        return graph

    def stock(self, index: int) -> Row:
        """Return a row as the base model has it."""
        row = self.rows[index]
        return [*row[:2], *self.replaced[index]] if index in self.replaced else rows.stock(row)

    def base(self, index: int) -> int:
        """Return the base model's layer before an insertion; any other layer unchanged."""
        return index - 1 if index in self.inserted else index

    @property
    def pyramid(self) -> int:
        """First layer of the neck."""
        return next(index for index in range(len(self.rows)) if self.stock(index)[2] == "SPPELAN")

    @property
    def trunk(self) -> list[int]:
        """Layers of the base model before the neck."""
        return [index for index in range(self.pyramid) if index not in self.inserted]

    @property
    def blocks(self) -> list[int]:
        """Layers of the trunk that end a stage."""
        return [index for index in self.trunk if self.stock(index)[2] in _BLOCKS]

    @property
    def linears(self) -> list[int]:
        """Layers that `CBLinear` rows read: the stages of a first backbone, where there are two."""
        return [self.base(_listed(row[0])[0]) for row in self.rows if row[2] == "CBLinear"]

    @property
    def has_small_path(self) -> bool:
        """Whether the branch is a second top-down path, as in the original's t, s and e."""
        return bool(self.linears) or self.stock(self.blocks[0])[2] == "ELAN1"

    def second_top_down(self) -> tuple[list[Row], list[int]]:
        """Copy the neck's path down to P3; return its rows, and the layers with maps P3, P4 and P5."""
        last = self.base(_listed(self.rows[-1][0])[0])
        path = [index for index in range(self.pyramid, last + 1) if index not in self.inserted]
        reads = {index: [self.base(one) for one in _read([row[0] for row in self.rows], index)] for index in path}
        outside = sorted({one for read in reads.values() for one in read if one not in path}, reverse=True)
        entered = dict(zip(outside, sorted(self.linears, reverse=True) or outside, strict=False))
        copies: dict[int, int] = {}
        for index in path:
            read = [copies.get(one, entered.get(one, one)) for one in reads[index]]
            copies[index] = self._add(read, self.stock(index))
        levels = [index for index in path if self.stock(index)[2] in _BLOCKS]
        return self.added, [copies[index] for index in (*reversed(levels), self.pyramid)]

    def second_backbone(self) -> tuple[list[Row], list[int]]:
        """Copy the backbone, with the first one's maps added to it; return its rows, and the layers with the maps."""
        self._begin_with_identity()
        stages = self.blocks[-_LEVELS:]
        channels = [self.stock(self._before(index))[3][0] for index in stages]
        linear = [
            self._add([index], [None, 1, "CBLinear", [channels[: level + 1]]]) for level, index in enumerate(stages)
        ]
        maps, before = [], 0
        for index in self.trunk[1 : self.trunk.index(stages[-1]) + 1]:
            if index in stages:
                level = stages.index(index)
                before = self._add([*linear[level:], before], [None, 1, "CBFuse", [[level] * (_LEVELS - level)]])
            before = self._add([before], self.stock(index))
            if index in stages:
                maps.append(before)
        return self.added, maps

    def _before(self, index: int) -> int:
        return max(one for one in self.trunk if one < index)

    def _add(self, read: Sequence[int], row: Row) -> int:
        """Append a row that reads these layers; return its index, which is before the head's."""
        index = len(self.rows) - 1 + len(self.added)
        relative = [-1 if one == index - 1 else one for one in read]
        single = row[2] != "CBFuse" and len(relative) == 1
        self.added.append([relative[0] if single else relative, *deepcopy(row[1:])])
        return index

    def _begin_with_identity(self) -> None:
        """Insert a first layer that returns the image, so that a second backbone can read it."""
        moved = [
            [one + 1 if one >= 0 else one for one in row[0]] if isinstance(row[0], list) else row[0] + (row[0] >= 0)
            for row in self.rows
        ]
        shifted = [[source, *row[1:]] for source, row in zip(moved, self.rows, strict=True)]
        self.rows = [[-1, 1, _IDENTITY, []], *shifted]
        self.inserted = {index + 1 for index in self.inserted}
        self.replaced = {index + 1: replaced for index, replaced in self.replaced.items()}
        self.backbone += 1
