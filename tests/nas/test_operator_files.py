"""Operator files that a study brings run only if this user has named them, or let them run, on this machine."""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import nas as package
from nas.cli import app
from nas.study import operator_files
from nas.study.study import Study
from nas.workflows import begin, full_training, yolo_command
from search_spaces import OPERATORS
from search_spaces.errors import StudyError
from search_spaces.operators import modules, user_classes

MakeStudy = Callable[..., Study]


@pytest.fixture(autouse=True)
def _nothing_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(begin, "require_same_data", lambda _: None)


@pytest.fixture
def code(tmp_path: Path, own_operator: str) -> str:
    """The text of an operator file that counts its runs."""
    return f"{own_operator}\nwith open({str(tmp_path / 'ran.txt')!r}, 'a') as file:\n    file.write('x')\n"


@pytest.fixture
def foreign(make_study: MakeStudy, code: str) -> Study:
    """A study of somebody else, whose space names an operator file."""
    study = make_study()
    study.storage.engine.dispose()
    bring(study.folder, code)
    return Study.open(study.folder)


def bring(folder: Path, code: str) -> None:
    (folder / "modules").mkdir()
    (folder / "modules" / "theirs.py").write_text(code)
    with (folder / "space.yaml").open("a") as file:
        file.write("modules: [modules/theirs.py]\n")


def runs_of(tmp_path: Path) -> int:
    return len((tmp_path / "ran.txt").read_text()) if (tmp_path / "ran.txt").exists() else 0


def forget_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next opening be as in another process."""
    for name in [one for one in sys.modules if one.startswith("nas_user_")]:
        monkeypatch.delitem(sys.modules, name)
    user_classes.LOADED.clear()
    OPERATORS.pop("Twice", None)


def nas(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    "words", ["resume", "confirm", "ablate --trial=0", "reproduce --trial=0", "report", "spaces refine"]
)
def test_command_does_not_run_what_a_foreign_study_brings(words: str, foreign: Study, tmp_path: Path) -> None:
    _ = nas(*words.split(), "small", "--runs", foreign.folder.parent)
    assert runs_of(tmp_path) == 0


def test_resume_says_what_to_type(foreign: Study, tmp_path: Path) -> None:
    runs = foreign.folder.parent
    result = nas("resume", "small", "--runs", runs)
    assert result.exit_code == 2
    assert (
        f"it brings operators as Python code that you have not run on this machine: {foreign.folder}" in result.stderr
    )
    assert f"give --trust once: nas export small --runs {runs} --trust" in result.stderr
    assert runs_of(tmp_path) == 0


def test_interrupted_full_training_of_a_foreign_study_does_not_run_it(
    foreign: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_words: Sequence[str], *, trust: bool) -> None:
        assert not trust
        (last.parents[1] / "results.csv").write_text("epoch,metrics/mAP50-95(B)\n1,0.5\n")

    monkeypatch.setattr(yolo_command, "run", run)
    last = foreign.folder / "full" / "trial-0000" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    last.touch()
    with pytest.raises(StudyError, match="that you have not run on this machine"):
        full_training.resume(foreign, [], trial=None)
    assert runs_of(tmp_path) == 0
    operator_files.trust(foreign.folder)
    assert full_training.resume(foreign, [], trial=None).is_finished
    assert runs_of(tmp_path) == 1  # the checkpoint names its classes


def test_trust_is_given_once(foreign: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin.resume("small", runs=foreign.folder.parent, trust=True)
    assert runs_of(tmp_path) == 1
    forget_process(monkeypatch)
    begin.resume("small", runs=foreign.folder.parent)
    assert runs_of(tmp_path) == 2


def test_trust_is_given_in_python(foreign: Study) -> None:
    with pytest.raises(StudyError, match="that you have not run"):
        _ = package.open_study("small", runs=foreign.folder.parent).space
    assert package.open_study("small", trust=True, runs=foreign.folder.parent).space.name == "small"


def test_what_has_changed_since_is_not_run(foreign: Study) -> None:
    package.open_study("small", trust=True, runs=foreign.folder.parent)
    (foreign.folder / "modules" / "theirs.py").write_text("open('other.txt', 'w').close()")
    with pytest.raises(StudyError, match="that you have not run"):
        _ = foreign.space


def test_file_elsewhere_that_a_foreign_study_names_is_not_run(foreign: Study, tmp_path: Path, code: str) -> None:
    (tmp_path / "elsewhere.py").write_text(code)
    space = (foreign.folder / "space.yaml").read_text()
    for named in (f"[{tmp_path}/elsewhere.py]", f"{tmp_path}/elsewhere.py", "[../../elsewhere.py]"):
        (foreign.folder / "space.yaml").write_text(space.replace("[modules/theirs.py]", named))
        with pytest.raises(StudyError, match=r"that you have not run on this machine: .*elsewhere\.py"):
            _ = Study.open(foreign.folder).space
    (foreign.folder / "other.yaml").write_text(space)
    (foreign.folder / "space.yaml").write_text("name: a\nmembers: [{space: other.yaml}, {space: v8n}]\n")
    with pytest.raises(StudyError, match="that you have not run on this machine"):
        _ = Study.open(foreign.folder).space
    assert runs_of(tmp_path) == 0


def test_study_of_what_the_user_has_named_needs_no_permission(
    make_study: MakeStudy, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(code)
    modules.load(tmp_path / "mine.py")  # as `nas search --space mine.yaml` and `--modules mine.py` do
    study = make_study()
    study.storage.engine.dispose()
    bring(study.folder, code)
    for folder in (study.folder, Path(shutil.copytree(study.folder, tmp_path / "moved" / "other"))):
        forget_process(monkeypatch)
        assert Study.open(folder).space.name == "small"


def test_unpacked_study_of_somebody_else_asks_for_trust(
    foreign: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nas("pack", "small", "-o", tmp_path / "small.tar.gz", "--runs", foreign.folder.parent).exit_code == 0
    result = nas("unpack", tmp_path / "small.tar.gz", "--runs", tmp_path / "there")
    assert "Python code, which runs only with --trust: read" in result.stderr
    assert "nas resume small --trust --runs" in result.stderr
    assert nas("resume", "small", "--runs", tmp_path / "there").exit_code == 2
    assert runs_of(tmp_path) == 0
    modules.load(foreign.folder / "modules" / "theirs.py")
    forget_process(monkeypatch)
    result = nas("unpack", tmp_path / "small.tar.gz", "--study", "mine", "--runs", tmp_path / "there")
    assert "Python code, which a search runs: read" in result.stderr
    assert "--trust" not in result.stderr


def test_sync_says_once_what_mlflow_is_not_sent(foreign: Study, caplog: pytest.LogCaptureFixture) -> None:
    result = nas("sync", "small", "--runs", foreign.folder.parent)
    assert result.exit_code == 0, result.output
    (line,) = [one.getMessage() for one in caplog.records if "MLflow is not sent" in one.getMessage()]
    assert line.startswith(
        "MLflow is not sent the verdict, ablations and effects of small: it brings operators as Python code "
    )
