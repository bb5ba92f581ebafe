"""`nas bench`: replay samplers on a table of trained architectures."""

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

SAMPLERS = "random,ours,tpe,nsga2"
_HISTORIES = (100, 1_000, 10_000)
_STOPPED = "Stopped; nothing was saved."
_REPLAYS, _OUTPUT = "Replays", "Output"

TableFile = Annotated[
    Path, typer.Argument(metavar="TABLE.csv", help="Table in the format of YOLOBench.", show_default=False)
]
Cost = Annotated[
    str, typer.Option(metavar="COLUMN", help="Cost to minimise, beside mAP50-95.", rich_help_panel=_REPLAYS)
]
Samplers = Annotated[
    str,
    typer.Option(
        metavar="NAME,NAME",
        help="Samplers to compare: random, ours, tpe, nsga2, or gp, which is slow.",
        rich_help_panel=_REPLAYS,
    ),
]
Ablate = Annotated[
    bool, typer.Option("--ablate", help="Also replay ours without each of its parts.", rich_help_panel=_REPLAYS)
]
Trials = Annotated[int, typer.Option(metavar="N", help="Number of trials of a replay.", rich_help_panel=_REPLAYS)]
Repeats = Annotated[
    int,
    typer.Option(metavar="N", help="Number of replays of each sampler, one per seed.", rich_help_panel=_REPLAYS),
]
Noise = Annotated[
    float,
    typer.Option(
        metavar="POINTS",
        help="Standard deviation of the noise added to accuracies, in points of mAP.",
        rich_help_panel=_REPLAYS,
    ),
]
Permuted = Annotated[
    Literal["no", "accuracies", "outcomes"],
    typer.Option(
        metavar="NAME",
        help="Control experiment: no, accuracies or outcomes. accuracies: shuffle accuracies among the rows, so that "
        "only the costs can help a sampler. outcomes: shuffle accuracies and costs, so that no sampler can be better "
        "than random.",
        rich_help_panel=_REPLAYS,
    ),
]
Epochs = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="If above 1, also replay random and ours with early stopping of trainings of N epochs, on synthetic "
        "learning curves.",
        rich_help_panel=_REPLAYS,
    ),
]
Eta = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="With early stopping, about one training in N continues at each rung.",
        rich_help_panel=_REPLAYS,
    ),
]
FirstRung = Annotated[
    int, typer.Option(metavar="N", help="With early stopping, epoch of the first rung.", rich_help_panel=_REPLAYS)
]
Seeds = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="If above 1, also replay random and ours with N trainings of each member of the front, as nas search "
        "--seeds does.",
        rich_help_panel=_REPLAYS,
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed of all replays.", rich_help_panel=_REPLAYS)]
Jobs = Annotated[int, typer.Option(metavar="N", help="Number of processes; results do not depend on it.")]
Asking = Annotated[
    bool,
    typer.Option(
        "--asking", help="Instead of replays, measure how long ours takes for a proposal.", rich_help_panel=_OUTPUT
    ),
]
Figure = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.html", help="Also write the curves as a page, such as shares.html.", rich_help_panel=_OUTPUT
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


@show.reports_errors
def bench(
    table: TableFile,
    cost: Cost = "ov_latency",
    samplers: Samplers = SAMPLERS,
    ablate: Ablate = False,
    trials: Trials = 100,
    repeats: Repeats = 50,
    noise: Noise = 0.0,
    permuted: Permuted = "no",
    epochs: Epochs = 1,
    eta: Eta = 3,
    first_rung: FirstRung = 1,
    seeds: Seeds = 1,
    seed: Seed = 0,
    jobs: Jobs = 1,
    asking: Asking = False,
    figure: Figure = None,
    shown: Shown = "table",
) -> None:
    """Replay samplers on a table of trained architectures: how many trials does each need to find the Pareto front?

    Nothing is trained: the scores of what a sampler proposes are looked up.
    YOLOBench has tables of some hundred YOLOs each: results/yolobench/*.csv
    of Deeplite/deeplite-torch-zoo on GitHub.

      nas bench TABLE.csv                       latency with OpenVINO
      nas bench TABLE.csv --noise 0.5           noise of half a point
      nas bench TABLE.csv --permuted outcomes   control: all are like random
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported, here and in the processes of --jobs
    from nas.algorithms.successive_halving import Stopping
    from nas.bench.replay import ReplaySettings
    from nas.bench.tables import read_yolobench
    from search_spaces.files import require_place

    if figure is not None:
        require_place(figure, "figure")
    read = read_yolobench(table, cost)
    if asking:
        _print_asking(read, seed, shown)
        return
    stopping, trials = Stopping(eta=eta, first=first_rung), min(trials, len(read))
    settings = ReplaySettings(
        trials=trials, noise=noise, permuted=permuted, seed=seed, epochs=epochs, stopping=stopping, seeds=seeds
    )
    names = _optimizer_names(samplers, ablate=ablate, stopping=epochs > 1, repeating=seeds > 1)
    _Bench(table.name, read, settings, names, repeats).run(jobs, figure, shown)


@dataclass(frozen=True)
class _Bench:
    """Replays of some samplers on a table, and the printing of their result."""

    name: str
    table: "Table"
    settings: "ReplaySettings"
    samplers: Sequence[str]
    repeats: int

    def run(self, jobs: int, figure: Path | None, shown: str) -> None:
        """Replay all samplers, then print the result."""
        from nas.bench import summary
        from nas.bench.replay import replay_all

        replays = []
        with show.progress("replaying", _STOPPED) as show_progress:
            for replay in replay_all(self.table, self.settings, self.samplers, self.repeats, jobs=jobs):
                replays.append(replay)
                show_progress(len(replays), len(self.samplers) * self.repeats)
        rows = summary.summarize(replays, self.settings.trials)
        if figure is not None:
            figure.write_text(summary.figure(self._title, replays, self.settings.trials), encoding="utf-8")
        match shown:
            case "json":
                print(json.dumps(self._whole(rows, replays), indent=1))  # noqa: T201 - this is the output
            case "csv":
                show.rows(rows, "csv", title="", columns={})
            case _:
                self._print(rows)

    @property
    def _title(self) -> str:
        permuted = "" if self.settings.permuted == "no" else f", {self.settings.permuted} permuted"
        noise = f", noise of {self.settings.noise:g} points" if self.settings.noise else ""
        noise += f", {self.settings.epochs} simulated epochs" if self.settings.epochs > 1 else ""
        return f"{self.name}: mAP50-95 and {', '.join(self.table.cost_names)}, {self.repeats} repeats{noise}{permuted}"

    def _reference(self) -> dict[str, float]:
        """Reference point of the hypervolume. The hypervolume takes logarithms of costs; here they are plain."""
        from nas.bench.replay import reference_of

        accuracy, *costs = reference_of(self.table)
        return {"map50_95": accuracy, **dict(zip(self.table.cost_names, map(exp, costs), strict=True))}

    def _print(self, rows: Sequence[dict[str, Any]]) -> None:
        from nas.bench.summary import TARGETS, reported_trials

        after = {f"share_{look}": f"after {look}" for look in reported_trials(self.settings.trials)}
        taken = {f"trials_{target}": f"trials to {target} %" for target in TARGETS}
        noisy = ("reported", "inflation", "expected") if self.settings.noise else ()
        columns = {"sampler": "sampler", **after, **taken, "fewer": "times fewer than random"}
        columns |= {name: name for name in noisy}
        random_trials = next((row["trials_95"] for row in rows if row["sampler"] == "random"), None)
        cells = [
            {
                **row,
                **{key: f"{row[key]:.3f}" for key in after},
                **{key: _quartiles(row, key, self.settings.trials) for key in taken},
                "fewer": _fewer(row, random_trials, self.settings.trials),
                "reported": f"{row['reported']:.3f}",
                "inflation": f"{100 * row['inflation']:+.1f} %",
                "expected": "-" if row["expected"] is None else f"{row['expected']:.3f}",
            }
            for row in rows
        ]
        show.rows(cells, "table", title=self._title, columns=columns)
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self._reference().items())
        permuted = " (of the original table; each permutation has another)" if self.settings.permuted != "no" else ""
        show.lines(
            [
                f"{len(self.table)} rows; hypervolume of mAP50-95 and the costs' logarithms, from {figures}{permuted}",
                "medians, quartiles in brackets; times fewer trials to 95 %, with a bootstrap interval of 95 %",
            ]
        )

    @property
    def _stopping(self) -> dict[str, Any] | None:
        stopping = self.settings.stopping
        return stopping.model_dump() if stopping and self.settings.epochs > 1 else None

    def _whole(self, rows: Sequence[dict[str, Any]], replays: Sequence["Replay"]) -> dict[str, Any]:
        """Return everything, for programs."""
        from nas.bench.summary import by_sampler

        return {
            "table": self.name,
            "rows": len(self.table),
            "costs": list(self.table.cost_names),
            "reference": self._reference(),
            "rules": {
                "trials": self.settings.trials,
                "noise": self.settings.noise,
                "permuted": self.settings.permuted,
                "seed": self.settings.seed,
                "epochs": self.settings.epochs,
                "seeds": self.settings.seeds,
                "stopping": self._stopping,
            },
            "samplers": rows,
            "games": {sampler: [self._row(replay) for replay in each] for sampler, each in by_sampler(replays).items()},
        }

    def _row(self, replay: "Replay") -> dict[str, Any]:
        """Return a replay, for programs."""
        from nas.bench.summary import TARGETS, trials_to

        taken = {f"trials_{target}": trials_to([replay], target)[0] for target in TARGETS}
        return {
            "repeat": replay.repeat,
            **{key: int(count) if count < float("inf") else None for key, count in taken.items()},
            "reported": replay.reported,
            "inflation": replay.inflation,
            "expected": replay.expected,
            "shares": list(replay.shares[: self.settings.trials]),
            "models": [self.table.names[row] for row in replay.rows[: self.settings.trials]],
            "finished": len(replay.finished),
        }


def _optimizer_names(samplers: str, *, ablate: bool, stopping: bool, repeating: bool) -> list[str]:
    """Return the names of the optimizers that the flags ask for.

    Raises:
        SpecError: there is no such sampler.
    """
    from nas.bench.optimizers import ABLATIONS, OPTIMIZERS, OURS, RANDOM, REPEATING, STOPPING
    from search_spaces.errors import SpecError, nearest

    names = list(dict.fromkeys(name.strip() for name in samplers.split(",")))
    unknown = [name for name in names if name not in OPTIMIZERS]
    if unknown:
        raise SpecError([f"samplers: unknown sampler {name!r} ({nearest(name, OPTIMIZERS)})" for name in unknown])
    both = [name for name in (RANDOM, OURS) if name in names]
    ablations = [name for name in ABLATIONS if ablate and name not in names]
    return [
        *names,
        *ablations,
        *(name + STOPPING for name in both if stopping),
        *(n + REPEATING for n in both if repeating),
    ]


def _quartiles(row: dict[str, Any], key: str, limit: int) -> str:
    """Format the median and quartiles of a number of trials; `>limit` if the replays were too short."""
    median, low, high = (
        f">{limit}" if row[name] is None else f"{row[name]:g}" for name in (key, f"{key}_low", f"{key}_high")
    )
    return median if low == high == median else f"{median} ({low} to {high})"


def _fewer(row: dict[str, Any], random_trials: float | None, limit: int) -> str:
    """Format how many times fewer trials than random a sampler needs to reach 95 %, or an upper bound."""
    if row["sampler"] == "random" or random_trials is None:
        return "-"
    if row["fewer_95"] is None:
        return f"<{random_trials / limit:.1f}"
    return f"{row['fewer_95']:.1f} ({row['fewer_95_low']:.1f} to {row['fewer_95_high']:.1f})"


def _print_asking(table: "Table", seed: int, shown: Any) -> None:
    """Print how long our sampler takes for one proposal."""
    from nas.bench.replay import POOL, time_proposals

    rows = []
    with show.progress("asking", _STOPPED) as show_progress:
        for row in time_proposals(table, _HISTORIES, seed=seed):
            rows.append(row)
            show_progress(len(rows), len(_HISTORIES))
    columns = {"trials": "trials so far", "fitting": "s, with fitting", "asking": "s, without"}
    cells = [row | {key: f"{row[key]:.3f}" for key in ("fitting", "asking")} for row in rows]
    title = f"One proposal over a pool of {POOL}"
    show.rows(cells if shown == "table" else rows, shown, title=title, columns=columns)
