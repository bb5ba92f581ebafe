"""What may be said of a search on the command line, with the help that teaches it."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from nas import ranges
from nas.cli.show import Format
from nas.paths import RUNS

if TYPE_CHECKING:
    from nas.study import study

Value = TypeVar("Value", int, float)
_TOO_LARGE = 1e30
PRESET_EPOCHS = "quick 3, standard 20, thorough 20; from scratch 3, 40, 40"
PRESET_BASE_EPOCHS = "quick 6, standard 60, thorough 60"
PRESET_IMAGE_SIZES = "quick 128, standard 320, thorough 640"
"""As `trials.presets` has them, which a test compares: importing it takes seconds that help should not take."""

_WHAT, _HOW, _WORTH, _LIMITS, _WHERE = "What", "How long and with what", "What counts", "Limits", "Where"


def number(text: str) -> int:
    """`2.5M`, `800k` or `2500000`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    if not match:
        raise typer.BadParameter(f"a number such as 2.5M or 2500000 is expected, got {ranges.shown(text)}")
    counted = round(_finite(match[1]) * {"": 1, "k": 1e3, "m": 1e6}[match[2].lower()])
    return _within("max_params", counted)


def seconds(text: str) -> float:
    """`90`, `90s`, `30m` or `8h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match:
        raise typer.BadParameter(f"a time such as 90s, 30m or 8h is expected, got {ranges.shown(text)}")
    return _within("timeout", _finite(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]])


def size(text: str) -> int:
    """`8G`, `800M` or a number of bytes; binary units."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)(?:i?[bB])?", text.strip())
    if not match:
        raise typer.BadParameter(f"an amount such as 8G or 800M is expected, got {ranges.shown(text)}")
    return round(_finite(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def memory(text: str) -> int:
    """An amount of memory that a trial can be trained in."""
    return _within("trial_memory", size(text))


def _finite(digits: str) -> float:
    """A number that no option is too small for."""
    found = float(digits)
    if found > _TOO_LARGE:
        raise typer.BadParameter(f"input should be a number of fewer digits, got {ranges.shown(digits)}")
    return found


def _within(name: str, value: Value) -> Value:
    problem = ranges.RANGES[name].problem(value)
    if problem is not None:
        raise typer.BadParameter(problem)
    return value


# What many commands take.

Name = Annotated[str, typer.Argument(help="The study's name.")]
Runs = Annotated[Path, typer.Option(help="The folder of all studies.")]
Shown = Annotated[Format, typer.Option("--format", help="For people, or for programs.")]
Modules = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE.py",
        help="Operators of your own that the model names; a model file's own `modules` are not run unless named here.",
    ),
]


def load_modules(files: list[Path] | None) -> None:
    """Add the operators of files that the user names on the command line."""
    from search_spaces.operators import modules

    modules.load_all(map(str, files or ()), None)


def typed(name: str, study: "study.Study", *, named: bool = True) -> str:
    """What to type for a study."""
    runs = study.folder.parent
    where = "" if runs == RUNS.absolute() else f" --runs {shlex.quote(str(runs))}"
    return f"nas {name}{f' {study.name}' if named else ''}{where}"


# What a search takes.

_AS_BEFORE = "\\[default: as before]"

Space = Annotated[str, typer.Option(help="v5, v8, v9 (see [b]nas spaces[/b]), or a space file.", rich_help_panel=_WHAT)]
Scale = Annotated[
    str | None,
    typer.Option(help="t, s, m, c, e or n, s, m, l, x. \\[default: the space's]", rich_help_panel=_WHAT),
]
Refine = Annotated[
    str | None,
    typer.Option(
        metavar="STUDY",
        help="Instead of a space: around what this study's front carries, every layer by itself, with all "
        "worthwhile parameters. Its front is tried first.",
        rich_help_panel=_WHAT,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits (built in), or an Ultralytics data.yaml. \\[default: digits, or the refined study's]",
        rich_help_panel=_WHAT,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="A checkpoint that the stock model's training starts from, such as yolov9t.pt.",
        rich_help_panel=_WHAT,
    ),
]
FromScratch = Annotated[
    bool,
    typer.Option(
        "--from-scratch",
        help="Start every candidate from random weights, not from the trained stock model.",
        rich_help_panel=_WHAT,
    ),
]
Preset = Annotated[
    Literal["quick", "standard", "thorough"] | None,
    typer.Option(
        metavar="NAME",
        help="How much is trained: quick, standard or thorough. \\[default: quick for digits, else standard]",
        rich_help_panel=_HOW,
    ),
]
Study = Annotated[
    str | None, typer.Option(help="The study's name. \\[default: space and data]", rich_help_panel=_WHERE)
]
Trials = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="In all, earlier ones counted. \\[default: 10 for digits, else 30]", rich_help_panel=_HOW
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(parser=seconds, metavar="TIME", help="Begin no trial after 90s, 30m, 8h.", rich_help_panel=_HOW),
]
TrialTimeout = Annotated[
    float | None,
    typer.Option(parser=seconds, metavar="TIME", help="End a trial's training after this.", rich_help_panel=_HOW),
]
TrialMemory = Annotated[
    int | None,
    typer.Option(
        parser=memory,
        metavar="SIZE",
        help="Of the host's, for a worker's trials: 8G, 800M. \\[default: its share of what is free]",
        rich_help_panel=_HOW,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(metavar="N", help=f"Of each trial. \\[default: {PRESET_EPOCHS}]", rich_help_panel=_HOW),
]
BaseEpochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Of the stock model, once, before every trial starts from it; 0 for none. "
        f"\\[default: {PRESET_BASE_EPOCHS}]",
        rich_help_panel=_HOW,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        help=f"Of training, a multiple of 32. \\[default: {PRESET_IMAGE_SIZES}]",
        rich_help_panel=_HOW,
    ),
]
DeploySize = Annotated[
    int | None,
    typer.Option(metavar="PX", help="Of cost and latency, a multiple of 32. \\[default: 640]", rich_help_panel=_WORTH),
]
Batch = Annotated[int | None, typer.Option(metavar="N", help="Images a step. \\[default: 8]", rich_help_panel=_HOW)]
PrecisionName = Literal["fp32", "bf16"]
Precision = Annotated[
    PrecisionName | None,
    typer.Option(
        metavar="NAME",
        help="fp32 or bf16: what trainings compute in; a CPU may have bf16, too (see [b]nas doctor[/b]). "
        "\\[default: bf16 on a GPU that has it, else fp32]",
        rich_help_panel=_HOW,
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of weights, order and proposals.", rich_help_panel=_HOW)]
Workers = Annotated[
    int | None, typer.Option(metavar="N", help="Processes. \\[default: one per core or GPU]", rich_help_panel=_HOW)
]
Device = Annotated[
    str | None, typer.Option(help="cpu, 0, or 0,1. \\[default: a GPU if there is one]", rich_help_panel=_HOW)
]
TrialsAgain = Annotated[
    int | None,
    typer.Option(metavar="N", help=f"In all, earlier ones counted. {_AS_BEFORE}", rich_help_panel=_HOW),
]
WorkersAgain = Annotated[int | None, typer.Option(metavar="N", help=f"Processes. {_AS_BEFORE}", rich_help_panel=_HOW)]
DeviceAgain = Annotated[str | None, typer.Option(help=f"cpu, 0, or 0,1. {_AS_BEFORE}", rich_help_panel=_HOW)]
TrialMemoryAgain = Annotated[
    int | None,
    typer.Option(
        parser=memory,
        metavar="SIZE",
        help=f"Of the host's, for a worker's trials: 8G, 800M. {_AS_BEFORE}",
        rich_help_panel=_HOW,
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Train again what other studies have trained in the very same way, instead of taking its score.",
        rich_help_panel=_HOW,
    ),
]
Objectives = Annotated[
    str,
    typer.Option(
        help="Of map50_95, map50, gflops, params, latency_ms: what spans the front.",
        rich_help_panel=_WORTH,
    ),
]
Reward = Annotated[
    Literal["tunas", "mnasnet", "mnasnet-hard", "linear"] | None,
    typer.Option(
        metavar="NAME",
        help="tunas, mnasnet, mnasnet-hard or linear: one number instead, accuracy with penalties for missing the "
        "targets.",
        rich_help_panel=_WORTH,
    ),
]
Sampler = Annotated[
    Literal["ours", "tpe", "nsga2", "gp", "random"],
    typer.Option(
        metavar="NAME",
        help="Who proposes: ours, which learns accuracy alone since costs are known before; Optuna's multivariate "
        "tpe, nsga2 or gp (seconds a proposal); or random, for comparison.",
        rich_help_panel=_WORTH,
    ),
]
Eta = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Stop trainings early: at each rung the best of so many go on, compared with what costs no more. Such "
        "as 3. \\[default: none is stopped]",
        rich_help_panel=_HOW,
    ),
]
FirstRung = Annotated[
    int | None,
    typer.Option(metavar="N", help="The epoch after which they are first judged. \\[default: 1]", rich_help_panel=_HOW),
]
Seeds = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Train whoever stands on the front, and the stock model, with so many seeds, out of the same number "
        "of trials; the front then goes by the means.",
        rich_help_panel=_HOW,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Predict latencies from this device's table, which [b]nas latency record[/b] makes; the front is "
        "measured afterwards. \\[default: measured in each trial, where they count]",
        rich_help_panel=_WORTH,
    ),
]
TargetGflops = Annotated[float | None, typer.Option(metavar="X", help="For the reward.", rich_help_panel=_WORTH)]
TargetLatency = Annotated[
    float | None, typer.Option(metavar="MS", help="For the reward, milliseconds.", rich_help_panel=_WORTH)
]
MaxGflops = Annotated[float | None, typer.Option(metavar="X", help="Train nothing above.", rich_help_panel=_LIMITS)]
MaxParams = Annotated[
    int | None, typer.Option(parser=number, metavar="N", help="Such as 2.5M.", rich_help_panel=_LIMITS)
]
MaxLatency = Annotated[
    float | None, typer.Option(metavar="MS", help="Milliseconds, on this device.", rich_help_panel=_LIMITS)
]
Storage = Annotated[
    str | None,
    typer.Option(help="Optuna's, such as postgresql://... \\[default: a file]", rich_help_panel=_WHERE),
]
StorageAgain = Annotated[
    str | None,
    typer.Option(help="The study's own, with the password that no file of it holds.", rich_help_panel=_WHERE),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")]
PlanFormat = Annotated[
    Literal["text", "json"], typer.Option("--format", help="Of the plan: lines on stderr, or JSON on stdout.")
]
