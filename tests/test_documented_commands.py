"""Every command that README.md and the pages of docs/ print is parsed; those that need no training are run.

`python -m benchmarks.docs`, and here the slow test, run all of them, with options that make trainings short.
"""

import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from benchmarks import docs, documented, documented_files
from nas.cli import app
from nas.workflows import outlook
from search_spaces.errors import EstimateError

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "docs" / "figures" / "v9t-digits.tar.xz"
WITHOUT_TRAINING = set(
    "compare cost data doctor effects models pareto report spaces status trials trust".split()  # noqa: SIM905 - shorter
)
"""Commands that are run as printed; others are if they have `--dry-run`."""
NEEDS_MORE = (
    *("--measure", "--repair", "--calibrate", "--latency", "--refine", "refine ", "mmqa", "MMQA", "-x3"),
    *(
        "around.yaml --dry-run",
        "trials --format",
        "runs/nas/...",
        "--mlflow",
        "v9t-digits-2",
        "my-2",
        "v9t-my2",
        "compare A B",
    ),
)
"""Parts of commands that need a training, a device's table, time, or a file that another command writes."""

USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""Base class of the errors of a wrong command line; Typer does not export it."""

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documents are not part of the wheel")


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def command_of(arguments: list[str]) -> tuple[Any, list[str]]:
    """Return the command that arguments name, and the arguments after its name."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while isinstance(command, TyperGroup):
        if rest and rest[0] in command.commands:
            command = command.commands[rest.pop(0)]
        elif rest and not rest[0].startswith("-") and "show" in command.commands:
            command = command.commands["show"]  # `nas spaces v9`
        else:
            break
    return command, rest


def mistake_in(arguments: list[str]) -> str | None:
    """Return what the parser of a command says against its arguments."""
    command, rest = command_of([word for word in arguments if word != "..."])
    if isinstance(command, TyperGroup):  # options of `nas` itself act when they are parsed
        options = {option for one in command.params for option in one.opts} | {"--help"}
        return next((f"no option {word}" for word in rest if word not in options), None)
    needs_study = any(one.param_type_name == "argument" and one.metavar == "STUDY" for one in command.params)
    named = needs_study and (not rest or rest[0].startswith("-"))
    try:
        command.make_context("nas", ["v9t-digits", *rest] if named else rest)  # sentences leave the study out
    except typer.Exit:  # --help
        return None
    except USAGE_ERROR as error:
        return str(error.format_message())
    return None


def test_documented_commands_are_right() -> None:
    found = [
        (page, command, mistake_in(arguments))
        for page in documented.pages()
        for command in documented.commands(text(page), documented.SHELL)
        for arguments in documented.invocations(documented.filled(command))
    ]
    assert len(found) > 150
    assert [one for one in found if one[2]] == []


def with_help(command: Any, name: str = "nas") -> Iterator[tuple[str, str]]:
    """Yield the names of all commands, with what their help says."""
    if not command.hidden:
        yield name, command.help or ""
    for word, further in getattr(command, "commands", {}).items():
        yield from with_help(further, f"{name} {word}")


def test_help_of_every_command_has_an_example_that_is_right() -> None:
    for name, said in with_help(typer.main.get_command(app)):
        blocks = [block for block in said.split("\n\n") if block.strip().startswith("nas ")]
        lines = [line.strip().partition("  ")[0] for block in blocks for line in block.splitlines()]
        found = [line for line in lines if line.startswith("nas ")]
        assert any(f"{line} ".startswith(f"{name} ") for line in found), name
        for line in found:
            for arguments in documented.invocations(documented.filled(line)):
                assert mistake_in(arguments) is None, line


def test_a_wrong_command_is_found() -> None:
    wrong = ["nas search --spce v9", "nas confirm STUDY --seed 3", "nas serch", "nas export STUDY --best largest"]
    (page,) = ["```\n" + "\n".join(wrong) + "\n```\n"]
    invocations = [
        arguments
        for command in documented.commands(page)
        for arguments in documented.invocations(documented.filled(command))
    ]
    assert [mistake_in(arguments) is not None for arguments in invocations] == [True] * 4


def test_options_in_comments_of_commands_exist() -> None:
    for page in documented.pages():
        for command, flags in documented.flags_in_comments(text(page)):
            (arguments, *_) = documented.invocations(documented.filled(command))
            options = {option for one in command_of(arguments)[0].params for option in one.opts}
            assert set(flags) <= options, (page, command)


def untimed(*_: object, **__: object) -> NoReturn:
    """Time no trainings for the plans of searches."""
    raise EstimateError("not timed in this test")


def free_commands() -> Iterator[str]:
    """Yield every documented command that needs no training, once."""
    found = dict.fromkeys(
        re.sub(r"\bv9[ts]-my\b", "v9t-digits", documented.filled(command))
        for page in documented.pages()
        for command in documented.commands(text(page))
        if command.startswith("nas ") and not any(part in f"{command} " for part in NEEDS_MORE)
    )
    for command in found:
        (arguments, *others) = documented.invocations(command)
        if not others and (arguments[0] in WITHOUT_TRAINING or "--dry-run" in arguments):
            yield shlex.join(arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("documented")
    documented_files.prepare(made)
    with tarfile.open(STUDY) as archive:
        archive.extractall(made, filter="data")
    return made


def test_commands_without_training_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(outlook, "measure", untimed)
    failed, free = {}, list(free_commands())
    for arguments in free:
        done = CliRunner().invoke(app, shlex.split(arguments))
        if done.exit_code:
            failed[arguments] = done.output[-500:]
    assert len(free) > 20
    assert failed == {}


def test_readme_ends_a_search_with_its_budget(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs/nas/v9t-digits", tmp_path / "v9t-digits")  # without its confirmation
    printed = CliRunner().invoke(app, ["pareto", "v9t-digits", "--runs", str(tmp_path)]).stderr
    (line,) = [line for line in printed.splitlines() if line.startswith("the stock model")]
    assert line in " ".join(text("README.md").split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for all pages: studies and tables that one of them makes are there for the next ones."""
    return tmp_path_factory.mktemp("pages")


@pytest.mark.slow
@pytest.mark.parametrize("page", documented.pages())
def test_commands_of_a_page_run(page: str, trained: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        docs.main(docs.options(["--pages", page, "--folder", str(trained)]))
    assert not ended.value.code


def test_a_further_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / documented_files.CHECKPOINT).touch()
    counting = 'python -c \'open("count.txt", "a").write("{}")\''
    commands = [counting.format(1), "python -c 'open(\"missing\")'", "nas worker a --storage postgresql://me@db/nas"]
    (tmp_path / "page.md").write_text("\n".join(["```", *commands, "```"]), encoding="utf-8")
    (tmp_path / "running.json").write_text(json.dumps(["page.md", counting.format(0)]), encoding="utf-8")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    for failing in (True, False):
        with pytest.raises(SystemExit) as ended:
            docs.main(docs.options(["--pages", "page.md", "--folder", str(tmp_path)]))
        assert ended.value.code == failing
        (tmp_path / "missing").touch()
    assert (tmp_path / "count.txt").read_text(encoding="utf-8") == "01"
    first, second = capsys.readouterr().out.strip().split(f"in {tmp_path}\n")[1:]
    assert "status 1: " in first
    assert "FileNotFoundError" in first
    *_, not_run, counted = second.splitlines()
    assert not_run == f"not run page.md: {commands[2]} (needs a PostgreSQL server that several machines reach)"
    assert counted.startswith("3 commands, 0 failed, 1 not run; ")
