"""Pool searches of one kind, to predict how far a further one can be believed."""

from collections.abc import Sequence

from nas.report.further_trust import FurtherTrust
from nas.report.further_trusting import Earlier, further_trust
from nas.settings import Settings
from nas.study.folders import command
from nas.study.stored_study import StoredStudy
from search_spaces.errors import StudyError

_MAY_DIFFER = frozenset(
    {"data", "preset", "budget.data", "base.data", "budget.seed", "base.seed", "budget.timeout", "base.timeout"}
)
"""Settings that leave the kind of a search as it is; the images are compared by their fingerprint."""
_OPTIONS = {
    "space_hash": "--space",
    "scale": "--scale",
    "data_fingerprint": "--data",
    "base.epochs": "--base-epochs",
    "budget.epochs": "--epochs",
    "budget.image_size": "--image-size",
    "budget.batch": "--batch",
    "budget.precision": "--precision",
    "sampler": "--sampler",
    "seeds": "--seeds",
    "latency": "--latency",
}
"""Options that set them, by the names of settings."""


def trust_in_further(studies: Sequence[StoredStudy]) -> FurtherTrust:
    """Return how far a further search like these can be believed, from what they have trained.

    Args:
        studies: two or more.

    Raises:
        StudyError: one of them is no search, has several members, is named twice, differs from the first in more than
            its seed or has the same seed as another, or has learned nothing.
    """
    first, *others = studies
    if several := next((one for one in studies if one.settings.members), None):
        alone = ", ".join(dict.fromkeys(command("trust", one.folder) for one in studies))
        raise StudyError(
            f"{several.name}: a further search is predicted from its one stock model, and this one has several; ask "
            f"each search alone: {alone}"
        )
    earlier = [_earlier(one) for one in studies]
    for one in others:
        require_same_kind(first, one)
    _require_other_seeds(studies)
    return further_trust(earlier)


def require_same_kind(first: StoredStudy, other: StoredStudy) -> None:
    """Refuse to pool two searches that differ in more than their seeds.

    Raises:
        StudyError: names all that differs, in one line.
    """
    found = differences(first.settings, other.settings)
    if found:
        raise StudyError(
            f"{other.name}: is a search of another kind than {first.name}: {', '.join(found)} (searches that are "
            "pooled may differ in --seed and --trials only)"
        )


def differences(first: Settings, other: Settings) -> list[str]:
    """Return the settings that make two searches differ in kind: `--epochs 8, not 3`."""
    there, here = first.flat(), other.flat()
    if (first.base is None) != (other.base is None):
        there, here = (
            {name: value for name, value in each.items() if not name.startswith("base")} for each in (there, here)
        )
        there["base.epochs"], here["base.epochs"] = (
            str(0 if one.base is None else one.base.epochs) for one in (first, other)
        )
    names = [name for name in here | there if there.get(name) != here.get(name) and name not in _MAY_DIFFER]
    repeated = {f"base.{name.removeprefix('budget.')}" for name in names if name.startswith("budget.")} - {
        "base.epochs"
    }
    hashes = {"space_hash": (first.space, other.space), "data_fingerprint": (first.data, other.data)}
    lines = []
    for name in names:
        if name in repeated or name == "space":
            continue
        before, after = hashes.get(name, (there.get(name, "none"), here.get(name, "none")))
        same = before == after
        lines.append(f"{_OPTIONS.get(name, name)} {after}{' of other content' if same else f', not {before}'}")
    return lines


def _require_other_seeds(studies: Sequence[StoredStudy]) -> None:
    """Refuse the same trainings twice.

    Raises:
        StudyError: two studies are one, or have the same seed.
    """
    by_seed: dict[int, StoredStudy] = {}
    for one in studies:
        before = by_seed.setdefault(one.settings.budget.seed, one)
        if before is not one:
            seed = one.settings.budget.seed
            again = "is named twice" if before.name == one.name else f"has the same --seed {seed} as {before.name}"
            raise StudyError(f"{one.name}: {again}; the same trainings count once (leave one out)")


def _earlier(study: StoredStudy) -> Earlier:
    """Return what a search has trained.

    Raises:
        StudyError: it is no search, or has learned nothing.
    """
    records = study.records()
    search, again = study.trained(records)
    if warning := study.nothing_learned(records):
        raise StudyError(f"{study.name}: {' '.join(warning)}")
    return Earlier(
        search=search,
        again=again,
        verdict=study.verdict(records=records),
        measure=f"{command('trust', study.folder)} --measure",
    )
