"""Addresses: quoted, checked before anything is created, and stored without passwords."""

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas import addresses
from nas.cli import app, arguments
from nas.execution import supervisor
from nas.study.folders import default_storage
from nas.study.server_connections import require_private_password_file
from nas.study.storage import create_file, open_storage
from nas.study.study import Study
from nas.study.study_file import StudyFile
from search_spaces.errors import EnvironmentProblem, SpecError

MakeStudy = Callable[..., Study]

ODD = ["why?", "50%", "50%25", "a%20b", "#1", "a b", "?x=1#y", "ü+ö", "a&b=c", "a:b@c"]


class TestSQLiteAddress:
    @pytest.mark.parametrize("name", ODD)
    def test_sqlite_file_is_where_its_address_points(self, name: str, tmp_path: Path) -> None:
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "study.db"
        assert addresses.file_of(addresses.sqlite(path)) == path
        create_file(path)
        open_storage(addresses.sqlite(path)).engine.dispose()
        assert [each.name for each in tmp_path.iterdir()] == [name]
        with sqlite3.connect(path) as database:
            assert database.execute("SELECT count(*) FROM studies").fetchone() == (0,)

    @pytest.mark.parametrize("name", ODD)
    def test_stored_sqlite_address_is_relative_to_the_study(self, name: str, tmp_path: Path) -> None:
        folder = tmp_path / name / "study"
        text = addresses.stored(addresses.sqlite(tmp_path / name / "mlflow.db"), folder)
        assert text == "sqlite:///../mlflow.db"
        assert addresses.opened(text, folder, "X") == addresses.sqlite(tmp_path / name / "mlflow.db")

    def test_sqlite_address_outside_of_the_runs_folder_stays_absolute(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'shared.db'}?timeout=9"
        assert addresses.stored(url, tmp_path / "runs" / "study") == url

    def test_relative_sqlite_address_becomes_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert addresses.require_storage("sqlite:///a b.db") == f"sqlite:///{tmp_path / 'a b.db'}"


@pytest.mark.parametrize(
    "text",
    [
        "..",
        "",
        " ",
        "/",
        "study.db",
        "/data/study.db",
        "file:x.db",
        "nonsense://somewhere",
        "redis://lab/1",
        "http://lab:5000",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x?uri=true",
        "sqlite:/x.db",
        "sqlite://lab/x.db",
        "sqlite:////",
        "postgresql://",
        "postgresql://lab",
        "postgresql://lab:port/nas",
        "postgresql:lab/nas",
    ],
)
def test_invalid_storage_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        addresses.require_storage(text)
    assert str(caught.value).startswith("storage: ")
    assert "postgresql://me@host/name" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


SECRET = "s3cr3t/x"  # noqa: S105
WITH_PASSWORD = {
    f"postgresql://me:{SECRET}@lab:5432/nas": "postgresql://me@lab:5432/nas",
    "postgresql+psycopg2://me:s3cr3t%2Fx@lab/nas?sslmode=require": "postgresql+psycopg2://me@lab/nas?sslmode=require",
    f"postgresql://lab/nas?user=me&password={SECRET}": "postgresql://lab/nas?user=me",
    f"mysql://me@lab/nas?passwd={SECRET}&charset=utf8": "mysql://me@lab/nas?charset=utf8",
    f"https://me:{SECRET}@mlflow.lab:5000/base": "https://me@mlflow.lab:5000/base",
    f"https://mlflow.lab?token={SECRET}": "https://mlflow.lab",
    f"postgresql://me:a@b{SECRET}@lab/nas": "postgresql://me@lab/nas",
    "https://me@corp.lab:s3cr3t@mlflow.lab:5000/base": "https://me@corp.lab@mlflow.lab:5000/base",
    "postgresql://me@corp.lab:s3cr3t@lab:5432/nas": "postgresql://me@corp.lab@lab:5432/nas",
    f"  https://me:{SECRET}@mlflow.lab": "  https://me@mlflow.lab",
    f"me:{SECRET}@lab/nas": "me@lab/nas",
    f"postgresql:/me:{SECRET}@lab/nas": "postgresql@lab/nas",
}


PLAIN = ["http://me@lab:5000/a@b", "postgresql://me@lab:5432/na@s", "file:/a:b@c", "file:///a:b@c", "./a:b@c"]
"""Addresses without a password, in which colons and at signs stand."""


class TestPassword:
    @pytest.mark.parametrize(("url", "bare"), WITH_PASSWORD.items())
    def test_password_is_removed_from_an_address(self, url: str, bare: str) -> None:
        assert addresses.without_password(url) == bare
        assert addresses.without_password(bare) == bare

    @pytest.mark.parametrize(
        "url", ["https://mlflow.lab:5000/a@b", "sqlite:////a:b@c/x.db?timeout=3", "databricks", *PLAIN]
    )
    def test_address_without_password_is_not_changed(self, url: str) -> None:
        assert addresses.without_password(url) == url

    @pytest.mark.parametrize("url", WITH_PASSWORD)
    def test_password_is_never_written(self, url: str, make_study: MakeStudy) -> None:
        study = make_study()
        study.set_file(study.file.model_copy(update={"storage": url, "tracking": url}))
        text = (study.folder / "study.json").read_text()
        assert "s3cr3t" not in text
        assert StudyFile.read(study.folder).storage == WITH_PASSWORD[url]

    def test_password_comes_from_the_environment(self, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
        url = f"postgresql://me:{SECRET}@lab:5432/nas"
        study = make_study()
        study.set_file(study.file.model_copy(update={"storage": url, "tracking": url}))
        monkeypatch.setenv("NAS_STORAGE", url)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://another.lab")
        file = StudyFile.read(study.folder)
        assert file.storage == url
        assert file.tracking == "postgresql://me@lab:5432/nas"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        assert StudyFile.read(study.folder).tracking == url

    def test_password_of_an_earlier_study_file_opens_and_is_removed_on_write(self, make_study: MakeStudy) -> None:
        study = make_study()
        url, path = f"postgresql://me:{SECRET}@lab:5432/nas", study.folder / "study.json"
        path.write_text(path.read_text().replace("sqlite:///study.db", url))
        file = StudyFile.read(study.folder)
        assert file.storage == url
        file.write(study.folder)
        assert "s3cr3t" not in path.read_text()

    def test_password_is_not_printed(self) -> None:
        url = "postgresql://me:s3cr3t@127.0.0.1:1/nas"
        with pytest.raises(EnvironmentProblem) as caught:
            open_storage(url)
        text = str(caught.value)
        assert text.startswith("storage: postgresql://me@127.0.0.1:1/nas cannot be opened: ")
        assert "s3cr3t" not in text
        assert "NAS_STORAGE" in text
        assert len(text.splitlines()) == 1

    @pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
    def test_driver_that_cannot_be_imported_is_named_with_the_extra(
        self, driver: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, driver, None)
        with pytest.raises(EnvironmentProblem) as caught:
            open_storage(f"postgresql+{driver}://me:s3cr3t@127.0.0.1:1/nas")
        assert driver in str(caught.value).partition("cannot be opened")[2]
        assert "pip install 'nas-for-yolo[postgres]'" in str(caught.value)
        assert "s3cr3t" not in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["me:s3cr3t@lab/nas", " postgresql://me:s3cr3t@lab/nas", "postgresql:/me:s3cr3t@lab/nas"]
    )
    def test_error_about_an_invalid_address_does_not_print_its_password(self, url: str) -> None:
        with pytest.raises(SpecError, match="no address of a database") as caught:
            addresses.require_storage(url)
        assert "s3cr3t" not in str(caught.value)

    def test_password_among_the_options_of_a_sqlite_address_is_not_written(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'shared.db'}"
        assert addresses.stored(f"{url}?password=s3cr3t&timeout=9", tmp_path / "runs" / "study") == f"{url}?timeout=9"

    def test_password_with_an_unquoted_sign_is_refused_and_not_printed(self) -> None:
        with pytest.raises(SpecError, match="%40") as caught:
            addresses.require_storage("postgresql://me:s3cr3t@2@lab/nas")
        assert "s3cr3t" not in str(caught.value)


def test_default_database_of_a_study_is_in_its_folder(tmp_path: Path) -> None:
    assert addresses.file_of(default_storage(tmp_path / "?")) == tmp_path / "?" / "study.db"


class TestPasswordsAreSeenNowhere:
    ADDRESS = "postgresql://me:s3cr3t@127.0.0.1:1/nas"

    @pytest.mark.parametrize(
        ("words", "is_warned"),
        [
            (["search", "--storage", ADDRESS], True),
            (["search", f"--storage={ADDRESS}"], True),
            (["search", "--storage=postgresql://me@lab/nas?password=s3cr3t"], True),
            (["search", "--storage", "postgresql://me@lab/nas"], False),
            (["search", "--storage=sqlite:////a/b.db"], False),
            (["latency", "show", "--runtime", "ssh://me@lab/torch"], False),
            (["search", "--space", "v9"], False),
        ],
    )
    def test_password_on_a_command_line_is_warned_of(
        self, words: list[str], is_warned: bool, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments.warn_of_passwords(words)
        printed = capsys.readouterr().err
        assert ("NAS_STORAGE" in printed) is is_warned
        assert "s3cr3t" not in printed

    def test_command_line_of_a_worker_has_no_password(
        self, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = make_study()
        study.file = study.file.model_copy(update={"storage": self.ADDRESS})
        started: list[tuple[list[str], dict[str, str]]] = []
        monkeypatch.setattr(supervisor, "spawn", lambda command, environment, _: started.append((command, environment)))
        worker = supervisor._WorkerProcess(index=0, device="cpu", log=study.folder / "workers" / "0.log")
        supervisor.Supervisor(study, lambda _: None)._start(worker)
        ((command, environment),) = started
        assert not [word for word in command if "s3cr3t" in word]
        assert environment["NAS_STORAGE"] == self.ADDRESS

    @pytest.mark.parametrize(
        "command",
        ["pareto", *(pytest.param(name, marks=pytest.mark.slow) for name in ("trials", "resume", "export", "sync"))],
    )
    def test_password_is_in_no_message_and_in_no_traceback(
        self, command: str, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        study = make_study()
        study.storage.engine.dispose()
        study.set_file(study.file.model_copy(update={"storage": self.ADDRESS}))
        monkeypatch.setenv("NAS_STORAGE", self.ADDRESS)
        result = CliRunner().invoke(app, [command, study.name, "--runs", str(study.folder.parent)])
        assert result.exit_code == 2, result.output
        assert "s3cr3t" not in result.output
        assert not [
            path for path in study.folder.parent.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()
        ]

    def test_no_tag_and_no_param_of_mlflow_has_a_password(self, make_study: MakeStudy) -> None:
        study = make_study()
        study.file = study.file.model_copy(update={"storage": self.ADDRESS, "tracking": self.ADDRESS})
        written = study.file.settings.model_dump_json() + study.file.run.model_dump_json() + repr(study)
        assert "s3cr3t" not in written

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
    def test_file_of_passwords_that_others_may_open_is_refused(
        self, mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "my pass"
        file.write_text("127.0.0.1:1:nas:me:s3cr3t\n")
        file.chmod(mode)
        monkeypatch.setenv("PGPASSFILE", str(file))
        with pytest.raises(EnvironmentProblem) as found:
            open_storage("postgresql://me@127.0.0.1:1/nas")
        assert str(found.value) == (
            f"storage: {file} holds passwords, and other users may open it (mode {mode:o}); it is not read then "
            f"(chmod 600 '{file}')"
        )

    def test_mlflows_file_of_passwords_that_others_may_open_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from nas.tracking.mlflow_runs import client_of

        monkeypatch.setenv("HOME", str(tmp_path))
        file = tmp_path / ".mlflow" / "credentials"
        file.parent.mkdir()
        file.write_text("[mlflow]\nmlflow_tracking_password = s3cr3t\n")
        file.chmod(0o644)
        with pytest.raises(EnvironmentProblem) as found:
            client_of("http://127.0.0.1:1")
        assert str(found.value) == (
            f"{file} holds passwords, and other users may open it (mode 644); it is used only if no one else can read "
            f"it (chmod 600 {file})"
        )
        client_of(f"sqlite:///{tmp_path}/mlflow.db")  # for which MLflow reads no such file
        file.chmod(0o600)
        client_of("http://127.0.0.1:1")

    def test_file_of_passwords_of_mode_600_is_used(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "pass"
        file.write_text("127.0.0.1:1:nas:me:s3cr3t\n")
        file.chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(file))
        require_private_password_file("postgresql://me@127.0.0.1:1/nas")
        file.chmod(0o644)
        require_private_password_file("sqlite:///study.db")  # which reads no such file
        with pytest.raises(EnvironmentProblem, match="chmod 600"):
            require_private_password_file("postgresql://me@127.0.0.1:1/nas")
