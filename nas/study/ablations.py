"""Ablation of a trial: its architecture with the stock layer put back in one slot at a time, as a study beside it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nas.samplers.feasibility import FeasibilityFilter
from nas.settings import Settings
from nas.study.confirmation import have_in_common
from nas.study.folders import STUDY
from nas.study.study_file import StudyFile
from search_spaces import STOCK, Architecture, SearchSpace, Space
from trials import Limits

FIRST_SEED = 2000
"""Difference between the first seed of an ablation and that of its search; a confirmation's seeds are below."""
WHOLE = "all"
"""Name of the part that is all parts together."""
_LIMITED = {"macs": ("gflops", "GFLOPs"), "params": ("params", "parameters"), "ms": ("latency_ms", "ms")}
"""Field of the limits and unit of each cost, by the name that the feasibility filter has for it."""
_NAME = re.compile(r"(?P<search>.+)-ablate-(?P<trial>\d+)")


def name_of(search: str, trial: int) -> str:
    """Return the name of the ablation of a search's trial."""
    return f"{search}-ablate-{trial}"


def ablated_trial(file: StudyFile) -> int | None:
    """Return the number of the trial that a study ablates; None if it is no ablation."""
    found = _NAME.fullmatch(file.name)
    return int(found["trial"]) if found and file.settings.confirms == found["search"] else None


def ablated_trials(search: Path) -> list[int]:
    """Return the trials of a search beside whose folder a study has the name of their ablation."""
    names = [_NAME.fullmatch(path.parent.name) for path in search.parent.glob(f"{search.name}-ablate-*/{STUDY}")]
    return sorted(int(name["trial"]) for name in names if name and name["search"] == search.name)


def folder_of(search: Path, settings: Settings, trial: int) -> Path | None:
    """Return the folder of the ablation of a trial; None if there is none, or it is another search's.

    Args:
        search: folder of the search.
        settings: of the search.
        trial: its number.

    Raises:
        StudyError: the ablation's `study.json` cannot be read.
    """
    beside = search.with_name(name_of(search.name, trial))
    if not (beside / STUDY).is_file():
        return None
    after = StudyFile.read(beside).settings
    seed = settings.budget.seed + FIRST_SEED
    is_of_search = after.confirms == search.name and after.budget.seed == seed and have_in_common(settings, after)
    return beside if is_of_search else None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Difference of an architecture from the stock model in one slot or scaling factor.

    Attributes:
        name: of the slot, such as `12` or `after-9`, or of the scaling factor, such as `width.P4`.
        layers: all layers of the slot, or the one that an insertion follows; empty for a scaling factor.
        choice: in the slot, with its parameters, or value of the scaling factor.
        without: the architecture with stock there.
    """

    name: str
    layers: tuple[int, ...]
    choice: str
    without: Architecture

    @property
    def title(self) -> str:
        """Name and choice in words: `slot 12 DCNv4`, `width.P4 0.75`."""
        if not self.layers:
            return f"{self.name} {self.choice}"
        tied = f" (layers {', '.join(map(str, self.layers))})" if len(self.layers) > 1 else ""
        return f"slot {self.name}{tied} {self.choice}"


def parts_of(space: Space, architecture: Architecture) -> list[Part]:
    """Return the slots and scaling factors in which an architecture differs from the stock model, in their order."""
    member = space.member_of(architecture)
    return [*_slots(member, architecture), *_factors(member, architecture)]


def _slots(space: SearchSpace, architecture: Architecture) -> Iterator[Part]:
    choices = space.choices(architecture)
    for slot in space.slots:
        if not choices[slot.name].is_stock:
            without = space.with_choice(architecture, slot, STOCK)
            yield Part(name=slot.name, layers=slot.layers, choice=str(choices[slot.name]), without=without)


def _factors(space: SearchSpace, architecture: Architecture) -> Iterator[Part]:
    values = space.factor_values(architecture)
    for factor in space.scaling_factors:
        if (value := values[factor.name]) != factor.stock:
            without = space.with_factor(architecture, factor, factor.stock)
            yield Part(name=factor.name, layers=(), choice=f"{value:g}", without=without)


def reason_to_leave_out(
    part: Part, architecture: Architecture, space: Space, feasible: FeasibilityFilter, limits: Limits
) -> str:
    """Return why an architecture cannot be trained with stock in place of a part; empty if it can.

    The stock model is trained whatever the limits are: it is the reference of every study.

    Args:
        part: of the architecture.
        architecture: whose part it is.
        space: of the study.
        feasible: the study's filter.
        limits: of the study.
    """
    if part.without.fingerprint == architecture.fingerprint:
        return "the same network as with stock there"
    if reason := space.incompatibility(part.without):
        return f"stock there cannot be built: {reason}"
    if part.without.is_stock or (exceeded := feasible.exceeded(part.without)) is None:
        return ""
    name, unit = _LIMITED[exceeded]
    cost, most = feasible.figures(part.without)[name], getattr(limits, name)
    return f"with stock there it is over the limit: {cost:g} {unit} (at most {most:g})"


class Ablated(NamedTuple):
    """Trial whose parts are judged.

    Attributes:
        study: name of the search.
        trial: its number.
        architecture: of the trial.
        parts: its slots and scaling factors, those left out with the reason.
        stock: the stock model.
    """

    study: str
    trial: int
    architecture: Architecture
    parts: Sequence[tuple[Part, str]]
    stock: Architecture

    @property
    def whole(self) -> Part:
        """All parts together: without them it is the stock model."""
        return Part(name=WHOLE, layers=(), choice=self.architecture.summary(), without=self.stock)

    @property
    def models(self) -> list[Architecture]:
        """Architectures to train, each once: the stock model, the trial, and the trial without each part."""
        models = [self.stock, self.architecture, *(part.without for part, reason in self.parts if not reason)]
        return list({model.fingerprint: model for model in models}.values())
