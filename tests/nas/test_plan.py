"""Names of studies, the lock under which they are created, and folders that are never overwritten."""

import json
import shlex
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from nas.study.folders import default_storage, studies
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows import begin, naming
from nas.workflows.begin import create_or_resume
from nas.workflows.plan import Plan
from nas.workflows.request import Request
from search_spaces.errors import StudyError

MakeStudy = Callable[..., Study]
SPACE = "{name: small, base: yolov9t.yaml, slots: [{at: {layers: [10]}, choices: {DySample: {}}}]}"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def ask(tmp_path: Path, runs: Path) -> Callable[..., Plan]:
    (tmp_path / "small.yaml").write_text(SPACE)

    def asking(**request: object) -> Plan:
        fields = {"space": str(tmp_path / "small.yaml"), "runs": runs, "device": "cpu", "workers": 1, **request}
        return Plan.of(Request(**fields))  # type: ignore[arg-type]

    return asking


class TestStudyName:
    def test_study_name_counts_up_where_it_is_taken_by_other_settings(
        self, ask: Callable[..., Plan], runs: Path
    ) -> None:
        names = [ask(seed=seed).begin().name for seed in (0, 1, 2, 1, 0)]
        assert names == ["small-digits", "small-digits2", "small-digits3", "small-digits2", "small-digits"]
        assert len(studies(runs)) == 3

    def test_given_study_name_does_not_count_up(self, ask: Callable[..., Plan], runs: Path) -> None:
        ask(study="mine").begin()
        with pytest.raises(StudyError, match="a study of that name is there with other settings") as caught:
            ask(study="mine", seed=1)
        assert f"resume it with: nas resume mine --runs {shlex.quote(str(runs))}\n" in str(caught.value)

    def test_study_name_taken_since_the_plan_is_not_overwritten(self, ask: Callable[..., Plan]) -> None:
        late = ask(seed=1)
        ask(seed=0).begin()
        assert late.folder.name == "small-digits"
        study = late.begin()
        assert (study.name, study.settings.budget.seed) == ("small-digits2", 1)
        assert study.file.storage == default_storage(study.folder)

    def test_name_of_an_unreadable_study_is_taken(self, ask: Callable[..., Plan], runs: Path) -> None:
        (runs / "small-digits").mkdir(parents=True)
        (runs / "small-digits" / "study.json").write_text("{")
        assert ask().folder.name == "small-digits2"

    def test_study_name_that_ends_in_a_digit_counts_behind_a_hyphen(self, make_study: MakeStudy, runs: Path) -> None:
        study = make_study("coco8")
        other = study.settings.model_copy(update={"seeds": 2})
        assert naming.free_name("coco8", study.settings, None, runs) == "coco8"
        assert naming.free_name("coco8", other, None, runs) == "coco8-2"

    def test_newest_study_of_equal_settings_is_found(self, make_study: MakeStudy, runs: Path) -> None:
        first, second = make_study("small"), make_study("small2")
        assert naming.free_name("small", first.settings, None, runs) == "small2"
        first.set_run(first.file.run)
        assert naming.free_name("small", second.settings, None, runs) == "small"


class TestSimultaneousSearches:
    def test_simultaneous_searches_create_one_study_and_one_of_them_runs(
        self, make_study: MakeStudy, runs: Path
    ) -> None:
        model = make_study("model")
        model.storage.engine.dispose()
        file = model.file.model_copy(update={"name": "one", "storage": default_storage(runs / "one"), "identity": None})
        text = (model.folder / "space.yaml").read_text()
        context = get_context("fork")
        start, done, found = context.Barrier(3), context.Barrier(3), context.SimpleQueue()

        def search() -> None:
            start.wait(60)
            message, lock = "was late", None
            try:
                lock = create_or_resume(runs / "one", file, text, None).supervision_lock
                message = "ran" if lock.take(wait=False) else "was late"
            except StudyError as error:
                message = str(error)
            finally:
                found.put(message)
                done.wait(60)

        processes = [context.Process(target=search) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(90)
        answers = [found.get() for _ in processes]
        assert answers.count("ran") == 1, answers
        assert all("running already" in answer for answer in answers if answer not in {"ran", "was late"}), answers
        assert len(Study.open(runs / "one").optuna_trials()) == 1

    def test_running_study_is_left_unchanged(self, make_study: MakeStudy, runs: Path) -> None:
        study = make_study()
        before = (study.folder / "study.json").read_bytes()
        changed = study.file.model_copy(update={"run": study.file.run.model_copy(update={"trials": 99})})
        with study.supervision_lock.held():
            for again in (
                lambda: create_or_resume(study.folder, changed, "", None),
                lambda: begin.resume("small", runs=runs),
            ):
                with pytest.raises(StudyError, match="small is running already"):
                    again()
        assert (study.folder / "study.json").read_bytes() == before

    def test_running_study_is_not_created_again_without_its_file(self, make_study: MakeStudy) -> None:
        study = make_study()
        (study.folder / "study.json").unlink()
        with study.supervision_lock.held(), pytest.raises(StudyError, match="small is running already"):
            create_or_resume(study.folder, study.file, SPACE, None)


class TestFolderWithoutStudyFile:
    @pytest.mark.parametrize("inside", ["trials/0000/model.yaml", "base/weights.pt"])
    def test_folder_with_trials_is_never_overwritten(self, make_study: MakeStudy, inside: str) -> None:
        study = make_study()
        (study.folder / "study.json").unlink()
        path = study.folder / inside
        path.parent.mkdir(parents=True)
        path.touch()
        database = (study.folder / "study.db").read_bytes()
        with pytest.raises(StudyError) as caught:
            create_or_resume(study.folder, study.file, SPACE, None)
        assert "trials lie there" in str(caught.value)
        assert "study.json is missing" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert (study.folder / "study.db").read_bytes() == database

    def test_database_with_trials_is_never_overwritten(self, make_study: MakeStudy) -> None:
        study = make_study()
        study.storage.create_new_trial(study.storage.get_study_id_from_name("small"))
        (study.folder / "study.json").unlink()
        with pytest.raises(StudyError, match="trials lie there"):
            create_or_resume(study.folder, study.file, SPACE, None)

    @pytest.mark.parametrize("half", [b"", b"no database"])
    def test_partly_created_study_is_created_again(self, make_study: MakeStudy, space_text: str, half: bytes) -> None:
        study = make_study()
        (study.folder / "study.json").unlink()
        if half:
            (study.folder / "study.db").write_bytes(half)
        again = create_or_resume(study.folder, study.file.model_copy(update={"identity": None}), space_text, None)
        assert [record.role for record in again.records()] == ["stock"]
        assert StudyFile.read(again.folder) == again.file

    @pytest.fixture
    def space_text(self, make_study: MakeStudy) -> str:
        return (make_study("text").folder / "space.yaml").read_text()


def test_storage_of_an_interrupted_creation_is_continued(make_study: MakeStudy, tmp_path: Path) -> None:
    study = make_study(storage=f"sqlite:///{tmp_path / 'shared.db'}")
    was = json.loads((study.folder / "study.json").read_text())["identity"]["study_id"]
    (study.folder / "study.json").unlink()
    text = (study.folder / "space.yaml").read_text()
    again = create_or_resume(study.folder, study.file.model_copy(update={"identity": None}), text, None)
    assert again.file.identity is not None
    assert again.file.identity.study_id == was
    assert len(again.records()) == 1
