"""Commands that look at a study: what each further trial costs them, counted, since seconds vary with the load."""

import cProfile
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from typer.testing import CliRunner

from nas.cli import app
from nas.records.record import Record
from nas.records.record_file import RecordFile
from nas.study import trial_records
from nas.study.study import Study

MakeStudy = Callable[..., Study]
SHORT, LONG = 20, 220
MOST_CALLS = {"status": 80, "pareto": 180, "trials": 400}
"""Calls of functions for each further trial. 10,000 trials times 400 calls take half a second."""


def fill(study: Study, number: int) -> None:
    """Store so many ended trials, as the supervisor has saved them."""
    with closing(sqlite3.connect(study.folder / "study.db")) as database, database:
        database.executemany(
            "INSERT INTO trials (number, study_id, state) VALUES (?, 1, 'COMPLETE')",
            [(each,) for each in range(number)],
        )
    picks = {"2": {"UIB": {"expansion": 2, "start_kernel": 3}}, "4": {"DynamicConv": {"kernels": 4}}}
    records = {
        each: Record(
            trial=each,
            state="complete",
            ending="finished",
            map50_95=0.2 + each % 97 / 1000,
            map50=0.4,
            gflops=2 + each % 89 / 10,
            params=10**6,
            fingerprint=f"{each:012x}",
            picks=picks | {"6": {"UIB": {"expansion": each}}},
            summary="DynamicConv 4 · UIB 2, 6",
            role="" if each else "stock",
        )
        for each in range(number)
    }
    RecordFile(study.folder / "records.jsonl").append(records)


@pytest.fixture(scope="module")
def studies(study_maker: Callable[[Path], MakeStudy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study of few and of one of many ended trials."""
    make_study = study_maker(tmp_path_factory.mktemp("long"))
    for name, number in (("short", SHORT), ("long", LONG)):
        made = make_study(name)
        fill(made, number)
    return made.folder.parent


def cost(arguments: list[str]) -> tuple[int, int]:
    """Return the numbers of function calls and of statements to the database of a command."""
    statements = 0

    def executed(*_: object) -> None:
        nonlocal statements
        statements += 1

    event.listen(Engine, "before_cursor_execute", executed)
    profile = cProfile.Profile()
    try:
        done = profile.runcall(CliRunner().invoke, app, arguments)
    finally:
        event.remove(Engine, "before_cursor_execute", executed)
    assert done.exit_code == 0, done.output
    return sum(entry.callcount for entry in profile.getstats()), statements


@pytest.mark.parametrize(
    ("command", "shown"), [("status", "table"), ("pareto", "table"), ("trials", "table"), ("trials", "json")]
)
def test_a_further_trial_costs_few_calls_and_no_statement(studies: Path, command: str, shown: str) -> None:
    arguments = [command, "short", "--runs", str(studies), "--format", shown]
    cost(arguments)  # imports
    calls, statements = cost(arguments)
    more_calls, more_statements = cost([command, "long", *arguments[2:]])
    assert more_statements == statements
    assert (more_calls - calls) / (LONG - SHORT) < MOST_CALLS[command]


def test_table_and_json_have_every_trial_on_a_line(studies: Path) -> None:
    table = CliRunner().invoke(app, ["trials", "long", "--runs", str(studies)]).stdout.splitlines()
    assert [int(line.split()[0]) for line in table[2:]] == list(range(LONG))
    rows = CliRunner().invoke(app, ["trials", "long", "--runs", str(studies), "--format", "json"]).stdout
    assert [row["trial"] for row in json.loads(rows)] == list(range(LONG))
    assert len(rows.splitlines()) == LONG + 2


def test_looking_at_a_study_imports_no_library_that_it_does_not_need(studies: Path) -> None:
    code = f"""if True:
        import sys
        from nas.cli import app
        for command, more in (("status", {{"scipy"}}), ("pareto", set()), ("trials", set())):
            app([command, "short", "--runs", {str(studies)!r}], standalone_mode=False)
            print(sorted({{"torch", "ultralytics", "mlflow", "pandas", *more}} & set(sys.modules)))
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines().count("[]") == 3


NUMBER = 150
"""More trials than are read one by one."""


def store(study: Study, old: int | None = None) -> None:
    """Store ended trials and a running one, as workers do, without a file of records.

    Args:
        old: one of an early version, whose architecture is in its parameters alone.
    """
    with closing(sqlite3.connect(study.folder / "study.db")) as database, database:
        database.execute("DELETE FROM trials")
        database.execute("DELETE FROM trial_user_attributes")
        for each in range(NUMBER):
            row = each + 7, each, "RUNNING" if each == 3 else "COMPLETE"
            database.execute("INSERT INTO trials (trial_id, number, study_id, state) VALUES (?, ?, 1, ?)", row)
            fields = {
                "fingerprint": f"{each:012x}",
                "detail": "",
                "ending": "finished",
                "map50_95": 0.2,
                "params": each,
            }
            if each != old:
                fields["architecture"] = {"picks": {}, "summary": f"number {each}"}
            attributes = [("user", key, value) for key, value in fields.items()]
            for kind, key, value in (*attributes, ("system", "constraints", [each - 100])):
                insert = f"INSERT INTO trial_{kind}_attributes (trial_id, key, value_json) VALUES (?, ?, ?)"  # noqa: S608 - our names
                database.execute(insert, (each + 7, key, json.dumps(value)))


@pytest.mark.parametrize("old", [None, 5])
def test_records_without_their_file_are_those_of_whole_trials(
    old: int | None, make_study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    store(study, old)
    records = study.records()
    assert [one.within for one in records] == [number <= 100 for number in range(NUMBER)]
    monkeypatch.setattr(trial_records, "_ONE_BY_ONE", NUMBER)
    assert Study.open(study.folder).records() == records


def test_without_the_file_of_records_few_statements_read_no_parameters(make_study: MakeStudy) -> None:
    study, statements = make_study(), list[str]()
    store(study)

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", executed)
    try:
        assert len(Study.open(study.folder).records()) == NUMBER
    finally:
        event.remove(Engine, "before_cursor_execute", executed)
    assert len([one for one in statements if " IN (" in one]) == 3
    assert not [one for one in statements if "FROM trial_params" in one or "FROM trial_values" in one]
