"""A study is packed, unpacked and resumed elsewhere; archives that are damaged, or made with intent, are refused."""

import gzip
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nas.cli import app
from nas.execution import worker
from nas.execution.worker import Worker
from nas.settings import MemberWeights
from nas.study import archive
from nas.study.archive import Manifest
from nas.study.folders import default_storage
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.study.tracking_state import TrackingState
from nas.workflows import begin, relocation
from nas.workflows.fsck import check
from search_spaces.errors import StudyError
from trials import Budget, Outcome
from trials.data import datasets

MakeStudy = Callable[..., Study]
Contents = Callable[[Path], dict[Path, Any]]
EMPTY_PICKLE = b"\x80\x02}q\x00X\x10\x00\x00\x00nas_stored_modelq\x01K\x01s."
GOLDEN = Path(__file__).parents[1] / "golden" / "2026-11.tar.xz"


def nas(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def searched(make_study: MakeStudy, score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> Study:
    """A finished study with a confirmation and weights that are archives of tensors."""
    monkeypatch.setattr(worker, "evaluate", score)
    monkeypatch.setattr(begin, "require_same_data", lambda _: None)
    study = make_study(trials=3)
    Worker(study, deadline=float("inf")).run()
    budget = study.settings.budget.model_copy(update={"seed": study.settings.budget.seed + 1000})
    again = make_study("small-confirm", confirms="small", budget=budget)
    for one in (study, again):
        one.storage.engine.dispose()
    for path in study.folder.glob("trials/*/weights.pt"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", EMPTY_PICKLE)
    (study.folder.parent.parent / "data.yaml").touch()
    return study


@pytest.fixture
def packed(searched: Study, tmp_path: Path) -> Path:
    result = nas("pack", "small", "-o", tmp_path / "small.tar.gz", "--runs", searched.folder.parent)
    assert result.exit_code == 0, result.output
    return tmp_path / "small.tar.gz"


def results(folder: Path) -> list[tuple[Any, ...]]:
    study = Study.open(folder)
    trials = study.optuna_trials()
    found = [
        (one.fingerprint, one.map50_95, one.ending, trials[one.trial].values, trials[one.trial].user_attrs)
        for one in study.records()
    ]
    study.storage.engine.dispose()
    return found


@pytest.mark.parametrize("when", [-1e9, 1e10])
def test_study_that_was_written_while_the_clock_was_wrong_is_packed(
    searched: Study, tmp_path: Path, when: float
) -> None:
    os.utime(searched.folder / "trials" / "0001" / "model.yaml", (when, when))
    packed = nas("pack", "small", "-o", tmp_path / "a.tar.gz", "--runs", searched.folder.parent)
    unpacked = nas("unpack", tmp_path / "a.tar.gz", "--runs", tmp_path / "there")
    assert (packed.exit_code, unpacked.exit_code) == (0, 0), (packed.exception, unpacked.output)


def test_copying_trials_prints_no_messages_of_optuna() -> None:
    """`nas pack` reads a study without the code that trains, which once silenced Optuna alone."""
    code = "import nas.workflows.pack, optuna; print(optuna.logging.get_verbosity() == optuna.logging.WARNING)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"True\n"


class TestUnpacking:
    def test_unpacked_study_is_resumed_and_the_original_stays_as_it_is(
        self, searched: Study, packed: Path, contents: Contents, tmp_path: Path
    ) -> None:
        before, there = contents(searched.folder), tmp_path / "elsewhere"
        result = nas("unpack", packed, "--runs", there)
        assert result.exit_code == 0, result.output
        assert "unpacked: small, small-confirm" in result.stderr
        assert results(there / "small") == results(searched.folder)
        assert sorted(path.name for path in there.iterdir()) == [".beginning.lock", "small", "small-confirm"]
        study = begin.resume("small", runs=there, trials=5)
        Worker(study, deadline=float("inf")).run()
        assert len(study.records()) == 5
        assert study.records()[:3] == Study.open(searched.folder).records()
        assert contents(searched.folder) == before
        assert study.file.identity is not None
        assert searched.file.identity is not None
        assert study.file.identity.study_id != searched.file.identity.study_id

    def test_study_with_another_name_has_its_confirmation(self, packed: Path, tmp_path: Path) -> None:
        there = tmp_path / "elsewhere"
        assert nas("unpack", packed, "--study", "mine", "--runs", there).exit_code == 0
        study, again = (StudyFile.read(there / name) for name in ("mine", "mine-confirm"))
        assert (study.name, again.name, again.settings.confirms) == ("mine", "mine-confirm", "mine")
        assert [one.records()[0].role for one in (Study.open(there / "mine"), Study.open(there / "mine-confirm"))]
        assert study.storage == default_storage(there / "mine")

    def test_no_run_of_an_unpacked_study_has_ended_in_mlflow(self, searched: Study, tmp_path: Path) -> None:
        there, runs = tmp_path / "elsewhere", searched.folder.parent
        for name in ("small", "small-confirm"):
            TrackingState(study_id=name, finished=(0, 1), status="FINISHED", ended=1).write(runs / name)
        assert nas("pack", "small", "-o", tmp_path / "small.tar.gz", "--runs", runs).exit_code == 0
        assert nas("unpack", tmp_path / "small.tar.gz", "--runs", there).exit_code == 0
        for name in ("small", "small-confirm"):
            state, identity = TrackingState.read(there / name), StudyFile.read(there / name).identity
            assert state is not None
            assert identity is not None
            assert (state.finished, state.status, state.ended) == ((0, 1), "", None)
            assert state.study_id == identity.study_id

    def test_times_of_files_stay(self, searched: Study, packed: Path, tmp_path: Path) -> None:
        nas("unpack", packed, "--runs", tmp_path / "elsewhere")
        file = "trials/0001/outcome.json"
        times = [(folder / file).stat().st_mtime for folder in (searched.folder, tmp_path / "elsewhere" / "small")]
        assert times[0] == pytest.approx(times[1], abs=1e-3)

    def test_trials_of_a_shared_storage_come_along(
        self, make_study: MakeStudy, searched: Study, tmp_path: Path
    ) -> None:
        shared = make_study("shared", storage=f"sqlite:///{tmp_path / 'shared.db'}")
        Worker(shared, deadline=float("inf")).run()
        for path in shared.folder.glob("trials/*/weights.pt"):
            shutil.copyfile(searched.folder / "trials/0000/weights.pt", path)
        archive, there = tmp_path / "shared.tar.gz", tmp_path / "elsewhere"
        assert nas("pack", "shared", "-o", archive, "--runs", shared.folder.parent).exit_code == 0
        assert nas("unpack", archive, "--runs", there).exit_code == 0
        assert StudyFile.read(there / "shared").storage == default_storage(there / "shared")
        assert results(there / "shared") == results(shared.folder)

    def test_running_trials_are_not_those_of_the_other_machine(
        self, searched: Study, packed: Path, tmp_path: Path
    ) -> None:
        with closing(sqlite3.connect(searched.folder / "study.db")) as database, database:
            database.execute("UPDATE trials SET state = 'RUNNING' WHERE number = 1")
            database.execute("UPDATE trial_user_attributes SET value_json = '\"far\"' WHERE key = 'host'")
        packed.unlink()
        there = tmp_path / "elsewhere"
        assert nas("pack", "small", "-o", packed, "--runs", searched.folder.parent).exit_code == 0
        assert nas("unpack", packed, "--runs", there).exit_code == 0
        findings = [finding.problem for finding in check(there / "small")[0].findings]
        assert "RUNNING in Optuna, but it is finished" in findings

    def test_existing_study_is_not_replaced(self, searched: Study, packed: Path, contents: Contents) -> None:
        before = contents(searched.folder)
        result = nas("unpack", packed, "--runs", searched.folder.parent)
        assert result.exit_code == 2
        assert "small, small-confirm is in" in result.stderr
        assert "--study" in result.stderr
        assert contents(searched.folder) == before

    def test_interrupted_unpacking_leaves_nothing(
        self, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "utime", full)
        result = nas("unpack", packed, "--runs", tmp_path / "elsewhere")
        assert result.exit_code == 2
        assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [".beginning.lock"]


class TestPacking:
    def test_archive_holds_no_caches_and_is_read_by_tar(self, searched: Study, packed: Path, tmp_path: Path) -> None:
        (searched.folder / "trials/0001/ultralytics").mkdir()
        (searched.folder / "trials/0001/ultralytics/last.pt").write_bytes(b"x")
        (searched.folder / "notes.txt").write_text("mine")
        (searched.folder / "link.txt").symlink_to("/etc/passwd")
        again = nas("pack", "small", "-o", tmp_path / "again.tar.gz", "--runs", searched.folder.parent)
        assert again.exit_code == 0
        assert "notes.txt (no file that a study writes)" in again.stderr
        with tarfile.open(tmp_path / "again.tar.gz") as one, tarfile.open(packed) as other:
            assert one.getnames() == other.getnames()
            names = one.getnames()
        assert names[:2] == ["manifest.json", "small/study.json"]
        assert not [name for name in names if "lock" in name or "ultralytics" in name or "link" in name]

    def test_running_study_is_refused(self, searched: Study, tmp_path: Path) -> None:
        with searched.supervision_lock.held():
            result = nas("pack", "small", "-o", tmp_path / "a.tar.gz", "--runs", searched.folder.parent)
        assert result.exit_code == 2
        assert "small is running in another process" in result.stderr
        assert not (tmp_path / "a.tar.gz").exists()

    @pytest.mark.parametrize("text", [None, b"- a list", b"\xff"])
    def test_study_whose_space_is_missing_or_damaged_is_refused(
        self, text: bytes | None, searched: Study, tmp_path: Path
    ) -> None:
        shutil.copytree(searched.folder, tmp_path / "small")
        (tmp_path / "small" / "space.yaml").unlink()
        if text is not None:
            (tmp_path / "small" / "space.yaml").write_bytes(text)
        result = nas("pack", "small", "-o", tmp_path / "a.tar.gz", "--runs", tmp_path)
        assert result.exit_code == 2
        assert f"{tmp_path / 'small' / 'space.yaml'}: " in result.stderr
        assert not (tmp_path / "a.tar.gz").exists()

    def test_existing_file_is_not_replaced(self, searched: Study, packed: Path) -> None:
        before = packed.read_bytes()
        assert nas("pack", "small", "-o", packed, "--runs", searched.folder.parent).exit_code == 2
        assert packed.read_bytes() == before

    def test_pickled_objects_are_refused(self, searched: Study, tmp_path: Path) -> None:
        with zipfile.ZipFile(searched.folder / "trials/0001/weights.pt", "w") as archive:
            archive.writestr("weights/data.pkl", pickle.dumps(os.getcwd, protocol=2) + b"nas_stored_model")
        result = nas("pack", "small", "-o", tmp_path / "a.tar.gz", "--runs", searched.folder.parent)
        assert result.exit_code == 2
        assert "small/trials/0001/weights.pt: names posix getcwd; an archive holds tensors" in result.stderr

    def test_weights_of_the_first_version_and_of_this_one_are_packed(self, tmp_path: Path) -> None:
        from nas.study.archive_members import require_tensors

        with tarfile.open(GOLDEN) as archive:
            archive.extractall(tmp_path, filter="data")
        weights = sorted((tmp_path / "2026-11/runs/golden-data").glob("[bt]*/**/weights.pt"))
        assert len(weights) == 4
        for path in weights:
            require_tensors(path, path.name)
        with pytest.raises(StudyError, match="no pickled objects"):
            require_tensors(tmp_path / "2026-11/runs/golden-data/export/trial-0001/weights.pt", "exported")


Entries = list[tuple[tarfile.TarInfo, bytes]]


def entries_of(archive: Path) -> Entries:
    with tarfile.open(archive) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar.getmembers()]  # type: ignore[union-attr]


def write_entries(archive: Path, entries: Entries) -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
        end = tar.offset  # tarfile fills up to a whole record
    archive.write_bytes(gzip.compress(written.getvalue()[:end] + bytes(1024)))


def plain(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def listed(entries: Entries, change: Callable[[dict[str, Any]], object]) -> Entries:
    """Return the entries with a changed list."""
    manifest = json.loads(entries[0][1])
    change(manifest)
    return [plain("manifest.json", json.dumps(manifest).encode()), *entries[1:]]


def replaced(entries: Entries, name: str, content: bytes, *, new_name: str | None = None) -> Entries:
    """Return the entries with another file in the place of one, and with a list that names it."""

    def change(manifest: dict[str, Any]) -> None:
        (member,) = [one for one in manifest["members"] if one["path"] == name]
        member |= {"path": new_name or name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    others = [plain(new_name or name, content) if info.name == name else (info, old) for info, old in entries]
    return listed(others, change)


def special(entries: Entries, kind: bytes) -> Entries:
    info = tarfile.TarInfo("small/trials/0001/outcome.json")
    info.type, info.linkname = kind, "/etc/passwd"
    return [(info, b"") if old.name == info.name else (old, content) for old, content in entries]


def _zipped(content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("weights/data.pkl", content)
    return file.getvalue()


def _with_trigger(entries: Entries, tmp_path: Path) -> Entries:
    path = tmp_path / "trigger.db"
    path.write_bytes(next(content for info, content in entries if info.name == "small/study.db"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TRIGGER t AFTER UPDATE ON trials BEGIN DELETE FROM trials; END")
    return replaced(entries, "small/study.db", path.read_bytes())


def _with_storage(entries: Entries) -> Entries:
    fields = json.loads(next(content for info, content in entries if info.name == "small/study.json"))
    fields["storage"] = "sqlite:////tmp/other.db"
    return replaced(entries, "small/study.json", json.dumps(fields).encode())


OUTCOME = "small/trials/0001/outcome.json"
WEIGHTS = "small/trials/0001/weights.pt"
ATTACKS: Mapping[str, tuple[Callable[[Entries, Path], Entries], str]] = {
    "absolute path": (lambda e, _: replaced(e, OUTCOME, b"{}", new_name="/tmp/evil"), "'/tmp/evil' is no file"),  # noqa: S108
    "path upwards": (lambda e, _: replaced(e, OUTCOME, b"{}", new_name="small/../../evil"), "is no file of a study"),
    "another study": (lambda e, _: replaced(e, OUTCOME, b"{}", new_name="other/study.json"), "is no file of a study"),
    "Python file": (lambda e, _: replaced(e, OUTCOME, b"", new_name="small/trials/0001/x.py"), "is no file of a study"),
    "hidden file": (lambda e, _: replaced(e, OUTCOME, b"", new_name="small/.bashrc"), "is no file of a study"),
    "symbolic link": (lambda e, _: special(e, tarfile.SYMTYPE), "is no plain file"),
    "hard link": (lambda e, _: special(e, tarfile.LNKTYPE), "is no plain file"),
    "device": (lambda e, _: special(e, tarfile.CHRTYPE), "is no plain file"),
    "pipe": (lambda e, _: special(e, tarfile.FIFOTYPE), "is no plain file"),
    "listed twice": (
        lambda e, _: listed([*e, e[-1]], lambda m: m["members"].append(m["members"][-1])),
        "is listed twice",
    ),
    "more than the list": (
        lambda e, _: [*e, plain("small/trials/0009/outcome.json", b"{}")],
        "holds more than its list",
    ),
    "less than the list": (lambda e, _: e[:-1], "damaged, or no archive"),
    "another order": (lambda e, _: [e[0], *reversed(e[1:])], "its list has"),
    "another content": (
        lambda e, _: [plain(i.name, b"x" * len(c)) if i.name == OUTCOME else (i, c) for i, c in e],
        "is damaged (its SHA-256",
    ),
    "no list": (lambda e, _: e[1:], "it does not begin with a manifest.json"),
    "no study file": (
        lambda e, _: listed(e, lambda m: m.update(members=m["members"][1:])),
        "'small/study.json' is missing",
    ),
    "newer format": (lambda e, _: listed(e, lambda m: m.update(format=2)), "made by a newer version"),
    "name upwards": (lambda e, _: listed(e, lambda m: m.update(study="../x", studies=["../x"])), "make a name"),
    "size of a bomb": (
        lambda e, _: listed(e, lambda m: m["members"][-1].update(size=10**15)),
        "free are",
    ),
    "time that no clock has": (
        lambda e, _: listed(e, lambda m: m["members"][-1].update(modified=1e300)),
        "modified: Input should be less than or equal to",
    ),
    "pickle": (
        lambda e, _: replaced(e, WEIGHTS, _zipped(pickle.dumps(os.getcwd, protocol=2) + b"nas_stored_model")),
        "names posix getcwd",
    ),
    "newer pickle": (
        lambda e, _: replaced(e, WEIGHTS, _zipped(pickle.dumps(os.getcwd, protocol=4) + b"nas_stored_model")),
        "names STACK_GLOBAL",
    ),
    "plain checkpoint": (lambda e, _: replaced(e, WEIGHTS, _zipped(b"\x80\x02}q\x00.")), "holds no stored model"),
    "compressed weights": (
        lambda e, _: replaced(e, WEIGHTS, _zipped(EMPTY_PICKLE, zipfile.ZIP_DEFLATED)),
        "is compressed",
    ),
    "weights that are no archive": (lambda e, _: replaced(e, WEIGHTS, b"weights"), "no weights file of a trial"),
    "code in the database": (_with_trigger, "holds 't'"),
    "no database": (lambda e, _: replaced(e, "small/study.db", b"x" * 5000), "no database of a study"),
    "study file of another type": (lambda e, _: replaced(e, "small/study.json", b"[]"), "cannot be read"),
    "storage elsewhere": (lambda e, _: _with_storage(e), "its trials are elsewhere"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_archive_made_with_intent_is_refused_and_nothing_is_written(packed: Path, tmp_path: Path, name: str) -> None:
    change, message = ATTACKS[name]
    archive, there = tmp_path / "evil.tar.gz", tmp_path / "elsewhere"
    write_entries(archive, change(entries_of(packed), tmp_path))
    result = nas("unpack", archive, "--runs", there)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not there.exists() or [path.name for path in there.iterdir()] == [".beginning.lock"]


def flipped(whole: bytes, at: int) -> bytes:
    """Return the bytes with all bits of one of them flipped."""
    return whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]


DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "one byte": lambda whole: flipped(whole, len(whole) // 2),
    "text": lambda _: b"hello",
    "gzip of text": lambda _: gzip.compress(b"hello" * 1000),
    "tar of others": lambda _: gzip.compress(bytes(10240)),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_archive_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    packed.write_bytes(DAMAGES[name](packed.read_bytes()))
    result = nas("unpack", packed, "--runs", tmp_path / "elsewhere")
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert str(packed) in result.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_every_flipped_byte_of_an_archive_is_found(tmp_path: Path) -> None:
    """Also one in the padding of tar, in the checksum of gzip, and in a byte of its header that means something."""
    path, files = tmp_path / "small.tar.gz", [tmp_path / "a.json", tmp_path / "b.json"]
    for number, file in enumerate(files):
        file.write_bytes(b"content" * number)
        os.utime(file, (0, 0))
    members = tuple(archive.member_of(file.name, file) for file in files)
    archive.write(path, Manifest(format=1, version="0", study="s", studies=("s",), members=members), files)
    whole = path.read_bytes()

    def is_read(content: bytes) -> bool:
        path.write_bytes(content)
        try:
            for _, chunks in archive.contents(path, archive.read(path)):
                assert all(chunks)
        except StudyError:
            return False
        return True

    assert is_read(whole)
    unused = {*range(4, 10)}  # of gzip's header: its time, and which system compressed how well
    assert {at for at in range(len(whole)) if is_read(flipped(whole, at))} == unused
    assert not is_read(whole + b"x")


@pytest.mark.parametrize("more", [b"\0", b"x", bytes(512)])
def test_archive_with_anything_behind_its_end_is_refused(packed: Path, tmp_path: Path, more: bytes) -> None:
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()) + more))
    result = nas("unpack", packed, "--runs", tmp_path / "elsewhere")
    assert result.exit_code == 2
    assert "holds more than its list says" in result.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_unpacked_files_and_the_folders_that_name_them_are_on_the_disk(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure the unpacked study is whole."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    there = tmp_path / "elsewhere"
    assert nas("unpack", packed, "--runs", there).exit_code == 0
    names = {re.sub(r"/\.unpack-\w+/", "/", str(path)) for path in synced}
    assert {str(path) for path in (there, *there.rglob("*")) if path.is_dir()} <= names
    assert synced[-2:] == [there, there.parent]  # after the last renaming


@pytest.mark.parametrize(
    ("place", "message"),
    [
        *(("pipe", "is no plain file"), ("loop", "cannot be read"), ("memory", "damaged, or no archive")),
        *(("folder", "is a folder"), ("none", "no such file")),
    ],
)
def test_what_is_no_plain_file_is_no_archive(place: str, message: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "memory").symlink_to("/proc/self/mem")  # a plain file whose first bytes cannot be read
    result = nas("unpack", tmp_path / place, "--runs", tmp_path / "elsewhere")
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"{tmp_path / place}: {message}")


class TestRelocation:
    def test_missing_data_set_is_named_with_the_option(self, searched: Study, packed: Path, tmp_path: Path) -> None:
        there = tmp_path / "elsewhere"
        nas("unpack", packed, "--runs", there)
        fields = json.loads((there / "small/study.json").read_text())
        fields["settings"]["data"] = fields["settings"]["budget"]["data"] = "/far/data.yaml"
        (there / "small/study.json").write_text(json.dumps(fields))
        with pytest.raises(StudyError) as caught:
            begin.resume("small", runs=there)
        assert str(caught.value) == (
            "small: its data set /far/data.yaml is not on this machine; name the place here: "
            f"nas resume small --data PATH/data.yaml --runs {there}"
        )
        assert searched.name == "small"

    def test_place_of_the_same_data_set_is_stored_also_in_the_confirmation(
        self, make_study: MakeStudy, write_scenes: Callable[..., Path], tmp_path: Path
    ) -> None:
        first = write_scenes(tmp_path / "first")
        data = datasets.load(first)
        changes = {"data": str(first), "data_fingerprint": data.fingerprint, "classes": data.classes}
        budget = Budget(data=first, epochs=3, deploy_size=64)
        study = make_study(budget=budget, **changes)
        confirms = budget.model_copy(update={"seed": 1000})
        make_study("small-confirm", confirms="small", budget=confirms, **changes)
        moved = tmp_path / "moved" / "data.yaml"
        shutil.move(first.parent, moved.parent)
        resumed = begin.resume("small", runs=study.folder.parent, data=moved)
        assert resumed.settings.budget.data == moved
        for name in ("small", "small-confirm"):
            settings = StudyFile.read(study.folder.with_name(name)).settings
            assert (settings.data, settings.budget.data) == (str(moved), moved)
        other = write_scenes(tmp_path / "other", train=41)
        with pytest.raises(StudyError, match="is another data set than that of small"):
            begin.resume("small", runs=study.folder.parent, data=other)

    def test_missing_checkpoint_is_named_and_replaced(self, make_study: MakeStudy, tmp_path: Path) -> None:
        budget = Budget(data=tmp_path / "data.yaml", epochs=3, deploy_size=64, weights=Path("/far/yolov9t.pt"))
        study = make_study(budget=budget)
        with pytest.raises(StudyError, match=r"the checkpoint /far/yolov9t.pt, .* --weights FILE.pt"):
            relocation.require_files(study)
        (tmp_path / "yolov9t.pt").touch()
        relocation.relocate(study, data=None, weights=tmp_path / "yolov9t.pt")
        relocation.require_files(study)
        assert StudyFile.read(study.folder).settings.budget.weights == tmp_path / "yolov9t.pt"


def test_missing_checkpoints_of_several_members_are_all_named(
    make_study: MakeStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begin, "require_same_data", lambda _: None)
    fields = {"digest": "0", "classes": 80}
    weights = [
        MemberWeights(name=f"yolo{name}.pt", member=name, path=Path(f"/far/yolo{name}.pt"), **fields)
        for name in ("v8n", "v9t")
    ]
    study = make_study(member_weights=tuple(weights))
    packed = tmp_path / "small.tar.gz"
    assert nas("pack", "small", "-o", packed, "--runs", study.folder.parent).exit_code == 0
    result = nas("unpack", packed, "--runs", tmp_path / "elsewhere")
    assert "the checkpoints that it started from are not here: /far/yolov8n.pt, /far/yolov9t.pt" in result.stderr
    assert "go on with it: nas resume small --weights FOLDER --runs" in result.stderr


def test_help_of_resume_says_what_several_members_take() -> None:
    text = "".join(letter for letter in nas("resume", "--help").output if letter.isalpha())
    assert "ofseveralmembersthefolderwiththeirs" in text


ANOTHER_USER = """\
set -e
cd "$HOME"
nas() { "$PYTHON" -c "import sys; from nas.cli import main; sys.argv[0] = 'nas'; main()" "$@"; }
nas unpack packed.tar.gz --study moved --runs mine
! nas resume moved --trials 2 --runs mine 2> refused.txt
grep -q -e "--data PATH/data.yaml" refused.txt
nas resume moved --trials 2 --runs mine --data data/data.yaml --trust
nas fsck moved --runs mine
"""


def _as_another_user() -> list[str] | None:
    """Return the command that runs another one as the user `nobody`; None if that is not possible here.

    Where the interpreter lies in a folder that only root may enter, the process may read every file, as root may, and
    write and own what `nobody` may.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return None
    plain_user = ["setpriv", "--reuid=nobody", "--clear-groups"]
    reading = [*plain_user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    for command in (plain_user, reading):
        within_shell = ["bash", "-c", '"$0" -c "import torch"', sys.executable]  # setpriv itself may start more
        tried = subprocess.run([*command, *within_shell], check=False, capture_output=True)
        if tried.returncode == 0:
            return command
    return None


@pytest.mark.slow
def test_study_is_resumed_by_another_user_in_another_place(contents: Contents, tmp_path: Path) -> None:
    as_nobody = _as_another_user()
    if as_nobody is None:
        pytest.skip("needs root, and setpriv of util-linux")
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "2026-11"
    for path in (path for pattern in ("*.json", "*.yaml") for path in folder.rglob(pattern)):
        path.write_text(path.read_text().replace("/tmp/golden", str(folder)))  # noqa: S108 - where it was made
    options = ["--epochs", "2", "--base-epochs", "2", "--image-size", "64", "--deploy-size", "64", "--batch", "4"]
    options += ["--space", str(folder / "space.yaml"), "--data", str(folder / "data/data.yaml"), "--workers", "1"]
    runs = tmp_path / "runs"
    nas_main = "import sys; from nas.cli import main; sys.argv[0] = 'nas'; main()"
    for command in (
        ["search", *options, "--study", "s", "--trials", "1"],
        ["pack", "s", "-o", str(tmp_path / "s.tgz")],
    ):
        done = subprocess.run(
            [sys.executable, "-c", nas_main, *command, "--runs", str(runs)], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    before = contents(runs)
    with tempfile.TemporaryDirectory(prefix="nas-another-user-") as home:
        shutil.copyfile(tmp_path / "s.tgz", Path(home, "packed.tar.gz"))
        shutil.copytree(folder / "data", Path(home, "data"))
        (folder / "data/data.yaml").rename(folder / "data/gone.yaml")
        for path in (Path(home), *Path(home).rglob("*")):
            shutil.chown(path, "nobody")
        environment = {
            **os.environ,
            "HOME": home,
            "TMPDIR": home,
            "PYTHON": sys.executable,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NAS_CACHE": f"{home}/cache",
            "YOLO_CONFIG_DIR": f"{home}/ultralytics",
        }
        moved = subprocess.run(
            [*as_nobody, "bash", "-c", ANOTHER_USER], env=environment, check=False, capture_output=True, text=True
        )
        assert moved.returncode == 0, moved.stdout + moved.stderr
        assert "they and the files agree" in moved.stderr
        study = Path(home, "mine/moved")
        assert len(Study.open(study).records()) >= 2
        assert {path.owner() for path in study.rglob("*") if path.is_file() and path.name != "study.db-shm"} == {
            "nobody"
        }
    assert contents(runs) == before
