"""Weights that Ultralytics has released, from which a search's stock models may start: `--weights pretrained`."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.settings import MemberWeights, Pretrained
from nas.workflows.request import Request
from nas.workflows.search_options import PRETRAINED
from search_spaces import Space
from search_spaces.errors import DataError, SpecError
from trials.training import released
from trials.training.released import Released


def resolve_weights(
    request: Request,
    space: Space,
    fetching: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> tuple[Request, dict[str, Any]]:
    """Return a request with the path of the checkpoint that `pretrained` stands for, and the settings about it.

    With several members the request stays: each starts from a checkpoint of its own, which the settings name.

    Args:
        fetching: called with a checkpoint's name if it is not on this machine; it is fetched in what that returns.

    Raises:
        SpecError: Ultralytics has released none for a base model; one found is torn, or another model's; a file was
            named for several members.
        EnvironmentProblem: there is none here, and it cannot be fetched; all that are missing are named.
    """
    if request.weights is None:
        return request, {}
    request.require_one_start()
    if not request.is_pretrained:
        if space.member_names:
            raise SpecError(
                f"weights: one file cannot start several members, got {str(request.weights)!r} (--weights {PRETRAINED} "
                f"takes the released checkpoint of each of {space.name}; or search one space from this file)"
            )
        return request, {}
    found = _released(_checkpoint_names(space), fetching)
    if not space.member_names:
        (only,) = found
        return replace(request, weights=only.path), {"pretrained": Pretrained(**_fields(only))}
    starts = zip(space.member_names, found, strict=True)
    own = tuple(MemberWeights(member=member, path=one.path, **_fields(one)) for member, one in starts)
    return request, {"member_weights": own}


def _checkpoint_names(space: Space) -> list[str]:
    """Return the name of the released checkpoint of each member.

    A member without one is refused, not started from random weights: beside others from released ones it would be
    behind for that alone, and its stock model be dropped at a rung, as if that told something of the architecture.

    Raises:
        SpecError: names all members without one, and what to do.
    """
    names = [released.checkpoint_name(member.base, member.scale) for member in space.members]
    without = [member for member, name in zip(space.members, names, strict=True) if name is None]
    if not without:
        return [name for name in names if name is not None]
    bases = ", ".join(f"{one.base} at scale {one.scale or '-'}" for one in without)
    files = [(Path(one.base), one.scale) for one in without if Path(one.base).is_file()]
    remedies = [
        f"called after what it is nearest to, such as yolov8{scale or 'n'}-{path.stem}.yaml, a file takes what fits"
        for path, scale in files[:1]
    ]
    if space.member_names:
        them = "them" if len(without) > 1 else "it"
        remedies.append(f"search without {them}, or all from random weights, without --weights")
    else:
        remedies.append("name one with --weights FILE.pt, or leave --weights out")
    by_name = "by their names" if len(without) > 1 else "by its name"
    raise SpecError(
        f"weights: Ultralytics has released no checkpoint for {bases}, {by_name} ({'; or '.join(remedies)})"
    )


def _released(names: list[str], fetching: Callable[[str], AbstractContextManager[object]]) -> list[Released]:
    """Find, fetch and check checkpoints."""
    paths = {name: released.find(name) for name in names}
    missing = [name for name, path in paths.items() if path is None]
    released.require_network(missing)
    for name in missing:
        with fetching(name):
            paths[name] = released.fetch(name)
    by_name: dict[str, Released] = {}
    mistakes: list[str] = []
    for name, path in paths.items():
        if path is None:
            continue
        try:
            by_name[name] = released.describe(path, name)
        except DataError as error:
            mistakes.append(f"weights: {error}")
    if mistakes:
        raise SpecError(mistakes)
    return [by_name[name] for name in names]


def _fields(found: Released) -> dict[str, Any]:
    return {"name": found.name, "digest": found.digest, "classes": found.classes, "trained_on": found.trained_on}
