"""Train the model of a trial in full, with Ultralytics' arguments."""

from collections.abc import Sequence
from pathlib import Path

from nas.study.full_trainings import FullTraining, full_trainings, next_folder, unfinished
from nas.study.links import require_writable_within
from nas.study.study import Study
from nas.workflows import yolo_command
from search_spaces.errors import SpecError
from trials.training.full_training import restore_checkpoints

_CHOSEN_HERE = ("model", "resume", "project", "name", "exist_ok", "task", "mode")


def train(
    study: Study, words: Sequence[str], *, trial: int | None, best: str | None, trust: bool = False
) -> FullTraining:
    """Export a trial's model, and train it in `full/trial-0007` of the study's folder.

    Args:
        words: Ultralytics' arguments, such as `epochs=300`.
        trial: its number; None takes the best of the Pareto front.
        best: `map`, `knee` or `cheapest`; by default `map`. Not together with a trial.
        trust: open checkpoints that could run code, as `nas yolo --trust` does.

    Raises:
        SpecError: an argument that is chosen here or that Ultralytics does not have; no such trial or choice.
        StudyError: the trial is unfinished; a link leads out of the study's folder.
    """
    _require_free(words)
    exported = study.export(trial=trial, best=best)
    folder = next_folder(study.folder, exported.record.trial)
    require_writable_within(study.folder, folder)
    place = [f"project={folder.parent}", f"name={folder.name}", "exist_ok=True"]
    yolo_command.run(["train", *exported.train_arguments, f"imgsz={exported.deploy_size}", *words, *place], trust=trust)
    return _finished(study.folder, folder)


def resume(study: Study, words: Sequence[str], *, trial: int | None, trust: bool = False) -> FullTraining:
    """Go on with the last full training that has not ended, after its last whole epoch.

    Args:
        words: Ultralytics' arguments that a resumed training may change, such as `device=1`.
        trial: whose training; None for that of any trial.
        trust: open checkpoints that could run code, as `nas yolo --trust` does.

    Raises:
        SpecError: there is none; an argument that is chosen here.
        StudyError: a link leads out of the study's folder; its space cannot be read, or its operators are not trusted.
    """
    _require_free(words)
    found = unfinished(study.folder, trial, name=study.name)
    require_writable_within(study.folder, found.folder)
    restore_checkpoints(found.folder / "weights")
    _ = study.space  # loads the operators whose classes the checkpoint names
    yolo_command.run(["train", f"model={found.last}", "resume=True", *words], trust=trust)
    return _finished(study.folder, found.folder)


def _finished(study: Path, folder: Path) -> FullTraining:
    """Mark a training as ended, and return it with its scores."""
    found = next(one for one in full_trainings(study) if one.folder == folder)
    found.finish()
    return next(one for one in full_trainings(study) if one.folder == folder)


def _require_free(words: Sequence[str]) -> None:
    chosen = [word for word in words if word.partition("=")[0] in _CHOSEN_HERE]
    if chosen:
        raise SpecError(
            [f"{word}: nas train chooses it (nas export, then nas yolo train, leaves it to you)" for word in chosen]
        )
