"""One point of a search space: which layer carries which operator."""

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import yaml
from torch import nn

from search_spaces import base as bases
from search_spaces import build, rows
from search_spaces.errors import SpecError, nearest
from search_spaces.hosts import HOSTS
from search_spaces.operators import OPERATORS, Parameters, Value
from search_spaces.trace import Traced, first

_HEADER = """\
# A YOLO detector with searched operators. The rows that carry one end in a mapping of its parameters.
# Load it with:  import search_spaces; from ultralytics import YOLO; YOLO("model.yaml")
# Train it with: nas yolo train model=model.yaml data=YOUR.yaml
"""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What stands in one layer: an operator with all its parameters, or the stock layer.

    Canonical: two choices are equal if and only if they build the same layer. A parameter without effect is held at
    its default.
    """

    operator: str
    parameters: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, operator: str, parameters: Parameters) -> Self:
        """The choice of an operator with some parameters given, the rest at their defaults.

        Raises:
            SpecError: an unknown operator or parameter, or a value that is not allowed.
        """
        if operator not in OPERATORS:
            raise SpecError(f"unknown operator {operator!r} ({nearest(operator, OPERATORS)})")
        record = OPERATORS[operator]
        living = record.living(record.complete(parameters))
        return cls(operator=operator, parameters=tuple(record.complete(living).items()))

    @property
    def is_stock(self) -> bool:
        """Whether the base model's own layer stays."""
        return self.operator == STOCK.operator

    @property
    def effective(self) -> dict[str, Value]:
        """The parameters that differ from their defaults: what a fingerprint and a table need to know."""
        if self.is_stock:
            return {}
        record = OPERATORS[self.operator]
        return {name: value for name, value in self.parameters if value != record.parameter(name).default}

    def __str__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.effective.items())
        return f"{self.operator}({settings})" if settings else self.operator


STOCK = Choice(operator="stock")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A base model and what its layers carry, by the base model's layer index.

    Attributes:
        base: as a space file names it.
        picks: sorted by layer, without stock.
    """

    base: str
    scale: str
    picks: tuple[tuple[int, Choice], ...]

    @classmethod
    def of(cls, base: str, scale: str, picks: Mapping[int, Choice]) -> Self:
        """The architecture with these picks; stock ones may be among them."""
        kept = tuple(sorted((layer, choice) for layer, choice in picks.items() if not choice.is_stock))
        return cls(base=base, scale=scale, picks=kept)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read what `to_yaml` wrote.

        Raises:
            SpecError: not such a file.
        """
        document = bases.parse_yaml(text)
        origin = document.get("nas")
        if not isinstance(origin, dict) or not {"base", "scale"} <= set(origin):
            raise SpecError("not an exported architecture: the key `nas` with `base` and `scale` is missing")
        build.require_detection(document)
        picks = {}
        for layer, row in enumerate([*document["backbone"], *document["head"]]):
            try:
                lowered = rows.lower(row)
            except SpecError as error:
                raise error.within(f"layer {layer}") from None
            if lowered is not None:
                picks[layer] = Choice.of(lowered.operator.name, lowered.parameters)
        return cls.of(origin["base"], origin["scale"], picks)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read an exported file."""
        return cls.from_yaml(path.read_text(encoding="utf-8"))

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that are equal if and only if the built networks are.

        A hash of base, scale and picks. A parameter at its default leaves no trace, so an operator may later gain
        one. Classes and image size are not in it.
        """
        picks = [[layer, choice.operator, choice.effective] for layer, choice in self.picks]
        spoken = json.dumps([bases.identity(self.base, self.scale), self.scale, picks], sort_keys=True)
        return hashlib.sha256(spoken.encode()).hexdigest()[:12]

    @property
    def is_stock(self) -> bool:
        """Whether this is the base model itself."""
        return not self.picks

    def __str__(self) -> str:
        """In words: `stock`, or `4 UIB(expansion=2) · 10 DySample`."""
        return " · ".join(f"{layer} {choice}" for layer, choice in self.picks) or "stock"

    def summary(self) -> str:
        """In fewer words, layers of one operator together: `UIB 4, 6 · DySample 10`."""
        layers: dict[str, list[str]] = {}
        for layer, choice in self.picks:
            layers.setdefault(choice.operator, []).append(str(layer))
        return " · ".join(f"{operator} {', '.join(places)}" for operator, places in layers.items()) or "stock"

    def as_picks(self) -> dict[str, dict[str, dict[str, Value]]]:
        """For JSON: `{"4": {"UIB": {"start_kernel": 0, ...}}}`, every parameter written."""
        return {str(layer): {choice.operator: dict(choice.parameters)} for layer, choice in self.picks}

    def document(self, classes: int) -> dict[str, Any]:
        """The model YAML as a mapping, with final numbers in every row.

        Raises:
            SpecError: a pick names a layer that the base model does not have, or one that hosts nothing.
        """
        base = bases.load(self.base, self.scale)
        written = base.rows
        for layer, choice in self.picks:
            if layer >= len(written):
                raise SpecError(f"layer {layer}: {self.base} has {len(written)} layers")
            row, step = written[layer], base.traced[layer]
            if row[2] not in HOSTS:
                raise SpecError(f"layer {layer}: {row[2]} hosts no operator ({', '.join(HOSTS)} do)")
            host, operator = HOSTS[row[2]], OPERATORS[choice.operator]
            written[layer] = rows.write(row, host, operator, dict(choice.parameters), _convolution(step))
        split = len(base.document["backbone"])
        document = {**base.document, "nc": classes, "backbone": written[:split], "head": written[split:]}
        return deepcopy(document)  # Ultralytics writes into the rows that it builds from

    def to_yaml(self, classes: int) -> str:
        """The text of a model YAML that `YOLO()` loads: explicit channels, no scales, one row a line."""
        document = self.document(classes)
        lines = [_HEADER.rstrip()]
        origin = {"base": self.base, "scale": self.scale, "fingerprint": self.fingerprint}
        lines.append(f"nas: {_flow(origin)}")
        for key, value in document.items():
            if key in {"backbone", "head"}:
                lines.append(f"{key}:")
                lines.extend(f"  - {_flow(row)}" for row in value)
            else:
                lines.append(f"{key}: {_flow(value)}")
        return "\n".join(lines) + "\n"


def _convolution(step: Traced) -> tuple[int, int, int]:
    """Output channels, kernel and stride of a layer that convolves as a whole: the arguments of a `Conv` row."""
    entered, left = first(step.received), first(step.returned)
    kernels = [module.kernel_size[0] for module in step.layer.modules() if isinstance(module, nn.Conv2d)]
    return step.c_out, max(kernels, default=1), entered.shape[-1] // left.shape[-1] or 1


def _flow(value: Any) -> str:
    """One line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip().removesuffix("\n...")
