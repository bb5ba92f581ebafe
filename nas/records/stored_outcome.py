"""Outcome of a trial as `outcome.json`, the user attributes of the trial and its record store it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, ClassVar

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
)

from trials.scores import Ending, Outcome

ENDINGS = frozenset(ending.value for ending in Ending)
_Accuracy = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class StoredOutcome:
    """Fields of an outcome that a record has, too.

    Attributes:
        ending: value of an `Ending`; None while the trial has not ended.
        map50_95: None unless the trial was scored; so is `map50`.
        latency_ms: the value used in the search, measured in the trial or predicted from the device's table.
        latency_steady: False if the measurement varied too much.
        epochs: trained so far.
        seconds: that the training took.
        detail: one line on what happened, where the ending alone does not say it.
        inherited: share of the parameters that came from a checkpoint.
        changed_layers: layers that came in part or not at all, with the share that came: `{"8": 0.31, "after-9": 0.0}`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, allow_inf_nan=False)

    ending: str | None = None
    map50_95: _Accuracy | None = None
    map50: _Accuracy | None = None
    gflops: PositiveFloat | None = None
    params: PositiveInt | None = None
    latency_ms: PositiveFloat | None = None
    latency_spread_ms: NonNegativeFloat | None = None
    latency_steady: bool = True
    epochs: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0
    detail: str = ""
    inherited: float = 0.0
    changed_layers: Mapping[str, float] = field(default_factory=dict)


_STORED = TypeAdapter(StoredOutcome)
PROVENANCE = "provenance"
"""Field with the provenance of the training, which a record has not."""
JUDGED = "judged"
"""Field with the accuracies on the images that judge, `map50_95` and `map50`, which a record has not."""
_NAMES = frozenset(each.name for each in fields(StoredOutcome)) | {PROVENANCE, JUDGED}
_REQUIRED = frozenset({"epochs", "seconds", "detail", "ending"})
_SCORES = ("map50_95", "map50", "params", "gflops")


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """Return the fields to store of an outcome: those of `StoredOutcome` that it has, and its provenance."""
    costs = {} if outcome.costs is None else asdict(outcome.costs)
    scores = {} if outcome.scores is None else {"map50_95": outcome.scores.map50_95, "map50": outcome.scores.map50}
    return {
        **scores,
        **costs,
        "epochs": len(outcome.epochs),
        "seconds": round(outcome.seconds, 1),
        "detail": outcome.detail,
        "inherited": outcome.coverage.share,
        "changed_layers": dict(outcome.coverage.layers),
        **({} if outcome.provenance is None else {PROVENANCE: asdict(outcome.provenance)}),
        **({} if outcome.judged is None else {JUDGED: asdict(outcome.judged)}),
        "ending": outcome.ending.value,  # last: a reader that finds it finds the rest as well
    }


def parse_outcome(text: bytes) -> dict[str, Any] | None:
    """Return the fields of an outcome from JSON, as `outcome_fields` returned them; None if they are damaged."""
    try:
        stored, values = _STORED.validate_json(text), json.loads(text)
    except (ValueError, RecursionError):
        return None
    scored = all(values.get(name) is not None for name in _SCORES)
    valid_ending = stored.ending in ENDINGS and (scored or stored.ending != Ending.FINISHED)
    mappings = all(isinstance(values.get(name, {}), dict) for name in (PROVENANCE, JUDGED))
    if not valid_ending or not values.keys() >= _REQUIRED or not mappings:
        return None
    return {name: getattr(stored, name, value) for name, value in values.items() if name in _NAMES}
