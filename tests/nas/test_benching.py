"""`nas bench` as a user types it."""

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nas.bench.optimizers import ABLATIONS
from nas.cli import app

SHORT = ("--trials", 12, "--repeats", 3)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_bench_table_has_the_trials_of_each_sampler(trained: Path) -> None:
    result = bench(trained, *SHORT, "--samplers", "random,ours")
    assert result.exit_code == 0, result.output
    headings = ("after 12", "trials to 90 %", "trials to 95 %", "trials to 98 %", "times fewer than random")
    assert all(heading in result.stdout for heading in headings)
    assert [line.split()[1] for line in result.stdout.splitlines() if line.startswith("│")] == ["random", "ours"]
    assert "216 rows; hypervolume of mAP50-95 and the costs' logarithms, from map50_95 0." in result.stderr
    assert "reported" not in result.stdout


def test_bench_table_with_noise_has_its_effect(trained: Path) -> None:
    result = bench(trained, *SHORT, "--samplers", "random", "--noise", 1)
    assert "3 repeats, noise of 1 points" in result.stdout
    assert all(heading in result.stdout for heading in ("reported", "inflation"))


def test_bench_json_has_everything(trained: Path) -> None:
    output = json.loads(bench(trained, *SHORT, "--samplers", "random,tpe", "--format", "json").stdout)
    assert set(output) == {"table", "rows", "costs", "reference", "rules", "samplers", "games"}
    assert output["rules"] == {
        "trials": 12,
        "noise": 0.0,
        "permuted": "no",
        "seed": 0,
        "epochs": 1,
        "seeds": 1,
        "stopping": None,
    }
    assert set(output["reference"]) == {"map50_95", "ov_latency"}
    games = output["games"]["tpe"]
    assert [game["repeat"] for game in games] == [0, 1, 2]
    assert all(len(game["shares"]) == len(set(game["models"])) == 12 for game in games)
    # Random search is not limited to 12 trials.
    by_random = output["games"]["random"]
    assert all(len(game["models"]) == 12 and game["trials_98"] > 12 for game in by_random)


def test_bench_csv_has_stable_names(trained: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(bench(trained, *SHORT, "--samplers", "random", "--format", "csv").stdout)))
    named = [
        f"{kind}_{target}{end}"
        for target in (90, 95, 98)
        for kind in ("trials", "fewer")
        for end in ("", "_low", "_high")
    ]
    assert list(rows[0]) == ["sampler", "repeats", "share_12", *named, "reported", "inflation", "expected"]


def test_bench_replays_ablations(trained: Path) -> None:
    output = json.loads(
        bench(trained, "--trials", 5, "--repeats", 1, "--samplers", "ours", "--ablate", "--format", "json").stdout
    )
    assert list(output["games"]) == ["ours", *ABLATIONS]


def test_bench_figure_needs_no_network(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "shares.html"
    assert bench(trained, *SHORT, "--samplers", "random,nsga2", "--figure", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "nsga2" in text
    assert "trained.csv: mAP50-95 and ov_latency, 3 repeats" in text
    assert 'src="http' not in text


def test_bench_measures_the_time_of_proposals(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.cli import benching

    monkeypatch.setattr(benching, "_HISTORIES", (10, 20))
    rows = json.loads(bench(trained, "--asking", "--format", "json").stdout)
    assert [row["trials"] for row in rows] == [10, 20]
    assert "trials so far" in bench(trained, "--asking").stdout


WRONG = {
    "a figure in no folder": (
        ("--figure", "nope/shares.html"),
        "figure: no folder to write it to, got 'nope/shares.html' (make nope first)",
    ),
    "an unknown sampler": (("--samplers", "random,our"), "samplers: unknown sampler 'our' (did you mean 'ours'?)"),
    "an unknown cost": (
        ("--cost", "ov_latncy"),
        "{table}: line 1: no column of latencies is called 'ov_latncy' (did you mean 'ov_latency'?)",
    ),
}


@pytest.mark.parametrize(("flags", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_of_bench_is_one_line(trained: Path, flags: tuple[str, ...], message: str) -> None:
    result = bench(trained, *flags)
    assert result.exit_code == 2
    assert result.stderr == message.format(table=trained) + "\n"
    assert result.stdout == ""
