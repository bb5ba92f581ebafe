"""Manners of the command line: exit statuses, quiet and verbose, completion, hints, environment variables."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from nas import addresses
from nas.cli import app, completion, environment, show
from nas.study.study import Study
from search_spaces import cache_folder

ROOT = Path(__file__).parents[2]
NAS = "import sys; sys.argv[0] = 'nas'; from nas.cli import main; main()"
"""The command `nas`, wherever its script is installed."""


def nas(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


class TestExitStatus:
    def test_is_documented(self) -> None:
        page = ROOT / "docs" / "command_line.md"
        if not page.is_file():
            pytest.skip("the documents are not part of the wheel")
        stated = [int(found) for found in re.findall(r"^\| (\d+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)]
        assert stated == [0, show.NEGATIVE, show.MISTAKE, show.STOPPED] == [0, 1, 2, 130]

    def test_is_2_for_what_the_user_has_to_change(self, tmp_path: Path) -> None:
        assert nas("pareto", "missing", "--runs", tmp_path)[0] == 2
        assert nas("serch")[0] == 2
        assert nas("search", "--no-such-option")[0] == 2

    def test_is_1_for_an_answer_that_is_no(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(environment, "_PACKAGES", ("no-such-package",))
        monkeypatch.setattr(environment, "_counts", lambda: (True, ""))
        assert nas("doctor", "--runs", tmp_path)[0] == 1

    def test_is_130_after_ctrl_c(self) -> None:
        with pytest.raises(typer.Exit) as stopped, show.progress("working", "Stopped."):
            raise KeyboardInterrupt
        assert stopped.value.exit_code == 130


class TestHints:
    @pytest.mark.parametrize(
        ("typed", "hint"),
        [
            (("serch",), "Did you mean 'search'"),
            (
                ("spaces", "derve", "yolo11n.yaml"),
                "nas spaces: no such command or space 'derve' (did you mean 'derive'?)",
            ),
            (("search", "--dta", "x"), "did you mean --data x?"),
            (("search", "--space", "v99", "--dry-run"), "did you mean 'v9'?"),
            (("export", "x", "--best", "mapp"), "best: got 'mapp' (did you mean 'map'?)"),
            (("export", "x", "--best", "bset"), "best: got 'bset' (one of map, knee, cheapest)"),
        ],
    )
    def test_name_what_was_meant(self, typed: tuple[str, ...], hint: str) -> None:
        status, _, problem = nas(*typed)
        assert status == 2
        assert hint in problem

    def test_name_a_study(self, make_study: Callable[..., Study]) -> None:
        study = make_study()
        status, _, problem = nas("pareto", "smal", "--runs", study.folder.parent)
        assert (status, "did you mean 'small'?" in problem) == (2, True)


class TestQuietAndVerbose:
    @pytest.mark.parametrize("behind", [False, True])
    def test_quiet_prints_the_result_alone(self, make_study: Callable[..., Study], *, behind: bool) -> None:
        study = make_study()
        command = ["status", study.name, "--runs", study.folder.parent]
        status, out, problem = nas(*command, "-q") if behind else nas("-q", *command)
        assert (status, problem) == (0, "")
        assert "small" in out
        nas("--version")
        assert not show.err.is_quiet or nas("status", "--runs", study.folder.parent)[0] == 0
        assert not show.err.is_quiet

    def test_verbose_prints_where_an_error_was_raised(self, tmp_path: Path) -> None:
        assert "Traceback" in nas("-v", "pareto", "missing", "--runs", tmp_path)[2]
        assert "Traceback" not in nas("pareto", "missing", "--runs", tmp_path)[2]

    def test_quiet_shows_no_progress(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr(show.err, "is_quiet", True)
        with show.err.status("counting") as status:
            status.update("counting 2")
        show.details(["a plan"])
        assert capsys.readouterr() == ("", "")


class TestCompletion:
    def test_of_studies_and_spaces(
        self, make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(completion, "RUNS", make_study().folder.parent)
        assert list(completion.studies("sm")) == ["small"]
        assert list(completion.studies("x")) == []
        (tmp_path / "v9mine.yaml").touch()
        monkeypatch.chdir(tmp_path)
        assert list(completion.spaces("v9")) == ["v9", "v9-plus", "v9mine.yaml"]

    @pytest.mark.parametrize(("typed", "completed"), [("nas spa", ["spaces"]), ("nas spaces v10", ["v10", "v10-plus"])])
    def test_of_what_is_not_typed_to_its_end(self, typed: str, completed: list[str]) -> None:
        words = {"COMP_WORDS": typed, "COMP_CWORD": f"{typed.count(' ')}", "_NAS_COMPLETE": "complete_bash"}
        command = [sys.executable, "-c", NAS]
        done = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, check=False)
        assert done.stdout.split() == completed, done.stderr


class TestEnvironment:
    def test_home_holds_studies_and_cache(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("NAS_CACHE")
        monkeypatch.setenv("NAS_HOME", str(tmp_path))
        assert cache_folder.path() == tmp_path / "cache"
        code = "from nas.paths import RUNS; print(RUNS)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(tmp_path / "runs")

    def test_optuna_storage_stands_in_for_ours(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv(addresses.STORAGE, raising=False)
        monkeypatch.setenv(addresses.OPTUNA_STORAGE, "postgresql://me:secret@lab/nas")
        bare = "postgresql://me@lab/nas"
        assert addresses.opened(bare, tmp_path, addresses.STORAGE) == "postgresql://me:secret@lab/nas"
        monkeypatch.setenv(addresses.STORAGE, "postgresql://me:other@lab/nas")
        assert addresses.opened(bare, tmp_path, addresses.STORAGE) == "postgresql://me:other@lab/nas"

    def test_doctor_shows_variables_without_passwords(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(environment, "_PACKAGES", ())
        monkeypatch.setattr(environment, "_counts", lambda: (True, ""))
        monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://me:secret@lab/nas")
        monkeypatch.setenv("NAS_STORAGE", "no address")
        status, out, _ = nas("doctor", "--runs", tmp_path, "--format", "json")
        rows = {row["check"]: row for row in json.loads(out)}
        assert rows["OPTUNA_STORAGE"]["found"] == "postgresql://me@lab/nas"
        assert not rows["NAS_STORAGE"]["ok"]
        assert rows["NAS_HOME"]["found"].startswith("not set: ")
        assert (status, "secret" in out) == (1, False)

    def test_no_color(self, make_study: Callable[..., Study]) -> None:
        study = make_study()
        command = [sys.executable, "-c", NAS, "pareto", "smal", "--runs", str(study.folder.parent)]
        colours = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
        plain = subprocess.run(command, env=colours | {"NO_COLOR": "1"}, capture_output=True, text=True, check=False)
        bright = subprocess.run(command, env=colours, capture_output=True, text=True, check=False)
        assert ("\x1b[31m" in plain.stderr, "\x1b[31m" in bright.stderr) == (False, True)


class TestJson:
    def test_of_clean(self, make_study: Callable[..., Study]) -> None:
        study = make_study()
        status, out, _ = nas("clean", study.name, "--dry-run", "--runs", study.folder.parent, "--format", "json")
        assert status == 0
        assert json.loads(out) == {"paths": [], "bytes": 0, "deleted": False}


class TestFormats:
    WITHOUT: ClassVar = {
        "worker": "its results are the study's, which nas trials and nas pareto print",
        "yolo": "Ultralytics' command",
        "ui": "serves pages until Ctrl-C",
        "spaces derive": "prints a space file, which is YAML",
        "spaces refine": "prints a space file, which is YAML",
        "spaces schema": "prints JSON always",
    }
    """Commands without `--format`, and why."""

    def test_every_command_prints_its_result_as_json(self) -> None:
        without = {name for name, command in commands() if "--format" not in options_of(command)}
        assert without == set(self.WITHOUT)

    def test_documented_commands_without_are_these(self) -> None:
        page = ROOT / "docs" / "command_line.md"
        if not page.is_file():
            pytest.skip("the documents are not part of the wheel")
        (stated,) = re.findall(
            r"^All commands have `--format` but (.*?)\.$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        assert set(re.findall(r"`nas ([a-z ]+)`", stated)) == set(self.WITHOUT)


def commands(group: Any = None, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with its words, such as `latency record`."""
    whole: Any = group or typer.main.get_command(app)
    for name, command in whole.commands.items():
        if getattr(command, "commands", None):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}
