"""One training of a benchmark, of which nothing stays on the disk but the weights that are asked for."""

from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from search_spaces import Architecture
from trials import Budget, Costs, evaluate
from trials.scores import Outcome, Scores


def run(
    architecture: Architecture, budget: Budget, *, costs: Costs | None = None, keep: Path | None = None
) -> tuple[Outcome, Scores]:
    """Train a model as a trial does; return what became of it, with its scores.

    Args:
        costs: of the model; counted where they are not given.
        keep: file that gets the weights.

    Raises:
        RuntimeError: it has no score; the text says why.
    """
    with TemporaryDirectory() as folder:
        outcome = evaluate(architecture, budget, Path(folder), lambda *_: True, costs=costs)
        if outcome.scores is None:
            raise RuntimeError(f"{architecture.summary()}: {outcome.ending} {outcome.detail}")
        if keep is not None:
            keep.parent.mkdir(parents=True, exist_ok=True)
            copyfile(Path(folder) / "weights.pt", keep)
    return outcome, outcome.scores
