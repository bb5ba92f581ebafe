"""Architecture, one point of a search space: operators in layers, inserted layers, and scaling factors."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml
from torch import nn

from search_spaces import base as bases
from search_spaces import insertions, model_checks, model_file, rows, scaling
from search_spaces.base import Base
from search_spaces.errors import SpecError, nearest
from search_spaces.hosts import HOSTS
from search_spaces.insertions import Feeds
from search_spaces.operators import OPERATORS, Parameters, Source, Value
from search_spaces.operators import modules as user_modules
from search_spaces.pgi_setting import Pgi
from search_spaces.scaling import MACRO, Scaling
from search_spaces.trace import Traced, first
from search_spaces.yaml_text import parse_yaml, read_text

_HEADER = """\
# A YOLO detector with searched operators. The rows that carry one end in a mapping of its parameters.
# Load it with:  import search_spaces; from ultralytics import YOLO; YOLO("model.yaml")
# Train it with: nas yolo train model=model.yaml data=YOUR.yaml
"""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Operator with all its parameters in a layer, or the stock layer.

    Canonical: two choices are equal if and only if they build the same layer. A parameter without effect has its
    default.
    """

    operator: str
    parameters: tuple[tuple[str, Value], ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Cached hash: cost tables look up choices very often."""
        return hash((self.operator, self.parameters))

    @classmethod
    def of(cls, operator: str, parameters: Parameters) -> Self:
        """Return the choice of an operator with some parameters given, and the rest at their defaults.

        Raises:
            SpecError: an unknown operator or parameter, or a value that is not allowed.
        """
        if operator not in OPERATORS:
            raise SpecError(f"unknown operator {operator!r} ({nearest(operator, OPERATORS)})")
        record = OPERATORS[operator]
        active = record.active_parameters(record.complete(parameters))
        return cls(operator=operator, parameters=tuple(record.complete(active).items()))

    @property
    def is_stock(self) -> bool:
        """Whether the layer of the base model stays."""
        return self.operator == STOCK.operator

    @cached_property
    def effective(self) -> dict[str, Value]:
        """Parameters that differ from their defaults; fingerprints and tables use only these."""
        if self.is_stock:
            return {}
        record = OPERATORS[self.operator]
        return {name: value for name, value in self.parameters if value != record.parameter(name).default}

    @property
    def settings(self) -> str:
        """Effective parameters as text: `(expansion=2)`; empty if there are none."""
        settings = ", ".join(f"{name}={value}" for name, value in self.effective.items())
        return f"({settings})" if settings else ""

    def __str__(self) -> str:
        return f"{self.operator}{self.settings}"


STOCK = Choice(operator="stock")
SEPARATOR = " · "
"""Text between the parts of an architecture: operators with their layers, and scaling factors."""


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """Layer that the base model does not have.

    Attributes:
        after: the layer of the base model that it follows; it keeps the channels and size of that layer's map.
        feeds: the readers of that layer that read the inserted one instead.
    """

    after: int
    feeds: Feeds
    choice: Choice

    def __str__(self) -> str:
        return f"{self.place} {self.choice}"

    @property
    def place(self) -> str:
        """Name of the inserted layer: `after-9`."""
        return insertions.behind(self.after)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Base model and the changes to it; layers are named by their index in the base model.

    Attributes:
        base: as a space file names it.
        picks: choices by layer, sorted, without stock.
        insertions: sorted by the layer that they follow.
        macro: scaling factors that differ from the base model, sorted by name.
    """

    base: str
    scale: str
    picks: tuple[tuple[int, Choice], ...]
    insertions: tuple[Insertion, ...] = ()
    macro: Scaling = ()

    @classmethod
    def of(
        cls,
        base: str,
        scale: str,
        picks: Mapping[int, Choice],
        *,
        inserted: Iterable[Insertion] = (),
        macro: Mapping[str, float] | None = None,
    ) -> Self:
        """Return the architecture with these choices and scaling factors, without stock choices and factors of 1."""
        changed = tuple(sorted((layer, choice) for layer, choice in picks.items() if not choice.is_stock))
        new = sorted((one for one in inserted if not one.choice.is_stock), key=lambda one: one.after)
        factors = sorted((name, value) for name, value in (macro or {}).items() if value != 1)
        return cls(base=base, scale=scale, picks=changed, insertions=tuple(new), macro=tuple(factors))

    @classmethod
    def from_yaml(cls, text: str, *, folder: Path | None = None) -> Self:
        """Read a text that `to_yaml` wrote.

        Args:
            folder: of the file; the files of users' operators are named relative to it.

        Raises:
            SpecError: the text is something else.
        """
        document = parse_yaml(text)
        origin = document.get("nas")
        if not isinstance(origin, dict) or not {"base", "scale"} <= set(origin):
            raise SpecError("not an exported architecture: the key `nas` with `base` and `scale` is missing")
        missing = user_modules.load_trusted(model_file.modules(document), folder and folder.absolute())
        model_checks.require_detection(document)
        inserted: dict[int, Feeds] = origin.get("insert", {})
        written = [*document["backbone"], *document["head"]]
        places = {insertions.behind(layer): layer for layer in inserted}
        picks, new = {}, []
        for label, row in zip(insertions.labels(len(written) - len(inserted), inserted), written, strict=True):
            try:
                lowered = rows.lower(row)
            except SpecError as error:
                raise error.within(f"layer {label}") from None
            if lowered is None:
                model_checks.lower_row(row, missing)
                continue
            choice = Choice.of(lowered.operator.name, lowered.parameters)
            if label in places:
                new.append(Insertion(after=places[label], feeds=inserted[places[label]], choice=choice))
            else:
                picks[int(label)] = choice
        return cls.of(origin["base"], origin["scale"], picks, inserted=new, macro=origin.get("macro", {}))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `to_yaml` wrote.

        Raises:
            SpecError: it cannot be read, or is no such file.
        """
        return cls.from_yaml(read_text(path), folder=path.parent)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that are equal if and only if the built networks and their image size are.

        Hash of base, scale and changes. Parameters at their defaults are not part of it, so that an operator can get a
        new one; of scaling factors the changed rows are. Number of classes and training size are not part of it.
        """
        hashed: list[Any] = [
            bases.identity(self.base, self.scale),
            self.scale,
            [[layer, *_hashed(choice)] for layer, choice in self.picks],
        ]
        if self.insertions:
            hashed.append({"insert": [[new.after, new.feeds, *_hashed(new.choice)] for new in self.insertions]})
        if self.shape:
            stock = bases.load(self.base, self.scale)
            both = zip(stock.rows, stock.scaled(self.shape).rows, strict=True)
            changed = [[layer, after] for layer, (before, after) in enumerate(both) if before != after]
            hashed.extend([{"rows": changed}] if changed else [])
        if self.image_size is not None:
            hashed.append({scaling.IMAGE_SIZE: self.image_size})
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def is_stock(self) -> bool:
        """Whether this is the base model."""
        return not (self.picks or self.insertions or self.shape)

    @property
    def image_size(self) -> int | None:
        """Image size of the deployment in pixels; None if the space has no choice of it."""
        size = dict(self.macro).get(scaling.IMAGE_SIZE)
        return None if size is None else int(size)

    @property
    def shape(self) -> Scaling:
        """Scaling factors that change layers, that is, all but the image size."""
        return tuple((name, value) for name, value in self.macro if name != scaling.IMAGE_SIZE)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Users' files that define its operators and the layers of its base model, each once."""
        names = [choice.operator for _, choice in self.picks] + [new.choice.operator for new in self.insertions]
        sources = [*(OPERATORS[name].source for name in names), *bases.load(self.base, self.scale).sources]
        return tuple(dict.fromkeys(source for source in sources if source))

    def __str__(self) -> str:
        """Return `stock`, or `4 UIB(expansion=2) · after-9 DCNv4 · 10 DySample · depth 0.67`."""
        places = [(layer, 0, f"{layer} {choice}") for layer, choice in self.picks]
        places += [(new.after, 1, str(new)) for new in self.insertions]
        return self._joined([part for _, _, part in sorted(places)])

    def summary(self, *, with_parameters: bool = False) -> str:
        """Return the architecture as text, the layers of one operator together: `UIB 4, 6 · DySample 10`.

        Args:
            with_parameters: add those that are not the defaults: `UIB 4, 6 (expansion=2) · DySample 10`.
        """
        layers: dict[tuple[str, str], list[str]] = {}
        places = [(layer, str(layer), choice) for layer, choice in self.picks]
        places += [(new.after, new.place, new.choice) for new in self.insertions]
        for _, label, choice in sorted(places, key=lambda place: place[:2]):
            settings = f" {choice.settings}".rstrip() if with_parameters else ""
            layers.setdefault((choice.operator, settings), []).append(label)
        parts = [f"{operator} {', '.join(labels)}{settings}" for (operator, settings), labels in layers.items()]
        return self._joined(parts)

    def _joined(self, parts: Sequence[str]) -> str:
        """Join the descriptions of the choices with those of the scaling factors."""
        factors = [f"{name.replace('.', ' ')} {value:g}" for name, value in self.shape]
        factors += [] if self.image_size is None else [f"{self.image_size} px"]
        return SEPARATOR.join([*(["stock"] if self.is_stock else parts), *factors])

    def as_picks(self) -> dict[str, dict[str, Any]]:
        """Return a value for JSON: `{"4": {"UIB": {"expansion": 2, ..}}, "after-9": .., "macro": {"depth": 0.67}}`."""
        picks: dict[str, dict[str, Any]] = {
            str(layer): {choice.operator: dict(choice.parameters)} for layer, choice in self.picks
        }
        picks |= {new.place: {new.choice.operator: dict(new.choice.parameters)} for new in self.insertions}
        return picks | ({MACRO: dict(self.macro)} if self.macro else {})

    def document(self, classes: int) -> dict[str, Any]:
        """Return the model YAML as a mapping, with final numbers in every row and its origin under `nas`.

        Raises:
            SpecError: a choice is for a layer that the base model does not have, or that hosts no operator.
        """
        base = bases.load(self.base, self.scale).scaled(self.shape)
        written, replaced = base.rows, {}
        for layer, choice in self.picks:
            if layer >= len(written):
                raise SpecError(f"layer {layer}: {self.base} has {len(written)} layers")
            row, operator = written[layer], OPERATORS[choice.operator]
            if row[2] not in HOSTS:
                raise SpecError(f"layer {layer}: {row[2]} hosts no operator")
            if not HOSTS[row[2]].takes(operator):
                raise SpecError(f"layer {layer}: {row[2]} has no site for {operator.name}")
            written[layer] = rows.write(
                row, HOSTS[row[2]], operator, dict(choice.parameters), _convolution(base.traced[layer])
            )
            if rows.stock(written[layer]) != row:  # an AConv's place is taken by a row that stands for a Conv
                replaced[layer] = row[2:]
        inserted = {new.after: (new.feeds, self._inserted_row(base, new)) for new in self.insertions}
        split = len(base.document["backbone"]) + sum(layer < len(base.document["backbone"]) for layer in inserted)
        written = insertions.splice(written, inserted)
        origin = self._origin() | ({"stock": replaced} if replaced else {})
        document = {"nas": origin, **base.document, "nc": classes}
        return deepcopy(document | {"backbone": written[:split], "head": written[split:]})  # Ultralytics writes into it

    def _inserted_row(self, base: Base, new: Insertion) -> rows.Row:
        if not 0 <= new.after < len(base.rows) - 1:
            raise SpecError(f"after {new.after}: a layer of {self.base} before its head is expected")
        channels = base.traced[new.after].c_out
        return rows.insert(OPERATORS[new.choice.operator], dict(new.choice.parameters), channels)

    def _origin(self) -> dict[str, Any]:
        """Return what an exported file needs to be read back, and its fingerprint."""
        origin: dict[str, Any] = {"base": self.base, "scale": self.scale, "fingerprint": self.fingerprint}
        if self.insertions:
            origin["insert"] = {new.after: new.feeds for new in self.insertions}
        if self.macro:
            origin["macro"] = {name: int(value) if value == int(value) else value for name, value in self.macro}
        if self.sources:
            origin["modules"] = [str(source.path) for source in self.sources]
        return origin

    def to_yaml(self, classes: int, *, folder: Path | None = None, pgi: Pgi = False) -> str:
        """Return the text of a model YAML that `YOLO()` loads: final channels, no scales, one row a line.

        Args:
            folder: of the file to be written; the files of users' operators are named relative to it.
            pgi: whether, and how, `nas yolo train` adds YOLOv9's auxiliary branch, which the rows do not have.
        """
        document = self.document(classes) | ({"pgi": pgi} if pgi else {})
        if folder is not None and self.sources:
            document["nas"]["modules"] = [_relative_path(source, folder) for source in self.sources]
        lines = [_HEADER.rstrip()]
        for key, value in document.items():
            if key in {"backbone", "head"}:
                lines.append(f"{key}:")
                lines.extend(f"  - {_flow(row)}" for row in value)
            else:
                lines.append(f"{key}: {_flow(value)}")
        return "\n".join(lines) + "\n"


def _relative_path(source: Source, folder: Path) -> str:
    """Return the path of a user's file relative to a folder; its copy in that folder if there is one."""
    if (folder / source.file_name).is_file():
        return source.file_name
    return os.path.relpath(source.path, folder)


def _hashed(choice: Choice) -> list[Any]:
    """Return the parts of a choice that go into a fingerprint; of a user's operator also the digest of its file."""
    source = OPERATORS[choice.operator].source
    return [choice.operator, choice.effective, *([source.digest] if source else [])]


def _convolution(step: Traced) -> tuple[int, int, int]:
    """Return output channels, kernel and stride of a whole layer: the arguments of a `Conv` row that replaces it.

    Of a layer that makes its map larger the stride is the factor.
    """
    entered, left = first(step.received), first(step.returned)
    if left.shape[-1] > entered.shape[-1]:
        return step.c_out, 1, left.shape[-1] // entered.shape[-1]
    kernels = [module.kernel_size[0] for module in step.layer.modules() if isinstance(module, nn.Conv2d)]
    return step.c_out, max(kernels, default=1), entered.shape[-1] // left.shape[-1] or 1


def _flow(value: Any) -> str:
    """Return a value as one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip().removesuffix("\n...")
