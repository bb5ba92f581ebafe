"""From which weights a search starts, in words: for its plan, before anything is trained."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.settings import Pretrained, Settings
    from nas.workflows.plan import Plan
    from trials.scores import Coverage

_CLASSES = re.compile(r"(?:one2one_)?cv3\.\d+\.(\d+)\.")
"""Tensor of a detection head that finds classes, with the number of its layer in the branch."""
_LAST = "2"


def describe(settings: "Settings", coverages: "Sequence[Coverage]" = ()) -> str:
    """Return from which weights every candidate starts, and how much of the model a given checkpoint initialises.

    The checkpoint of each further member is a line of its own.

    Args:
        coverages: of the stock model of each member; empty where they are not known.
    """
    from nas.words import with_unit

    named = settings.budget.weights if settings.base is None else settings.base.weights
    start = named or settings.member_weights
    taken = f"; {coverage_in_words(coverages[0])}" if named and coverages else ""
    name = f"{named}{_origin(settings.pretrained)}" if named else _of_members(settings, coverages)
    if settings.base is not None:
        first = f", itself from {name}" if start else ""
        epochs = with_unit(settings.base.epochs, "epoch")
        whose = "the stock model of its member, which is" if settings.members else "the stock model, which is"
        return f"of {whose} trained first, once, for {epochs}{first}{taken}"
    if settings.stock_only and not start:
        return "random: every stock model from scratch"
    without = "random: every candidate from scratch, since no stock model is trained first and no --weights are given"
    agree = "where layers and shapes agree"
    return (f"of {name}, {agree}{taken}" if named else f"{agree}, of {name}") if start else without


def coverage_in_words(coverage: "Coverage") -> str:
    """Return how much of the stock model was taken over from a checkpoint, and which layers are new.

    `88 % of the stock model's weights are in it; new: the branch of the head that finds classes`.
    """
    share = f"{100 * coverage.share:.0f}" if coverage.share < _ALL else f"{math.floor(1000 * coverage.share) / 10}"
    if not coverage.layers:
        return "all of the stock model's weights are in it"
    head = max((int(label) for label, _ in coverage.layers if label.isdecimal()), default=-1)
    tensors = [name.split(".", 2)[2] for name in coverage.new if name.startswith(f"model.{head}.")]
    in_head = _new_in_head(tensors)
    others = [(label, share) for label, share in coverage.layers if not in_head or label != str(head)]
    new = [label for label, share in others if not share]
    parts = [label for label, share in others if share]
    named = [
        *([f"{_layers(new)}"] if new else []),
        *([f"parts of {_layers(parts)}"] if parts else []),
        *([in_head] if in_head else []),
    ]
    return f"{share} % of the stock model's weights are in it; new: {', '.join(named)}"


_ALL = 0.995
"""Share that would be rounded to 100 %."""


def _new_in_head(tensors: Iterable[str]) -> str:
    """Return which part of a detection head has new tensors; empty if it is no such head's tensors."""
    found = [_CLASSES.match(tensor) for tensor in tensors]
    in_branch = [match for match in found if match is not None]
    if not in_branch:
        return ""
    if len(in_branch) < len(found):
        return "parts of the head"
    if all(match.group(1) == _LAST for match in in_branch):
        return "the last layer of classes"
    return "the branch of the head that finds classes"


def _layers(labels: list[str]) -> str:
    return f"{'layer' if len(labels) == 1 else 'layers'} {', '.join(labels)}"


def _of_members(settings: "Settings", coverages: "Sequence[Coverage]") -> str:
    """Return the checkpoint of each member, what it was trained on, and how much of it is taken over."""
    taken = [f"; {coverage_in_words(one)}" for one in coverages] or [""] * len(settings.member_weights)
    starts = zip(settings.member_weights, taken, strict=True)
    return "\n".join(f"{one.member}: {one.path}{_origin(one)}{share}" for one, share in starts)


def _origin(pretrained: "Pretrained | None") -> str:
    """Return in brackets what a released checkpoint was trained on."""
    if pretrained is None:
        return ""
    trained_on = f"trained on {pretrained.trained_on}" if pretrained.trained_on else "which does not say its data"
    return f" ({trained_on}, {pretrained.classes} classes)"


def advice(plan: "Plan") -> str:
    """Return that a search could start from released weights; empty where it does, need not, or cannot."""
    from nas.study.folders import STUDY
    from trials.data.datasets import DIGITS
    from trials.training import released

    settings = plan.file.settings
    has_start = settings.base is None or settings.base.weights or settings.member_weights
    if settings.data == DIGITS or has_start or (plan.folder / STUDY).is_file():
        return ""
    names = [released.checkpoint_name(member.base, member.scale) for member in plan.space.members]
    paths = {name: released.find(name) for name in names if name is not None}
    if None in names:
        return ""
    missing = [name for name, path in paths.items() if path is None]
    if len(paths) > 1:
        models = f"the stock models from {', '.join(paths)}"
        fetched = "each is fetched once" if len(missing) == len(paths) else f"to be fetched once: {', '.join(missing)}"
        where = fetched if missing else "all of them are here"
    else:
        ((name, path),) = paths.items()
        models, where = f"the stock model from {name}", f"it is here: {path}" if path else "it is fetched once"
    return f"--weights pretrained starts {models}, which Ultralytics has trained on COCO ({where})"
