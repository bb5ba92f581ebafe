"""`nas export`: the model of a trial, in formats that run elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.cli import fronts, measured_files, opening, show
from nas.cli.measured_files import CalibrationImages, CalibrationSeed, Threads
from nas.cli.options import Name, Runs, TextFormat, Trust
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.study.export import Exported
    from nas.study.study import Study

Best = Annotated[
    Literal["map", "knee", "cheapest"] | None,
    typer.Option(
        help="Model of the Pareto front: map is the most accurate, cheapest the one with the least cost, knee the best "
        "compromise. \\[default: map]"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(context_settings={"allow_extra_args": True})(export)


@show.reports_errors
def export(
    context: typer.Context,
    study: Name,
    trial: Annotated[int | None, typer.Option(metavar="N", help="Export this trial instead of the best.")] = None,
    best: Best = None,
    standalone: Annotated[
        bool,
        typer.Option(
            "--standalone",
            help="Also write the folder standalone: modules.py with the operators, for an Ultralytics without nas.",
        ),
    ] = False,
    formats: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Also write these formats of Ultralytics: onnx, openvino, torchscript, ncnn, engine and others. Each "
            "is compared with PyTorch where its runtime is installed.",
        ),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check", help="Measure mAP50-95 of each format on the validation images, too.")
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Write the formats onnx, openvino and engine in these precisions instead, as the files that a "
            "latency table times: fp32, fp16, int8. With --check one table has mAP, latency and size of each file.",
        ),
    ] = "",
    calibration: CalibrationImages = 64,
    calibration_seed: CalibrationSeed = 0,
    threads: Threads = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write. \\[default: a folder inside the study's]")
    ] = None,
    registered: Annotated[
        str | None,
        typer.Option(
            "--register",
            metavar="NAME",
            help="Register the model in MLflow, too, under this name, as its first or next version.",
        ),
    ] = None,
    trust: Trust = False,
    runs: Runs = RUNS,
    shown: TextFormat = "text",
) -> None:
    """Export the model of a trial: model.yaml, weights.pt, data.yaml, summary.json and a model card.

      nas export v9t-digits --best map --standalone
      nas export v9t-digits --trial 4 --formats onnx,openvino --check imgsz=128
      nas export v9t-digits --trial 4 --formats onnx,openvino --precision fp32,int8 --check imgsz=128

    Arguments of Ultralytics' export may follow: imgsz=320 quantize=16 device=0.
    """
    with show.err.status("loading Ultralytics' exporters"):
        from nas.deployment.formats import read_arguments, require_formats
        from search_spaces.errors import SpecError

    names = require_formats([name.strip() for name in formats.split(",") if name.strip()])
    arguments = read_arguments(context.args)
    if not names and (check or arguments or precision):
        asked = "--check" if check else "--precision" if precision else context.args[0]
        raise SpecError(f"{asked}: of which format? (--formats onnx)")
    if precision:
        wanted = measured_files.wanted(
            formats, precision, arguments, check=check, threads=threads, images=calibration, seed=calibration_seed
        )
        names, arguments, check = (), {}, False
    opened = opening.opened(study, runs, trust=trust)
    with show.err.status("reading the study") as status:
        exported = opened.export(
            trial=trial,
            best=best,
            folder=out,
            standalone=standalone,
            formats=names,
            check=check,
            arguments=arguments,
            on_step=status.update,
        )
    files = measured_files.measure(opened, exported, wanted) if precision else []
    show.result(str(exported.folder), {**exported.as_document(), **measured_files.document(files)}, shown)
    show.lines([*_lines(exported, standalone=standalone), *fronts.nothing_learned(opened)])
    measured_files.show_table(files)
    if registered is not None:
        _register(opened, exported, registered)
    blank = exported.torch_accuracy is not None and exported.torch_accuracy.tells_nothing
    if blank or any(one.problem for one in exported.formats) or any(one.path is None for one in files):
        raise typer.Exit(show.NEGATIVE)


def _register(study: "Study", exported: "Exported", name: str) -> None:
    """Register an exported model in MLflow, and print its version."""
    from nas.workflows import running
    from search_spaces.errors import StudyError

    if exported.weights is None:
        raise StudyError(f"register: the weights of trial {exported.record.trial} were not saved")
    with show.err.status("writing into MLflow"):
        version = running.register(study, exported.record.trial, name)
    show.lines([f"registered:   {name}, version {version}: mlflow.pyfunc.load_model('models:/{name}/{version}')"])


def _lines(exported: "Exported", *, standalone: bool) -> list[str]:
    """Return what was exported, and what can be done with it, in lines."""
    record = exported.record
    accuracy, gflops = show.figure("map50_95", record.map50_95), show.figure("gflops", record.gflops)
    if exported.mean.seeds > 1:
        mean = show.figure("map50_95", exported.mean.map50_95)
        accuracy = f"{accuracy} with its seed, {mean} as the mean of {exported.mean.seeds} seeds"
    lines = [
        f"trial {record.trial}: mAP50-95 {accuracy}, {gflops} GFLOPs: {record.summary}",
        f"train it in full:   {exported.train}",
    ]
    if exported.weights is None:
        lines += ["its weights were not saved (those of the front, the stock model and the last few trials are)"]
        lines += [f"train it as the trial did:   {exported.retrain}"]
    return [*lines, *_standalone_lines(exported, wanted=standalone), *_format_lines(exported)]


def _standalone_lines(exported: "Exported", *, wanted: bool) -> list[str]:
    if not wanted:
        return []
    if exported.standalone is None:
        return ["standalone: it has layers of Ultralytics only, so weights.pt and model.yaml need nothing else"]
    from nas.deployment.standalone import LINES, LINES_WITHOUT_WEIGHTS

    lines = LINES if exported.weights is not None else LINES_WITHOUT_WEIGHTS
    return [f"with Ultralytics alone, in {exported.standalone}:", *(f"    {line}" for line in lines.splitlines())]


def _format_lines(exported: "Exported") -> list[str]:
    lines = [f"{one.name}: {one.finding}{f': {one.path}' if one.path else ''}" for one in exported.formats]
    if (torch := exported.torch_accuracy) is not None:
        measured = [f"{one.name} {one.map50_95:.4f}" for one in exported.formats if one.map50_95 is not None]
        of_all = ", ".join([f"PyTorch {torch.map50_95:.4f}", *measured])
        lines += [f"mAP50-95 on the validation images, at {torch.size} px: {of_all}", *filter(None, [torch.remark])]
    return lines
