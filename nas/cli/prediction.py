"""`nas latency predict` and `nas latency error`: predict latencies of models, and measure how wrong that is."""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import device_tables, options, show
from nas.cli.device_tables import TableOptions
from nas.cli.show import Format

if TYPE_CHECKING:
    from search_spaces import Architecture, SearchSpace
    from trials.latency.prediction_error import ErrorSummary, Observation

Model = Annotated[Path | None, typer.Argument(metavar="MODEL", help="model.yaml that nas export wrote.")]
Sample = Annotated[int, typer.Option(metavar="N", help="Without a model: number of random architectures of the space.")]
Candidates = Annotated[int, typer.Option(min=2, metavar="N", help="Number of random architectures to build and time.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed of the architectures.")]


@show.reports_errors
@options.takes(of=TableOptions)
def predict(
    model: Model = None, *, typed: options.Typed, sample: Sample = 1, seed: Seed = 0, shown: options.Shown = "table"
) -> None:
    """Predict the latency of one image for an exported model, or for random architectures of a space.

    nas latency predict model.yaml --device-name mine
    nas latency predict --space v9 --sample 5
    """
    chosen = TableOptions(**typed)
    with show.err.status("reading space and table"):
        from search_spaces import Architecture

        recorded, space = chosen.recorded(), chosen.load_space()
        architectures = _sample(space, sample, seed)
        if model is not None:
            architectures = [Architecture.read(_existing(model))]
            space = _space_of(architectures[0], space)
        table = chosen.latencies(space, recorded)
        rows = [
            {
                "fingerprint": architecture.fingerprint,
                "predicted_ms": (milliseconds := table.predict(architecture)),
                "percent_of_stock": 100 * milliseconds / table.stock_ms,
                "summary": architecture.summary(),
            }
            for architecture in architectures
        ]
    columns = {
        "fingerprint": "fingerprint",
        "predicted_ms": "predicted ms",
        "percent_of_stock": "% of stock",
        "summary": "architecture",
    }
    show.rows(rows, shown, title=f"On {recorded.profile.name}", columns=columns)


@show.reports_errors
@options.takes(of=TableOptions)
def error(typed: options.Typed, candidates: Candidates = 20, seed: Seed = 0, shown: options.Shown = "table") -> None:
    """Measure how wrong predictions are: build random candidates and time them, alternating with the stock model.

    nas latency error --space v9 --candidates 20
    """
    chosen, checked = TableOptions(**typed), []
    with show.err.status("loading the runtime"):
        from trials.latency import prediction_error

        runtime = chosen.open_runtime()
    with runtime as opened:
        with show.err.status("reading space and table"):
            recorded = device_tables.read(opened.profile.name)
            table = chosen.latencies(chosen.load_space(), recorded)
            architectures = _sample(table.space, candidates, seed)
        with show.progress("timing candidates", "Stopped; nothing was saved.") as show_progress:
            for one in prediction_error.observe(table, opened, architectures):
                checked.append(one)
                show_progress(len(checked), len(architectures))
    summary = prediction_error.ErrorSummary.of(checked)
    rows = [_error_row(one) for one in checked]
    if shown == "json":
        whole = {"profile": asdict(recorded.profile), **asdict(summary), "checked": rows}
        print(json.dumps(whole, indent=1))  # noqa: T201 - this is the output
    else:
        _print_errors(rows, summary, shown, title=f"{table.space.at_scale} on {recorded.profile.name}")


def _error_row(one: "Observation") -> dict[str, Any]:
    return {
        "fingerprint": one.architecture.fingerprint,
        "predicted_ms": one.predicted_ms,
        "measured_ms": one.measured_ms,
        "error_percent": 100 * one.error,
        "steady": one.steady,
        "summary": one.architecture.summary(),
    }


def _print_errors(rows: list[dict[str, Any]], summary: "ErrorSummary", shown: Format, *, title: str) -> None:
    """Print the error of each prediction as a table or as CSV, and a summary as lines."""
    columns = {
        "fingerprint": "fingerprint",
        "predicted_ms": "predicted ms",
        "measured_ms": "measured ms",
        "error_percent": "error, %",
        "steady": "steady",
        "summary": "architecture",
    }
    show.rows(rows, shown, title=title, columns=columns)
    show.lines(
        [
            f"error       median {summary.median_error:.1%}, nine of ten within {summary.p90_error:.1%}",
            f"bias        {summary.bias:+.1%}",
            f"order       Kendall's tau {summary.tau:.2f} over {summary.candidates} candidates",
            f"steady      {summary.steady} of {summary.candidates} measurements",
        ]
    )


def _space_of(architecture: "Architecture", space: "SearchSpace") -> "SearchSpace":
    """Return the given space if the architecture is of its base model, else a space of that base model alone."""
    from search_spaces import SearchSpace

    if (space.base, space.scale) == (architecture.base, architecture.scale):
        return space
    return SearchSpace(name="SPACE", base=architecture.base, scale=architecture.scale, slots=())


def _sample(space: "SearchSpace", count: int, seed: int) -> "list[Architecture]":
    """Draw different random architectures that can be built."""
    rng = random.Random(seed)  # noqa: S311 - architectures are no secrets
    drawn = (space.sample(rng) for _ in range(100 * count))
    found = {one.fingerprint: one for one in drawn if space.incompatibility(one) is None}
    return list(found.values())[:count]


def _existing(file: Path) -> Path:
    from search_spaces.errors import SpecError

    if not file.is_file():
        raise SpecError(f"{file}: no such file")
    return file
