"""Draw the pictures of the documentation from a stored study: `make docs`, or `python docs/figures/draw.py`.

    python docs/figures/draw.py [--only gains modules front network terminal report mlflow] [--browser chromium]

The study is `v9t-digits.tar.xz`, beside this file: `nas search --space v9` and its `nas confirm`, without weights.
`gains` is drawn from the measurements in `benchmarks/results/recipe-bccd.csv`, `modules` from those in `modules.csv`.
`report` and `mlflow` are pictures of a browser (Chromium or Chrome). Pictures that cannot be drawn are named, with the
reason, and the exit status is 1; the others are drawn nevertheless.
"""

import argparse
import csv
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from browser import BrowserError, browser
from matplotlib import pyplot as plt
from matplotlib.ticker import MultipleLocator
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

import nas
from nas.report.page import network
from nas.report.page.gathering import gather
from nas.report.page.page import render

FOLDER = Path(__file__).parent
MEASURED = FOLDER.parents[1] / "benchmarks" / "results" / "recipe-bccd.csv"
ARCHIVE = FOLDER / "v9t-digits.tar.xz"
STUDY = "v9t-digits"
NAS = (str(Path(sys.executable).with_name("nas")),)
"""The command `nas` of this interpreter's environment."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCHEMES: Mapping[str, Mapping[str, str]] = {
    "light": {"ink": "#1f2937", "grid": "#e5e7eb", "trial": "#9ca3af", "front": "#2563eb", "stock": "#ea580c"},
    "dark": {"ink": "#e5e7eb", "grid": "#374151", "trial": "#6b7280", "front": "#60a5fa", "stock": "#fb923c"},
}
"""Colours of the drawing of a front, which has no background of its own."""
LEGEND = 34
"""Height of the legend of a network, in pixels."""
NETWORK_STYLE = (
    ":root {--ink: #1f2937; --faint: #6b7280; --line: #9ca3af; --grid: #e5e7eb; --page: #fff}"
    "@media (prefers-color-scheme: dark) {"
    ":root {--ink: #e5e7eb; --faint: #9ca3af; --line: #6b7280; --grid: #374151; --page: #14181f}}"
    "text {font: 13px system-ui, sans-serif; text-anchor: middle; fill: var(--ink)} .page {fill: var(--page)}"
    ".index {font-size: 7px; text-anchor: start} .axis {font-size: 12px; text-anchor: start; fill: var(--faint)}"
    ".stock rect {fill: var(--page); stroke: var(--line)} .edge {fill: none; stroke: var(--line)}"
    ".level {stroke: var(--grid)}"
)
"""Colours of a network as a file, in a browser that is asked for light and for dark pages."""
CHARTS_ARE_DRAWN = "document.querySelector('.chart') && !document.querySelector('.chart:not(.js-plotly-plot)')"
CHILDREN_ARE_LISTED = "document.body.innerText.includes('trial-0009')"
"""When the pages of the report and of MLflow are complete, in JavaScript."""
SETTLE_SECONDS = 3.0
WITHOUT_ASSISTANT = {
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
"""Local storage of MLflow's pages: by default, a first visit opens a panel that covers a third of the page."""


class CannotDrawError(Exception):
    """A picture cannot be drawn here; the text says why."""


def gains() -> dict[str, list[float]]:
    """Return points of mAP50-95 over the stock model on BCCD, one for each repeat, by architecture.

    13 random architectures of the space v9 within 5 % of the stock model's GFLOPs, YOLOv9-t at 128 px, 20 epochs from a
    stock model of 60, averaged weights; every repeat has a seed and a stock model of its own.
    """
    with MEASURED.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["way"], row["reading"]) == ("inherit-20", "average-26")]
    scores: dict[str, dict[str, float]] = {}
    for row in rows:
        scores.setdefault(row["summary"], {})[row["seed"]] = 100 * float(row["map50_95"])
    stock = scores.pop("stock")
    return {name: [score - stock[seed] for seed, score in by_seed.items()] for name, by_seed in scores.items()}


def gains_figure(_runs: Path) -> None:
    """Draw what each architecture has over the stock model as `gains-light.svg` and `gains-dark.svg`."""
    found = sorted(gains().items(), key=lambda one: sum(one[1]) / len(one[1]))
    for scheme, colours in SCHEMES.items():
        figure, axes = plt.subplots(figsize=(9.2, 4.4))
        axes.axvline(0, color=colours["stock"], linewidth=1.5, label="stock YOLOv9-t")
        for height, (_, repeats) in enumerate(found):
            axes.plot(repeats, [height] * len(repeats), "o-", color=colours["trial"], markersize=4, linewidth=1)
            axes.plot(sum(repeats) / len(repeats), height, "o", color=colours["front"], markersize=8)
        axes.set_yticks(range(len(found)), [_shortened(name) for name, _ in found], fontsize=8)
        axes.set_xlabel("points of mAP50-95 over the stock model, three repeats and their mean", loc="right")
        axes.xaxis.set_major_locator(MultipleLocator(0.5))
        axes.xaxis.set_major_formatter("{x:+.1f}")
        _colour(axes, colours, legend="lower right")
        _save(figure, f"gains-{scheme}.svg")


def modules_figure(_runs: Path) -> None:
    """Draw what each operator has over the stock model, by place, as `modules-light.svg` and `modules-dark.svg`."""
    sys.path.append(str(FOLDER.parents[1]))
    from benchmarks import modules, modules_table, results_file  # noqa: PLC0415 - they are no package, and import PyTorch

    panels = [rows for rows, _, _ in modules_table.groups(results_file.read(modules.RESULTS, modules_table.Result))]
    if not panels:
        raise CannotDrawError(f"{modules.RESULTS.name} has no model that was trained with all seeds")
    positions = {row.one.label: row.one.position for rows in panels for row in rows}
    labels = sorted(positions, key=lambda label: positions[label], reverse=True)
    for scheme, colours in SCHEMES.items():
        findings = {"better": colours["front"], "worse": colours["stock"]}
        size = (9.2, 1.2 + 0.17 * len(labels))
        figure, every_axes = plt.subplots(ncols=len(panels), sharey=True, squeeze=False, figsize=size)
        for axes, rows in zip(every_axes[0], panels, strict=True):
            stock = rows[0].stock
            axes.set_title(f"{stock.space} {stock.scale}, {stock.data}", fontsize=9, color=colours["ink"])
            axes.axvline(0, color=colours["stock"], linewidth=1.5)
            for row in rows:
                compared, height = row.compared, labels.index(row.one.label)
                colour = findings.get(compared.finding, colours["ink"])
                axes.plot((compared.low, compared.high), (height, height), "-", color=colour, linewidth=1)
                axes.plot(compared.difference, height, "o", color=colour, markersize=4)
            axes.set_yticks(range(len(labels)), labels, fontsize=7)
            axes.set_ylim(-1, len(labels))
            _colour(axes, colours)
        figure.supxlabel(
            "points of mAP50-95 over the stock model (the line), with 95 % intervals",
            x=1,
            ha="right",
            color=colours["ink"],
            fontsize=10,
        )
        _save(figure, f"modules-{scheme}.svg")


def _shortened(name: str, longest: int = 58) -> str:
    return name if len(name) <= longest else f"{name[: longest - 3]}..."


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FOLDER / name, transparent=True, metadata={"Date": None})
    plt.close(figure)


def front(runs: Path) -> None:
    """Draw the Pareto front as `front-light.svg` and `front-dark.svg`."""
    study = nas.open_study(STUDY, runs=runs)
    trials = [record for record in study.records() if record.finished and record.role != "stock"]
    (stock,) = [record for record in study.records() if record.role == "stock"]
    best = sorted((record.gflops, record.map50_95) for record in study.front())
    for scheme, colours in SCHEMES.items():
        figure, axes = plt.subplots(figsize=(7.2, 3.4))
        axes.plot([x.gflops for x in trials], [x.map50_95 for x in trials], "o", color=colours["trial"], label="trial")
        axes.step(*zip(*best, strict=True), where="post", color=colours["front"], linewidth=1.5)
        axes.plot(*zip(*best, strict=True), "o", markersize=8, color=colours["front"], label="Pareto front")
        axes.plot(stock.gflops, stock.map50_95, "*", markersize=15, color=colours["stock"], label="stock YOLOv9-t")
        axes.set_xlabel("GFLOPs at 640 px")
        axes.set_ylabel("mAP50-95")
        _colour(axes, colours)
        _save(figure, f"front-{scheme}.svg")


def _colour(axes: Any, colours: Mapping[str, str], legend: str = "upper right") -> None:
    """Give axes, ticks and legend the colours of a scheme."""
    axes.grid(color=colours["grid"])
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours["ink"])
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(colours["ink"])
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(colours["grid"])
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=colours["ink"], loc=legend)


def drawing(runs: Path) -> None:
    """Draw the network of the front that has the most kinds of operators as `network.svg`."""
    study = nas.open_study(STUDY, runs=runs)
    chosen = max(study.front(), key=lambda record: len({name for choice in record.picks.values() for name in choice}))
    model, classes = study.architecture(chosen), len(study.settings.classes)
    svg = network.drawing(model.document(classes), classes, title="Network")
    operators = dict.fromkeys(name for choice in chosen.picks.values() for name in choice)
    (FOLDER / "network.svg").write_text(_standalone(svg, list(operators)), encoding="utf-8")


def _standalone(svg: str, operators: Sequence[str]) -> str:
    """Return a drawing of a report as a file: with a legend, and with styles for the light and for the dark."""
    found = re.match(r'<svg class="network" role="img" viewBox="0 0 (\d+) (\d+)"[^>]*>', svg)
    if found is None:
        raise CannotDrawError(f"an unexpected drawing: {svg[:100]}")
    width, height = int(found[1]), int(found[2]) + LEGEND
    legend = "".join(
        f'<g class="op-{name}"><rect x="{34 + 130 * place}" y="{height - 24}" width="14" height="14" rx="3"/>'
        f'<text class="axis" x="{54 + 130 * place}" y="{height - 13}">{name}</text></g>'
        for place, name in enumerate(operators)
    )
    colours = "".join(network.style(name) for name in operators)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}">'
        f"<style>{NETWORK_STYLE}{colours}</style>"
        f'<rect class="page" width="{width}" height="{height}"/>'
        f"{svg[found.end() : -len('</svg>')]}{legend}</svg>"
    )


def terminal(runs: Path) -> None:
    """Draw what `nas pareto` prints as `terminal.svg`, without fonts of a network."""
    command = [*NAS, "pareto", STUDY]
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=_above(runs), capture_output=True, text=True, env=environment, check=True)
    console = Console(record=True, width=120, file=io.StringIO())
    lines = (done.stdout + done.stderr).rstrip()
    console.print(Text(f"$ nas pareto {STUDY}\n", style="bold"), Text(lines), sep="")
    svg = console.export_svg(title="", theme=MONOKAI, unique_id="nas")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace")
    (FOLDER / "terminal.svg").write_text(svg, encoding="utf-8")


def _above(runs: Path) -> Path:
    """Return the folder whose `runs/nas` it is: commands that are called there name no folder."""
    return runs.parents[1]


def report(runs: Path, command: str) -> None:
    """Draw the first screens of the report as `report-light.png` and `report-dark.png`.

    The archive has no weights, so the page lacks detections, and the line that says so is left out.
    """
    page = runs / "report.html"
    with chdir(_above(runs)):
        contents = gather(nas.open_study(STUDY))
    if missing := [f"{part}: {why}" for part, why in contents.problems.items() if part != "samples"]:
        raise CannotDrawError("; ".join(missing))
    page.write_text(render(replace(contents, problems={})), encoding="utf-8")
    for scheme in SCHEMES:
        out = FOLDER / f"report-{scheme}.png"
        _screenshot(command, page.as_uri(), out, (1100, 1480), until=CHARTS_ARE_DRAWN, dark=scheme == "dark")


def mlflow(runs: Path, command: str) -> None:
    """Draw MLflow's page of the study's run as `mlflow.png`."""
    subprocess.run([*NAS, "sync", STUDY], cwd=_above(runs), check=True)
    with _server(runs) as address:
        out = FOLDER / "mlflow.png"
        _screenshot(command, f"{address}/{_run_page(address)}", out, (1400, 1250), until=CHILDREN_ARE_LISTED)


def _run_page(address: str) -> str:
    """Return the page of the study's run, below the server's address."""
    import mlflow as client  # noqa: PLC0415 - it takes seconds, and most pictures do not need it

    client.set_tracking_uri(address)
    (run,) = client.search_runs(
        search_all_experiments=True, filter_string=f"run_name = '{STUDY}'", output_format="list"
    )
    return f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"


@contextmanager
def _server(runs: Path) -> Iterator[str]:
    """Start `nas ui`, and end it afterwards; yield its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*NAS, "ui", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=_above(runs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0
    )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotDrawError("nas ui does not answer")
            time.sleep(1)
        yield address
    finally:
        process.terminate()  # `nas ui` ends its server
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:  # noqa: S310 - an address of ours
            return bool(reply.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _screenshot(
    command: str, address: str, out: Path, size: tuple[int, int], *, until: str, dark: bool = False
) -> None:
    """Write a picture of a page that is complete, in 256 colours, which is a third of the size."""
    from PIL import Image  # noqa: PLC0415 - the other pictures do not need it

    with browser(command) as opened:
        opened.open(address, size, until=until, dark=dark, stored=WITHOUT_ASSISTANT)
        time.sleep(SETTLE_SECONDS)
        Image.open(io.BytesIO(opened.screenshot())).convert("RGB").quantize(256).save(out, optimize=True)


WITHOUT_BROWSER: Mapping[str, Callable[[Path], None]] = {
    "gains": gains_figure,
    "modules": modules_figure,
    "front": front,
    "network": drawing,
    "terminal": terminal,
}
WITH_BROWSER: Mapping[str, Callable[[Path, str], None]] = {"report": report, "mlflow": mlflow}


def main(options: argparse.Namespace) -> None:
    """Draw the pictures; exit with status 1 if one could not be drawn."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "nas"  # the same file each time
    browser = options.browser or next(filter(None, map(shutil.which, BROWSERS)), None)
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        runs = Path(folder) / "runs" / "nas"
        for name in options.only:
            try:
                _draw(name, runs, browser)
            except (CannotDrawError, BrowserError, subprocess.SubprocessError, OSError) as error:
                missing[name] = str(error)
            else:
                print(f"drawn: {name}", flush=True)
    for name, reason in missing.items():
        print(f"not drawn: {name} ({reason})", file=sys.stderr)
    sys.exit(bool(missing))


def _draw(name: str, runs: Path, browser: str | None) -> None:
    if name in WITHOUT_BROWSER:
        WITHOUT_BROWSER[name](runs)
    elif browser is None:
        raise CannotDrawError(f"no browser: install one of {', '.join(BROWSERS)}, or give --browser")
    else:
        WITH_BROWSER[name](runs, browser)


if __name__ == "__main__":
    every = [*WITHOUT_BROWSER, *WITH_BROWSER]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=every, default=every, help="pictures to draw")
    parser.add_argument("--browser", help="command of Chromium or Chrome")
    main(parser.parse_args())
