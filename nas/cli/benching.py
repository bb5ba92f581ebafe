"""`nas bench`: samplers replayed on a table of trained architectures."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nas.cli import show
from nas.cli.options import Shown

if TYPE_CHECKING:
    from nas.bench.replay import Replay, ReplaySettings
    from nas.bench.tables import Table

_SAMPLERS = "random,ours,tpe,nsga2"
_HISTORIES = (100, 1_000, 10_000)
_STOPPED = "Stopped; replays are short and nothing of them was kept."
_GAMES, _SHOWN = "The games", "What is shown"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


@show.told
def bench(
    table: Annotated[Path, typer.Argument(help="A CSV file as YOLOBench publishes them.", show_default=False)],
    cost: Annotated[
        str, typer.Option(help="The column that is to be small, beside mAP50-95.", rich_help_panel=_GAMES)
    ] = "ov_latency",
    samplers: Annotated[
        str, typer.Option(help="random, ours, tpe, nsga2, and gp, which is slow.", rich_help_panel=_GAMES)
    ] = _SAMPLERS,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Also ours without each of its parts.", rich_help_panel=_GAMES)
    ] = False,
    trials: Annotated[int, typer.Option(min=1, help="After which a sampler is stopped.", rich_help_panel=_GAMES)] = 100,
    repeats: Annotated[int, typer.Option(min=1, help="Games of each sampler.", rich_help_panel=_GAMES)] = 50,
    noise: Annotated[
        float,
        typer.Option(min=0, help="Standard deviation of what scores are off by, in points.", rich_help_panel=_GAMES),
    ] = 0.0,
    permuted: Annotated[
        Literal["no", "accuracies", "outcomes"],
        typer.Option(
            help="Deal accuracies to other rows, so that only costs are known; or accuracies and costs, so that "
            "nothing is: no sampler can then be better than random.",
            rich_help_panel=_GAMES,
        ),
    ] = "no",
    epochs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Also random and ours with trainings of so many epochs that are judged before their end, on learning "
            "curves that are made up.",
            rich_help_panel=_GAMES,
        ),
    ] = 1,
    eta: Annotated[int, typer.Option(min=2, help="One of so many goes on at each rung.", rich_help_panel=_GAMES)] = 3,
    first_rung: Annotated[
        int, typer.Option(min=1, help="The epoch after which trainings are first judged.", rich_help_panel=_GAMES)
    ] = 1,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="Also random and ours with a front that is trained with so many seeds, as nas search --seeds does.",
            rich_help_panel=_GAMES,
        ),
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of all games.", rich_help_panel=_GAMES)] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes; results do not depend on it.")] = 1,
    asking: Annotated[
        bool, typer.Option("--asking", help="Instead: how long ours thinks.", rich_help_panel=_SHOWN)
    ] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Also write the curves, as a page such as shares.html.", rich_help_panel=_SHOWN)
    ] = None,
    shown: Shown = "table",
) -> None:
    """Replay samplers on architectures that somebody has trained: how many trials does each need to find the front?

    Nothing is trained: what a sampler proposes is looked up. YOLOBench's tables of some hundred YOLOs each are
    results/yolobench/*.csv of Deeplite/deeplite-torch-zoo on GitHub.

      nas bench TABLE.csv                       the samplers, on latency with OpenVINO
      nas bench TABLE.csv --noise 0.5           scores are off by half a point
      nas bench TABLE.csv --permuted outcomes   the control: all are like random
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, here and in the processes of --jobs
    from nas.algorithms.successive_halving import Stopping
    from nas.bench.replay import ReplaySettings
    from nas.bench.tables import read_yolobench
    from search_spaces.errors import SpecError

    if figure is not None and not figure.absolute().parent.is_dir():
        raise SpecError(f"figure: no folder to write it to, got '{figure}' (make {figure.parent} first)")
    read = read_yolobench(table, cost)
    if asking:
        _print_asking(read, seed, shown)
        return
    rules = ReplaySettings(
        trials=min(trials, len(read)),
        noise=noise,
        permuted=permuted,
        seed=seed,
        epochs=epochs,
        stopping=Stopping(eta=eta, first=first_rung),
        seeds=seeds,
    )
    named = _named(samplers, ablate=ablate, stopping=epochs > 1, racing=seeds > 1)
    _Bench(table.name, read, rules, named, repeats).run(jobs, figure, shown)


@dataclass(frozen=True)
class _Bench:
    """What was asked for."""

    name: str
    table: "Table"
    rules: "ReplaySettings"
    samplers: Sequence[str]
    repeats: int

    def run(self, jobs: int, figure: Path | None, shown: str) -> None:
        """Play, then show."""
        from nas.bench import summary
        from nas.bench.replay import replay_all

        replays = []
        with show.progress("replaying", _STOPPED) as show_progress:
            for replay in replay_all(self.table, self.rules, self.samplers, self.repeats, jobs=jobs):
                replays.append(replay)
                show_progress(len(replays), len(self.samplers) * self.repeats)
        rows = summary.summarize(replays, self.rules.trials)
        if figure is not None:
            figure.write_text(summary.figure(self._title, replays, self.rules.trials), encoding="utf-8")
        match shown:
            case "json":
                print(json.dumps(self._whole(rows, replays), indent=1))  # noqa: T201 - this is the output
            case "csv":
                show.rows(rows, "csv", title="", columns={})
            case _:
                self._print(rows)

    @property
    def _title(self) -> str:
        dealt = "" if self.rules.permuted == "no" else f", {self.rules.permuted} permuted"
        noise = f", noise of {self.rules.noise:g} points" if self.rules.noise else ""
        noise += f", {self.rules.epochs} simulated epochs" if self.rules.epochs > 1 else ""
        return f"{self.name}: mAP50-95 and {', '.join(self.table.cost_names)}, {self.repeats} repeats{noise}{dealt}"

    def _reference(self) -> dict[str, float]:
        """The point from which the hypervolume is measured; of a cost its logarithm counts, here it is the cost."""
        from nas.bench.replay import reference_of

        accuracy, *costs = reference_of(self.table)
        return {"map50_95": accuracy, **dict(zip(self.table.cost_names, map(exp, costs), strict=True))}

    def _print(self, rows: Sequence[dict[str, Any]]) -> None:
        from nas.bench.summary import TARGETS, reported_trials

        after = {f"share_{look}": f"after {look}" for look in reported_trials(self.rules.trials)}
        taken = {f"trials_{target}": f"trials to {target} %" for target in TARGETS}
        noisy = {"reported": "reported", "inflation": "inflation", "expected": "expected"} if self.rules.noise else {}
        columns = {"sampler": "sampler", **after, **taken, "fewer": "times fewer than random", **noisy}
        chance = next((row["trials_95"] for row in rows if row["sampler"] == "random"), None)
        told = [
            {
                **row,
                **{key: f"{row[key]:.3f}" for key in after},
                **{key: _quartiles(row, key, self.rules.trials) for key in taken},
                "fewer": _fewer(row, chance, self.rules.trials),
                "reported": f"{row['reported']:.3f}",
                "inflation": f"{100 * row['inflation']:+.1f} %",
                "expected": "-" if row["expected"] is None else f"{row['expected']:.3f}",
            }
            for row in rows
        ]
        show.rows(told, "table", title=self._title, columns=columns)
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self._reference().items())
        dealt = " (of the table as it is; of each deal its own)" if self.rules.permuted != "no" else ""
        show.lines(
            [
                f"{len(self.table)} rows; hypervolume of mAP50-95 and the costs' logarithms, from {figures}{dealt}",
                "medians, quartiles in brackets; times fewer trials to 95 %, with a bootstrap interval of 95 %",
            ]
        )

    def _whole(self, rows: Sequence[dict[str, Any]], replays: Sequence["Replay"]) -> dict[str, Any]:
        """Everything, for programs."""
        from nas.bench.summary import by_sampler

        return {
            "table": self.name,
            "rows": len(self.table),
            "costs": list(self.table.cost_names),
            "reference": self._reference(),
            "rules": {
                "trials": self.rules.trials,
                "noise": self.rules.noise,
                "permuted": self.rules.permuted,
                "seed": self.rules.seed,
                "epochs": self.rules.epochs,
                "seeds": self.rules.seeds,
                "stopping": self.rules.stopping.model_dump() if self.rules.stopping and self.rules.epochs > 1 else None,
            },
            "samplers": rows,
            "games": {sampler: [self._game(replay) for replay in own] for sampler, own in by_sampler(replays).items()},
        }

    def _game(self, replay: "Replay") -> dict[str, Any]:
        from nas.bench.summary import TARGETS, trials_to

        taken = {f"trials_{target}": trials_to([replay], target)[0] for target in TARGETS}
        return {
            "repeat": replay.repeat,
            **{key: int(count) if count < float("inf") else None for key, count in taken.items()},
            "reported": replay.reported,
            "inflation": replay.inflation,
            "expected": replay.expected,
            "shares": list(replay.shares[: self.rules.trials]),
            "models": [self.table.names[row] for row in replay.rows[: self.rules.trials]],
            "finished": len(replay.finished),
        }


def _named(samplers: str, *, ablate: bool, stopping: bool, racing: bool) -> list[str]:
    """The samplers that the flags name.

    Raises:
        SpecError: there is no such sampler.
    """
    from nas.bench.optimizers import ABLATIONS, OPTIMIZERS, OURS, RANDOM, REPEATING, STOPPING
    from search_spaces.errors import SpecError, nearest

    asked = list(dict.fromkeys(name.strip() for name in samplers.split(",")))
    unknown = [name for name in asked if name not in OPTIMIZERS]
    if unknown:
        raise SpecError([f"samplers: unknown sampler {name!r} ({nearest(name, OPTIMIZERS)})" for name in unknown])
    both = [name for name in (RANDOM, OURS) if name in asked]
    ablations = [name for name in ABLATIONS if ablate and name not in asked]
    return [
        *asked,
        *ablations,
        *(name + STOPPING for name in both if stopping),
        *(n + REPEATING for n in both if racing),
    ]


def _quartiles(row: dict[str, Any], key: str, limit: int) -> str:
    """A number of trials, where the median or a quartile may be more than were given."""
    found, low, high = (
        f">{limit}" if row[name] is None else f"{row[name]:g}" for name in (key, f"{key}_low", f"{key}_high")
    )
    return found if low == high == found else f"{found} ({low} to {high})"


def _fewer(row: dict[str, Any], chance: float | None, limit: int) -> str:
    """How many times fewer trials to 95 % than random, or what it is less than."""
    if row["sampler"] == "random" or chance is None:
        return "-"
    if row["fewer_95"] is None:
        return f"<{chance / limit:.1f}"
    return f"{row['fewer_95']:.1f} ({row['fewer_95_low']:.1f} to {row['fewer_95_high']:.1f})"


def _print_asking(table: "Table", seed: int, shown: Any) -> None:
    """How long our proposer thinks."""
    from nas.bench.replay import POOL, time_proposals

    rows = []
    with show.progress("asking", _STOPPED) as show_progress:
        for row in time_proposals(table, _HISTORIES, seed=seed):
            rows.append(row)
            show_progress(len(rows), len(_HISTORIES))
    columns = {"trials": "trials so far", "fitting": "s, with fitting", "asking": "s, without"}
    told = [row | {key: f"{row[key]:.3f}" for key in ("fitting", "asking")} for row in rows]
    title = f"One proposal over a pool of {POOL}"
    show.rows(told if shown == "table" else rows, shown, title=title, columns=columns)
