"""Float32 and int8 of five members of a front on ONNX Runtime and OpenVINO: mAP, latency, size; predicted, measured.

    python benchmarks/quantized.py --study runs/nas/v9t-digits --trials 0,1,4,8,9 --work /tmp/quantized
    python benchmarks/quantized.py --study ... --work ... --clock cpu    in CPU time, on a machine that others use
    python benchmarks/quantized.py --study ... --work ... --retime       the latencies once more, on an idle machine
    python benchmarks/quantized.py --table                               the table of docs/latency.md, from the results

The members' layers are timed alone. Each member is trained further, from its trial's weights, so that what int8 loses
is not hidden by noise. Its files are written and scored, and each is timed in turns with the stock model's. Every
figure is in the results as soon as it is known; the same command goes on from there.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ultralytics import YOLO

from nas.deployment import artefacts, formats
from nas.study.study import Study
from search_spaces import Architecture
from search_spaces.files import write_atomically
from search_spaces.joined_space import require_one
from trials.data import calibration_images, datasets, image_files
from trials.latency import latency_table
from trials.latency.backends import BACKENDS, ExecutionSettings
from trials.latency.deployed import DeployedGraph
from trials.latency.latency_table import LatencyTable, Workload
from trials.latency.precision import Calibration
from trials.latency.runtimes import LocalRuntime
from trials.latency.timings import Timings

RESULTS = Path(__file__).parent / "results" / "quantized.csv"
RUNTIMES, PRECISIONS = ("onnxruntime", "openvino"), ("fp32", "int8")
COLUMNS = (
    *("trial", "architecture", "size", "calibration", "runtime", "precision", "torch_map50_95", "map50_95", "bytes"),
    *("predicted_ms", "measured_ms", "steady", "load", "clock"),
)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_RECIPE: dict[str, Any] = {
    **dict.fromkeys(("batch", "nbs"), 8),
    **dict.fromkeys(("mosaic", "fliplr", "workers"), 0),
    **dict.fromkeys(("val", "plots", "amp"), False),
    "optimizer": "AdamW",
    "lr0": 0.003,
    "lrf": 0.02,
    "scale": 0.1,
    "warmup_epochs": 0.5,
    "seed": 1,
    "device": "cpu",
    "exist_ok": True,
}
"""Arguments of `yolo train`."""
Key = tuple[str, str, str]


class Members(LatencyTable):
    """Latency table of a few architectures alone: their layers, the stock model, and the start of a graph."""

    architectures: Sequence[Architecture] = ()

    def workloads(self) -> dict[str, Workload]:
        """Return what predictions of these architectures need, in the order in which it is timed."""
        found = {one.key: one for one in (self.reference, self.stock_model, latency_table.EMPTY_GRAPH)}
        for architecture in (self.space.stock, *self.architectures):
            for workload in self.layers(architecture):
                found.setdefault(workload.key, workload)
        return found


class Results:
    """Rows of the results, written after each change."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[Key, dict[str, str]] = {}
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as stream:
                self.rows = {(row["trial"], row["runtime"], row["precision"]): row for row in csv.DictReader(stream)}

    def update(self, key: Key, **values: Any) -> None:
        """Change a row, and write all."""
        named = dict(zip(("trial", "runtime", "precision"), key, strict=True))
        row = {**dict.fromkeys(COLUMNS, ""), **self.rows.get(key, {}), **named}
        self.rows[key] = row | {
            name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in values.items()
        }
        lines = [",".join(COLUMNS)]
        lines += [",".join(str(one[name]).replace(",", ";") for name in COLUMNS) for one in self.rows.values()]
        write_atomically(self._path, "\n".join(lines) + "\n")


def train(study: Study, trial: int, work: Path, *, epochs: int, size: int, data: Path) -> Path:
    """Train a member further with Ultralytics' trainer, and return its weights."""
    folder = work / f"m{trial:04d}"
    weights, done = folder / "weights" / "last.pt", folder / "done"
    if not done.is_file():
        files = study.files(trial)
        arguments = {
            "model": files.weights.with_name("model.yaml"),
            "pretrained": files.weights,
            "data": data,
            "epochs": epochs,
            "imgsz": size,
            "project": work,
            "name": folder.name,
            **_RECIPE,
        }
        words = [f"{name}={value}" for name, value in arguments.items()]
        with (work / f"{folder.name}.log").open("w", encoding="utf-8") as log:
            command = [str(Path(sys.executable).with_name("nas")), "yolo", "train", *words]
            subprocess.run(command, check=True, stdout=log, stderr=log)
        done.touch()
    return weights


def fused(weights: Path) -> Any:
    """Return a trained model, fused, in eval mode."""
    model: Any = YOLO(weights).model.float().eval()
    model.fuse(verbose=False)
    return model


def settings_of(precision: str, calibration: Calibration) -> ExecutionSettings:
    """Return how a file is run: on one thread."""
    return ExecutionSettings(precision=precision, calibration=calibration)


def score(options: argparse.Namespace, study: Study, results: Results, calibration: Calibration) -> None:
    """Write the files of all members, and measure their mAP."""
    data = Path(study.settings.budget.data)
    images = calibration.chosen(image_files.find(datasets.load(data).train, Path()))
    for trial in options.trials:
        weights = train(study, trial, options.work, epochs=options.epochs, size=options.size, data=data)
        keys = [(str(trial), runtime, precision) for runtime in RUNTIMES for precision in PRECISIONS]
        left = [key for key in keys if not results.rows.get(key, {}).get("map50_95")]
        if not left:
            continue
        torch_map, model = formats.accuracy(weights, data, options.size, end_to_end=False), fused(weights)
        for key in left:
            backend, execution = BACKENDS[key[1]], settings_of(key[2], calibration)
            samples = ([image] for image in calibration_images.samples(images, options.size))
            path = options.work / f"{trial}-{key[1]}-{key[2]}.onnx"
            graph = artefacts.write(model, path, backend, execution=execution, size=options.size, samples=samples)
            module = artefacts.in_runtime(graph, model, backend, execution)
            measured = formats.accuracy(module, data, options.size, end_to_end=False)
            row = {"torch_map50_95": torch_map, "map50_95": measured, "bytes": path.stat().st_size}
            summary = study.architecture(_record(study, trial)).summary()
            results.update(key, architecture=summary, size=options.size, calibration=calibration.text, **row)
            print(*key, f"torch {torch_map:.4f}, file {measured:.4f}", flush=True)


def recorded(
    options: argparse.Namespace, study: Study, calibration: Calibration
) -> dict[tuple[str, str], tuple[LocalRuntime, Members]]:
    """Time the members' layers on each runtime in each precision; what a table has already is not timed again."""
    found = {}
    for runtime in RUNTIMES:
        for precision in PRECISIONS:
            opened = LocalRuntime(BACKENDS[runtime], settings_of(precision, calibration), "benchmark")
            opened.clock = CLOCKS[options.clock]
            path = options.work / f"table-{options.clock}-{runtime}-{precision}.csv"
            if options.retime:
                path.unlink(missing_ok=True)
            nothing = Timings(profile=opened.profile, entries={})
            table = Members(require_one(study.space, "quantized"), len(study.settings.classes), options.size, nothing)
            table.architectures = [study.architecture(_record(study, trial)) for trial in options.trials]
            for step in latency_table.record(table, opened, path):
                print(runtime, precision, f"{step.done}/{step.total}", step.problem, flush=True)
            found[runtime, precision] = opened, table
    return found


def time_files(
    options: argparse.Namespace,
    study: Study,
    results: Results,
    tables: dict[tuple[str, str], tuple[LocalRuntime, Members]],
) -> None:
    """Time the members' files in turns with the stock model."""
    for (runtime, precision), (opened, table) in tables.items():
        stock = table.stock_model.deploy()
        for trial in options.trials:
            key = (str(trial), runtime, precision)
            if results.rows[key]["measured_ms"] and not options.retime:
                continue
            graph = (options.work / f"{trial}-{runtime}-{precision}.onnx").read_bytes()
            compared = opened.compare(DeployedGraph(graph=graph, description=f"trial {trial}"), stock)
            predicted = table.predict(study.architecture(_record(study, trial)))
            figures = {"predicted_ms": predicted, "measured_ms": compared.ratio * table.stock_ms}
            steady, load = "yes" if compared.steady else "no", os.getloadavg()[0]
            results.update(key, **figures, steady=steady, load=round(load, 1), clock=options.clock)
            print(*key, figures, steady, flush=True)


def _record(study: Study, trial: int) -> Any:
    return next(one for one in study.records() if one.trial == trial)


def table_lines(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Yield the results as a table in Markdown, one row for each file, and medians for each runtime and precision."""
    yield "| trial | format | precision | mAP50-95 | less torch | predicted ms | measured ms | error | MB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        difference = float(row["map50_95"]) - float(row["torch_map50_95"])
        cells = [row["trial"], row["runtime"], row["precision"], f"{float(row['map50_95']):.4f}", f"{difference:+.4f}"]
        timed = [row["predicted_ms"], row["measured_ms"]]
        cells += [f"{float(one):.2f}" if one else "-" for one in timed]
        cells += [f"{100 * _error(row):+.0f} %" if all(timed) else "-", f"{int(row['bytes']) / 1e6:.1f}"]
        yield f"| {' | '.join(cells)} |"
    for runtime in RUNTIMES:
        for precision in PRECISIONS:
            errors = [
                abs(_error(row))
                for row in rows
                if (row["runtime"], row["precision"]) == (runtime, precision) and row["measured_ms"]
            ]
            if errors:
                yield f"{runtime} {precision}: median error {statistics.median(errors):.1%}, largest {max(errors):.1%}"


def _error(row: dict[str, str]) -> float:
    return float(row["predicted_ms"]) / float(row["measured_ms"]) - 1


def main(arguments: Sequence[str]) -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, help="folder of a study on digits")
    parser.add_argument("--trials", type=lambda text: [int(word) for word in text.split(",")], default=[0, 1, 4, 8, 9])
    parser.add_argument("--work", type=Path, help="folder for weights, files and tables")
    parser.add_argument("--epochs", type=int, default=12, help="of the further training of each member")
    parser.add_argument("--size", type=int, default=128, help="of images, in pixels")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu leaves out other processes' load")
    parser.add_argument("--retime", action="store_true", help="time everything once more")
    parser.add_argument("--table", action="store_true", help="print the table")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    results = Results(options.results)
    if not options.table:
        options.work.mkdir(parents=True, exist_ok=True)
        study, calibration = Study.open(options.study), Calibration()
        tables = recorded(options, study, calibration)
        score(options, study, results, calibration)
        time_files(options, study, results, tables)
    print("\n".join(table_lines(list(results.rows.values()))))


if __name__ == "__main__":
    main(sys.argv[1:])
