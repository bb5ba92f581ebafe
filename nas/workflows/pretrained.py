"""Weights that Ultralytics has released, from which a search's stock model may start: `--weights pretrained`."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from nas.settings import Pretrained
from nas.workflows.request import Request
from nas.workflows.search_options import PRETRAINED
from search_spaces import Space
from search_spaces.errors import DataError, SpecError
from search_spaces.joined_space import require_one
from trials.training import released


def resolve_weights(
    request: Request,
    space: Space,
    fetching: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> tuple[Request, Pretrained | None]:
    """Return a request with the path of the checkpoint that `pretrained` stands for, and what that checkpoint is.

    Args:
        fetching: called with the checkpoint's name if it is not on this machine; it is fetched in what that returns.

    Raises:
        SpecError: Ultralytics has released none for this base model; the one found is torn, or another model's.
        EnvironmentProblem: there is none here, and it cannot be fetched.
    """
    if not request.is_pretrained:
        return request, None
    request.require_one_start()
    space = require_one(space, f"weights {PRETRAINED}")
    name = released.checkpoint_name(space.base, space.scale)
    if name is None:
        raise SpecError(
            f"weights: Ultralytics has released no checkpoint for {space.base} at scale {space.scale or '-'}, by its "
            "name (name one with --weights FILE.pt, or leave --weights out)"
        )
    try:
        path = released.find(name)
        if path is None:
            with fetching(name):
                path = released.fetch(name)
        found = released.describe(path, name)
    except DataError as error:
        raise SpecError(f"weights: {error}") from None
    what = Pretrained(name=name, digest=found.digest, classes=found.classes, trained_on=found.trained_on)
    return replace(request, weights=found.path), what
