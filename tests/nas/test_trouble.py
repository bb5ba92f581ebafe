"""Full disk, little memory, read-only folders, unavailable databases."""

import errno
import fcntl
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DatabaseError, OperationalError
from typer import Exit
from typer.testing import CliRunner

from nas import address_space
from nas.cli import app, show
from nas.execution import supervisor, worker
from nas.execution.problem_line import PROBLEM
from nas.execution.supervisor import Supervisor
from nas.execution.worker import UNFIT, Worker
from nas.locks import Lock, is_held
from nas.study import storage, storage_retries
from nas.study.storage_retries import call_with_backoff
from nas.study.stored_trials import database_problem
from nas.study.study import Study
from nas.workflows.plan import Plan
from nas.workflows.request import Request
from search_spaces import files
from search_spaces.errors import EnvironmentProblem, NasError, StudyError
from trials import Budget, Ending, Outcome, evaluation
from trials.data.datasets import DataSet

MakeStudy = Callable[..., Study]


def error_of(text: str, kind: type[DatabaseError] = OperationalError, driver: type[Exception] = Exception) -> Any:
    return kind("SELECT 1", {}, driver(text))


class Clock:
    """Clock that advances when the code sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def read(self) -> float:
        return self.now


class TestBackoff:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.mark.parametrize(
        "error",
        [
            error_of("could not connect to server: Connection refused"),
            error_of("database is locked", driver=sqlite3.OperationalError),
        ],
    )
    def test_storage_that_is_unavailable_for_thirty_seconds_is_awaited(
        self, clock: Clock, caplog: pytest.LogCaptureFixture, error: Exception
    ) -> None:
        def call() -> str:
            if clock.now < 30:
                raise error
            return "answer"

        assert call_with_backoff(call, "postgresql://u:***@h/db", sleep=clock.sleep, clock=clock.read) == "answer"
        assert clock.pauses == [0.5, 1, 2, 4, 8, 16]
        found = [record.message for record in caplog.records]
        assert len(found) == 2
        assert found[0].startswith("storage: postgresql://u:***@h/db does not answer: ")
        assert found[1] == "storage: postgresql://u:***@h/db answers again after 32 s"

    def test_waiting_for_a_storage_ends(self, clock: Clock) -> None:
        def call() -> None:
            raise error_of("server closed the connection")

        with pytest.raises(EnvironmentProblem, match=r"does not answer for 20 min: server closed .* \(start it, and "):
            call_with_backoff(call, "there", sleep=clock.sleep, clock=clock.read)

    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            ("database or disk is full", EnvironmentProblem, r"^there: cannot be written: the disk is full \("),
            ("attempt to write a readonly database", EnvironmentProblem, r"^there: cannot be written \("),
            ("database disk image is malformed", StudyError, r"^there: the study's database is damaged: "),
        ],
    )
    def test_lasting_failure_is_raised_at_once(
        self, clock: Clock, text: str, kind: type[NasError], message: str
    ) -> None:
        def call() -> None:
            raise error_of(text, driver=sqlite3.OperationalError)

        with pytest.raises(kind, match=message):
            call_with_backoff(call, "there", sleep=clock.sleep, clock=clock.read)
        assert clock.pauses == []

    def test_word_that_is_none_of_an_enumeration_is_damage(self) -> None:
        def call(error: Exception) -> None:
            raise error

        with pytest.raises(StudyError, match=r"^there: the study's database is damaged: 'x' is not among the defined"):
            call_with_backoff(lambda: call(LookupError("'x' is not among the defined enum values")), "there")
        with pytest.raises(KeyError):  # of a trial that does not exist
            call_with_backoff(lambda: call(KeyError("no such trial")), "there")

    def test_study_waits_for_its_locked_database(
        self, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        study = make_study(trials=2)
        study.records()
        study.storage.engine.dispose()
        monkeypatch.setattr(storage, "_SQLITE_SECONDS", 0.05)
        other = sqlite3.connect(study.folder / "study.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        again = Study.open(study.folder)
        pauses = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                other.execute("COMMIT")

        monkeypatch.setattr(storage_retries, "pause", sleep)
        again.enqueue(again.space.stock)
        other.close()
        assert pauses == [0.5, 1.0, 2.0]
        assert len(again.records()) == 2
        assert "database is locked" in caplog.text


class TestFullDisk:
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
    def test_full_disk_is_no_fault_of_a_candidate(
        self, scenes: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_study: MakeStudy, number: int
    ) -> None:
        stock = make_study().space.stock

        def full(*_: Any, **__: Any) -> Any:
            raise OSError(number, os.strerror(number), "checkpoint.bin")

        monkeypatch.setattr(evaluation._Trial, "train", full)
        budget = Budget(data=scenes.path, epochs=1, deploy_size=64)
        with pytest.raises(EnvironmentProblem, match=r"^checkpoint.bin: cannot be written: "):
            evaluation.evaluate(stock, budget, tmp_path / "trial", lambda *_: True)

    def test_missing_file_is_a_failure_of_the_candidate(
        self, scenes: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_study: MakeStudy
    ) -> None:
        def missing(*_: Any, **__: Any) -> Any:
            raise FileNotFoundError(errno.ENOENT, "No such file", "kernel.bin")

        monkeypatch.setattr(evaluation._Trial, "train", missing)
        budget = Budget(data=scenes.path, epochs=1, deploy_size=64)
        outcome = evaluation.evaluate(make_study().space.stock, budget, tmp_path / "trial", lambda *_: True)
        assert outcome.ending is Ending.BROKEN

    def test_trial_interrupted_by_a_full_disk_is_retried_on_resume(
        self, make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any, **__: Any) -> Outcome:
            raise EnvironmentProblem("x: cannot be written: No space left on device")

        study = make_study(trials=2)
        monkeypatch.setattr(worker, "evaluate", full)
        with pytest.raises(EnvironmentProblem):
            Worker(study, deadline=float("inf")).run()
        assert [record.state for record in study.records()] == ["fail", "waiting"]
        monkeypatch.setattr(worker, "evaluate", score)
        Worker(study, deadline=float("inf")).run()
        assert sum(record.finished for record in study.records()) == 2

    @pytest.mark.parametrize("message", [f"{PROBLEM}/x: cannot be written: No space left on device (make room)", ""])
    def test_full_disk_ends_a_search_with_one_line(
        self, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch, message: str
    ) -> None:
        code = f"import sys; sys.stderr.write({message!r}); sys.exit({UNFIT})"
        monkeypatch.setattr(supervisor, "WORKER", (sys.executable, "-c", code))
        expected = message.removeprefix(PROBLEM).partition(" (")[0] or "could not write why"
        with pytest.raises(EnvironmentProblem, match=expected):
            Supervisor(make_study(trials=2), lambda _: None).run()

    def test_full_disk_leaves_an_existing_file_unchanged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "outcome.json"
        files.write_atomically(path, "before")

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(
            EnvironmentProblem, match=r"outcome.json: cannot be written: No space left on device \(make"
        ):
            files.write_atomically(path, "after")
        assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]


def test_two_writers_of_a_file_have_different_temporary_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with files.atomic_path(path) as first, files.atomic_path(path) as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert path.read_text() == "1"


def test_atomic_write_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: synced.append((Path(f"/proc/self/fd/{number}").readlink(), path.exists()))
    )
    files.write_atomically(path, "1")
    (aside, there), folder = synced
    assert aside.name.startswith(".a.json.")
    assert not there
    assert folder == (tmp_path, True)


class TestCache:
    @pytest.mark.parametrize("variable", ["NAS_CACHE", "XDG_CACHE_HOME"])
    @pytest.mark.parametrize("what", ["a file", "read-only"])
    def test_read_only_cache_is_refused_before_anything_is_trained(
        self, scenes: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, what: str
    ) -> None:
        cache = tmp_path / "cache"
        if what == "a file":
            cache.touch()
        else:
            cache.mkdir()
            access = os.access
            monkeypatch.setattr(
                os, "access", lambda path, mode: access(path, mode) and cache not in (path, *Path(path).parents)
            )
        monkeypatch.delenv("NAS_CACHE", raising=False)
        monkeypatch.setenv(variable, str(cache / "inside"))
        request = Request(space="v8", scale="n", data=str(scenes.path), runs=tmp_path / "runs", device="cpu")
        with pytest.raises(EnvironmentProblem, match=r"cache/inside.*set NAS_CACHE to a folder that can be written\)$"):
            Plan.of(request)
        assert not (tmp_path / "runs").exists()


class TestReading:
    def test_reading_the_state_of_a_lock_writes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "lock"
        assert not is_held(path)
        assert not path.exists()
        lock = Lock(path)
        lock.take()
        opened: list[int] = []
        original = os.open

        def noting(path: Path, flags: int, *arguments: Any) -> int:
            opened.append(flags & (os.O_ACCMODE | os.O_CREAT))
            return original(path, flags, *arguments)

        monkeypatch.setattr(os, "open", noting)
        assert is_held(path)
        lock.release()
        assert not is_held(path)
        assert set(opened) == {os.O_RDONLY}

    def test_reading_the_state_of_a_lock_does_not_prevent_a_search(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        path.touch()
        with path.open("rb") as looking:
            fcntl.flock(looking, fcntl.LOCK_SH)
            assert not is_held(path)

    @pytest.mark.parametrize("command", ["status", "pareto", "trials"])
    def test_read_only_runs_folder_can_be_read(
        self, make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        """A user without write permission reads: SQLite refuses to write, and nothing changes."""
        study = make_study(trials=2)
        monkeypatch.setattr(worker, "evaluate", score)
        Worker(study, deadline=float("inf")).run()
        folder = study.folder
        study.storage.engine.dispose()
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
        name = [] if command == "status" else [folder.name]
        result = CliRunner().invoke(app, [command, *name, "--runs", str(folder.parent)])
        assert result.exit_code == 0, (result.output, result.exception)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    def test_database_beside_which_sqlite_cannot_write_is_not_called_damaged(
        self, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A folder in the place of a file that SQLite makes to read; a user without permission is told from damage."""
        study = make_study(trials=1)
        study.storage.engine.dispose()
        path = study.folder / "study.db"
        (study.folder / "study.db-wal").mkdir()
        with pytest.raises(EnvironmentProblem, match=r"study\.db: cannot be read: .*writable for this user\)$"):
            database_problem(path)
        monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
        assert database_problem(path) == ""
        path.write_bytes(b"x" * 4096)
        assert database_problem(path) == "file is not a database"


def test_file_size_that_the_shell_limits_is_told_from_a_file_that_is_too_large_to_be_read() -> None:
    limited = OSError(errno.EFBIG, os.strerror(errno.EFBIG), "weights.pt")
    assert "ulimit -f" in str(files.environment_problem(limited))
    assert files.environment_problem(OSError(errno.EFBIG, "larger than 2 MB", "space.yaml")) is None
    assert files.environment_problem(OSError("no number")) is None


class TestLittleMemory:
    @pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux")
    def test_command_in_too_small_an_address_space_ends_with_one_line(self) -> None:
        """`ulimit -v`, for real: PyTorch does not fit, whatever its build."""
        limit = 2**30
        done = subprocess.run(
            [sys.executable, "-c", "from nas.cli import main; main()", "cost", "yolov9t.yaml"],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
            capture_output=True,
            text=True,
            check=False,
        )
        first, *_, last = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (2, "")
        assert first.startswith(
            "loading PyTorch; if nothing follows, the 1.0 GiB of address space that this shell allows"
        )
        assert last.endswith(
            "this shell limits the address space to 1.0 GiB (ulimit -v), and PyTorch needs more to be loaded "
            "(ulimit -v unlimited)"
        )
        assert "Traceback" not in done.stderr

    def test_memory_that_runs_out_in_a_command_is_a_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def command() -> None:
            raise MemoryError("Unable to allocate output buffer.")

        monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with pytest.raises(Exit):
            show.reports_errors(command)()
        assert capsys.readouterr().err == (
            "Unable to allocate output buffer: this machine, or its container, has too little free memory\n"
        )

    @pytest.mark.parametrize(("limit", "warns"), [(resource.RLIM_INFINITY, False), (2**40, False), (4 * 2**30, True)])
    def test_address_space_that_may_be_too_small_is_named_before_pytorch_is_loaded(
        self, monkeypatch: pytest.MonkeyPatch, limit: int, *, warns: bool
    ) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
        assert ("the 4.0 GiB of address space" in address_space.warning()) == warns

    def test_library_that_does_not_fit_into_the_address_space_is_explained(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (2**30, 2**30))
        error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
        assert address_space.problem(error) == (
            "libtorch_cpu.so: failed to map segment from shared object: this shell limits the address space to 1.0 GiB "
            "(ulimit -v), and PyTorch needs more to be loaded (ulimit -v unlimited)"
        )
        assert address_space.problem(ImportError("No module named torch")) is None
        assert address_space.problem(MemoryError()) == (
            "out of memory: this shell limits the address space to 1.0 GiB (ulimit -v), and this command needs more "
            "(ulimit -v unlimited)"
        )
