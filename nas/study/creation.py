"""Create a study: its folder, its storage and the first trials."""

from pathlib import Path

from nas.study.folders import HOLDOUT, LATENCY_TABLE, SPACE, make_folder
from nas.study.shared_definition import publish_definition
from nas.study.storage import belongs_to_another, create_file, create_study, holds_trials, remove_file
from nas.study.study import Study
from nas.study.study_file import Identity, StudyFile
from search_spaces import space_file
from search_spaces.errors import StudyError
from trials.data.holdout import Holdout
from trials.latency.timings import Timings


def create(
    folder: Path, file: StudyFile, space_text: str, latency: Timings | None = None, sealed: Holdout | None = None
) -> Study:
    """Create a study in a folder.

    Args:
        space_text: the space file, of which the study gets a copy.
        latency: a device's latency table, of which the study gets a copy.
        sealed: images that no training of the study reads, of which it gets the list.

    Raises:
        EnvironmentProblem: the folder cannot be written to.
        StudyError: the folder holds trials; its storage has a study of that name; another process works on it.
    """
    study = Study(folder, file)
    if study.shares_storage:
        if study.database is not None and not study.database.exists():
            create_file(study.database)
        _ = study.storage  # fails for an unreachable server before anything is written
    make_folder(folder)
    with study.supervision_lock.held_at_once(study.already_running()):
        _write(study, space_text, latency, sealed)
    return study


def _write(study: Study, space_text: str, latency: Timings | None, sealed: Holdout | None) -> None:
    """Write a new study into its folder and its storage; `study.json` last, for it makes the folder a study."""
    _require_unused(study)
    if not study.file.identity:
        study.file = study.file.model_copy(update={"identity": Identity.of(study.folder)})
    space_file.save(space_text, study.folder / SPACE)
    if latency is not None:
        latency.write(study.folder / LATENCY_TABLE)
    if sealed is not None:
        sealed.write(study.folder / HOLDOUT)
    if study.database is not None and not study.shares_storage:
        remove_file(study.database)  # left by a creation that was interrupted
        study.record_file.delete()
        create_file(study.database)
    study.file = create_study(study.storage, study.file)
    if not study.optuna_trials():
        _enqueue_first(study)
    if study.shared is not None:
        shared = study.shared
        if publish_definition(study.folder, study.file, shared.files) not in {"", shared.machines.id}:
            raise belongs_to_another(study.file)
    study.file.write(study.folder)


def _enqueue_first(study: Study) -> None:
    """Enqueue the stock models and, in a search, the architectures that the space file names as its start."""
    stocks = study.space.stocks
    if study.settings.confirms and study.settings.members:  # not all of them are trained again
        return
    if study.settings.stock_only:  # a cheap one may dominate costly ones
        stocks = tuple(sorted(stocks, key=lambda stock: study.scoring.cost_table.cost(stock).gflops))
    for stock in stocks:
        study.enqueue(stock, role="stock")
    start = () if study.settings.confirms else study.space.start
    for fingerprint, architecture in {each.fingerprint: each for each in start}.items():
        if fingerprint not in {stock.fingerprint for stock in stocks}:
            study.enqueue(architecture, role="start")


def _require_unused(study: Study) -> None:
    """Refuse a folder without `study.json` that holds trials.

    Raises:
        StudyError: it holds some.
    """
    inside = [study.folder / name for name in ("trials", "base")]
    if not study.shares_storage and study.database is not None and holds_trials(study.database):
        inside.append(study.database)
    filled = next((path for path in inside if path.is_file() or (path.is_dir() and any(path.iterdir()))), None)
    if filled is not None:
        raise StudyError(
            f"{filled}: trials lie there, but {study.folder / 'study.json'} is missing: put that back to go on with "
            "them; or move the folder away, or name another study with --study"
        )
