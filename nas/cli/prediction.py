"""`nas latency predict` and `nas latency error`: predict latencies of models, and measure how wrong that is."""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import device_tables, show
from nas.cli.options import Shown

if TYPE_CHECKING:
    from search_spaces import Architecture, SearchSpace

Seed = Annotated[int, typer.Option(metavar="N", help="Random seed of the architectures.")]


@show.reports_errors
def predict(
    model: Annotated[Path | None, typer.Argument(metavar="[MODEL]", help="model.yaml that nas export wrote.")] = None,
    space: device_tables.SpaceName = "v9",
    scale: device_tables.Scale = None,
    sample: Annotated[
        int, typer.Option(metavar="N", help="Without a model: number of random architectures of the space.")
    ] = 1,
    runtime: device_tables.RuntimeName = "torch",
    deploy_size: device_tables.DeploySize = device_tables.DEPLOYED_SIZE,
    classes: device_tables.Classes = device_tables.COCO_CLASSES,
    data: device_tables.Data = None,
    threads: device_tables.Threads = 1,
    device: device_tables.Device = "cpu",
    device_name: device_tables.DeviceName = None,
    seed: Seed = 0,
    shown: Shown = "table",
) -> None:
    """Predict the latency of one image for an exported model, or for random architectures of a space."""
    from search_spaces import Architecture

    recorded = device_tables.of_device(runtime, threads, device, device_name)
    asked = device_tables.read_space(space, scale)
    architectures = _sample(asked, sample, seed)
    if model is not None:
        architectures = [Architecture.read(_existing(model))]
        asked = _space_of(architectures[0], asked)
    table = device_tables.of_space(asked, recorded, deploy_size=deploy_size, classes=classes, data=data)
    rows = []
    for architecture in architectures:
        milliseconds = table.predict(architecture)
        rows.append(
            {
                "fingerprint": architecture.fingerprint,
                "predicted_ms": milliseconds,
                "percent_of_stock": 100 * milliseconds / table.stock_ms,
                "summary": architecture.summary(),
            }
        )
    columns = {
        "fingerprint": "fingerprint",
        "predicted_ms": "predicted ms",
        "percent_of_stock": "% of stock",
        "summary": "architecture",
    }
    show.rows(rows, shown, title=f"On {recorded.profile.name}", columns=columns)


@show.reports_errors
def error(
    space: device_tables.SpaceName = "v9",
    scale: device_tables.Scale = None,
    candidates: Annotated[
        int, typer.Option(min=2, metavar="N", help="Number of random architectures to build and time.")
    ] = 20,
    runtime: device_tables.RuntimeName = "torch",
    deploy_size: device_tables.DeploySize = device_tables.DEPLOYED_SIZE,
    classes: device_tables.Classes = device_tables.COCO_CLASSES,
    data: device_tables.Data = None,
    threads: device_tables.Threads = 1,
    device: device_tables.Device = "cpu",
    device_name: device_tables.DeviceName = None,
    seed: Seed = 0,
    shown: Shown = "table",
) -> None:
    """Measure how wrong predictions are: build random candidates and time them, alternating with the stock model."""
    from trials.latency import prediction_error

    checked = []
    with device_tables.open_runtime(runtime, threads, device, device_name) as opened:
        recorded = device_tables.read(opened.profile.name)
        asked = device_tables.read_space(space, scale)
        table = device_tables.of_space(asked, recorded, deploy_size=deploy_size, classes=classes, data=data)
        architectures = _sample(asked, candidates, seed)
        with show.progress("timing candidates", "Stopped; nothing was saved.") as show_progress:
            for one in prediction_error.observe(table, opened, architectures):
                checked.append(one)
                show_progress(len(checked), len(architectures))
    accuracy = prediction_error.ErrorSummary.of(checked)
    rows: list[dict[str, Any]] = [
        {
            "fingerprint": one.architecture.fingerprint,
            "predicted_ms": one.predicted_ms,
            "measured_ms": one.measured_ms,
            "error_percent": 100 * one.error,
            "steady": one.steady,
            "summary": one.architecture.summary(),
        }
        for one in checked
    ]
    if shown == "json":
        whole = {"profile": asdict(recorded.profile), **asdict(accuracy), "checked": rows}
        print(json.dumps(whole, indent=1))  # noqa: T201 - this is the output
        return
    columns = {
        "fingerprint": "fingerprint",
        "predicted_ms": "predicted ms",
        "measured_ms": "measured ms",
        "error_percent": "error, %",
        "steady": "steady",
        "summary": "architecture",
    }
    show.rows(rows, shown, title=f"{table.space.at_scale} on {recorded.profile.name}", columns=columns)
    show.lines(
        [
            f"error       median {accuracy.median_error:.1%}, nine of ten within {accuracy.p90_error:.1%}",
            f"bias        {accuracy.bias:+.1%}",
            f"order       Kendall's tau {accuracy.tau:.2f} over {accuracy.candidates} candidates",
            f"steady      {accuracy.steady} of {accuracy.candidates} measurements",
        ]
    )


def _space_of(architecture: "Architecture", asked: "SearchSpace") -> "SearchSpace":
    """Return the given space if the architecture is of its base model, else a space of that base model alone."""
    from search_spaces import SearchSpace

    if (asked.base, asked.scale) == (architecture.base, architecture.scale):
        return asked
    return SearchSpace(name="SPACE", base=architecture.base, scale=architecture.scale, slots=())


def _sample(space: "SearchSpace", count: int, seed: int) -> "list[Architecture]":
    rng = random.Random(seed)  # noqa: S311 - architectures are no secrets
    drawn = (space.sample(rng) for _ in range(100 * count))
    found = {one.fingerprint: one for one in drawn if space.incompatibility(one) is None}
    return list(found.values())[:count]


def _existing(file: Path) -> Path:
    from search_spaces.errors import SpecError

    if not file.is_file():
        raise SpecError(f"{file}: no such file")
    return file
