"""Options of a search, each declared once.

The flags of `nas search` follow from these fields, those that other commands share with it, the parameters of
`nas.search`, its docstring, and the table in docs/options.md. Which numbers are allowed stands in `nas.ranges`.
"""

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Self

from nas import ranges, spelling
from nas.paths import RUNS
from nas.workflows.option import Option, Unit, problems
from nas.workflows.presets import (
    DEMONSTRATION,
    FEW_IMAGES,
    MOST_VALIDATION_IMAGES,
    PRESETS,
    USUAL,
    Preset,
)

_INSTEAD = {"epochs": "--base-epochs sets the length of the trainings", "base-epochs": "one epoch or more"}
"""What to give instead of options that have no meaning where only stock models are trained."""

FilePath = str | os.PathLike[str]

DEMONSTRATION_DATA = "digits"
DEMONSTRATION_TRIALS, USUAL_TRIALS = 10, 30
DEFAULT_SPACE = "v9"
SMALLEST = "v5n,v8n,v9t,v10n,v11n,v12n,v26n"
"""All families at their smallest scale."""
DATA_SETS = (
    f"{DEMONSTRATION_DATA} (small and built in, to try the tool), the path of an Ultralytics data.yaml, or a name such "
    "as coco8.yaml"
)
PRETRAINED = "pretrained"
"""In the place of a checkpoint's path: the one that Ultralytics has released for the base model."""
BATCH, DEPLOY_SIZE, MOST_WORKERS = 8, 640, 4
AUTO = "auto"

_START = "Space, data and starting weights"
_TRIALS = "Trials and machine"
_TRAINING = "Training"
_STOPPING = "Early stopping and repeats"
_OBJECTIVES = "Objectives and proposals"
_LIMITS = "Limits on candidates"
_FILES = "Study and files"


def _of_presets(number: Callable[[Preset], int]) -> str:
    return ", ".join(f"{name} {number(preset)}" for name, preset in PRESETS.items())


def either(demonstration: object, usual: object) -> str:
    """Return the text of a default that is another one for the built-in digits."""
    return f"{demonstration} for {DEMONSTRATION_DATA}, else {usual}"


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Everything that can be set for a search; None stands for the default that fits the data and the machine."""

    space: Annotated[
        FilePath | None,
        Option(
            help="Search space: a name from `nas spaces` such as v8, with a scale such as v8n, or the path of your own "
            "space file. Several are searched together: v8n,v9t,v11n, or a file with members.",
            panel=_START,
            metavar="SPACE",
            unset=f"{DEFAULT_SPACE}, or the refined one",
        ),
    ] = None
    scale: Annotated[
        str | None,
        Option(
            help="Size of the base model: t, s, m, c or e for YOLOv9, n, s, m, l or x for most others.",
            panel=_START,
            metavar="SCALE",
            unset="as in the space file",
        ),
    ] = None
    modules: Annotated[
        tuple[str, ...] | list[str] | None,
        Option(
            help="Python files, or folders of them, with operators and layers of your own, besides those that the "
            "space file names. Separated by commas.",
            panel=_START,
            metavar="FILE",
        ),
    ] = None
    refine: Annotated[
        str | None,
        Option(
            help="Instead of a space: search around the Pareto front of this earlier study, with the operators found "
            "there, every layer on its own, and all useful parameter values. The front is trained first.",
            panel=_START,
            metavar="STUDY",
        ),
    ] = None
    stock_only: Annotated[
        bool,
        Option(
            help="Train only the stock models of several spaces, and say which of them is best at which cost. Without "
            "--space these are all families at their smallest scale.",
            panel=_START,
        ),
    ] = False
    data: Annotated[
        FilePath | None,
        Option(
            help=f"Data set: {DATA_SETS}.",
            panel=_START,
            metavar="DATA",
            unset="digits, or the data set of the refined study",
        ),
    ] = None
    holdout: Annotated[
        float | None,
        Option(
            help="Seal a random share of the images of train and of val before the search, stratified by class and "
            "drawn by the seed. No training and no score reads them; `nas confirm` judges by them.",
            panel=_START,
            unit=Unit.SHARE,
            unset="none are sealed; `nas confirm` judges by the data set's test split if it has one",
        ),
    ] = None
    weights: Annotated[
        FilePath | None,
        Option(
            help="Checkpoint from which the training of the stock model (the unchanged YOLO) starts, such as "
            f"yolov9t.pt; or `{PRETRAINED}`: the one that Ultralytics has released for the base model and scale, which "
            "is fetched once if it is not here.",
            panel=_START,
            metavar="FILE.pt",
            unset="random weights",
        ),
    ] = None
    from_scratch: Annotated[
        bool,
        Option(
            help="Train every candidate from random weights, instead of from the trained stock model.", panel=_START
        ),
    ] = False
    trials: Annotated[
        int | None,
        Option(
            help="Number of trials in total, including those that a resumed study already has. A trial trains and "
            "scores one architecture.",
            panel=_TRIALS,
            metavar="N",
            unset=either(DEMONSTRATION_TRIALS, USUAL_TRIALS),
        ),
    ] = None
    hours: Annotated[
        float | None,
        Option(
            help="Choose the number of trials so that the search ends within so many hours: by timed trainings, at "
            "least 12 and at most 200. Where 12 do not fit, the epochs shrink, to a quarter of the preset's at the "
            "least. What is given stays; no trial begins after that time.",
            panel=_TRIALS,
            metavar="H",
            unset="no limit",
        ),
    ] = None
    timeout: Annotated[
        float | None,
        Option(
            help="Start no further trial after this time.",
            panel=_TRIALS,
            unit=Unit.TIME,
            unset="no limit",
        ),
    ] = None
    trial_timeout: Annotated[
        float | None,
        Option(help="Stop the training of a trial after this time.", panel=_TRIALS, unit=Unit.TIME, unset="no limit"),
    ] = None
    trial_memory: Annotated[
        int | None,
        Option(
            help="Main memory (RAM) that the trials of one worker may use.",
            panel=_TRIALS,
            unit=Unit.MEMORY,
            unset="an equal share of the free memory",
        ),
    ] = None
    workers: Annotated[
        int | None,
        Option(
            help="Number of worker processes; each trains one candidate at a time.",
            panel=_TRIALS,
            metavar="N",
            unset=f"one per GPU, or one per CPU core, at most {MOST_WORKERS}",
        ),
    ] = None
    device: Annotated[
        str | None,
        Option(
            help="Where to train: cpu, or indices of GPUs such as 0 or 0,1.",
            panel=_TRIALS,
            metavar="DEVICE",
            unset="GPU 0, or cpu if there is no GPU",
        ),
    ] = None
    workers_per_device: Annotated[
        int | Literal["auto"] | None,
        Option(
            help="Trials that train on each GPU at once. Small models leave most of a large GPU idle. auto: 1, 2, 4 "
            "or 8, as long as twice as many train at least 10 % more images a second and fit into memory, by timed "
            "trainings.",
            panel=_TRIALS,
            unit=Unit.WORKERS,
            unset="1",
        ),
    ] = None
    ray: Annotated[
        str | None,
        Option(
            help="Train on a Ray cluster, at this address: auto, or ray://head:10001. Ray places `--workers` workers "
            "on its nodes, and restarts those whose node is lost. The storage must be PostgreSQL.",
            panel=_TRIALS,
            metavar="ADDRESS",
            unset="on this machine",
        ),
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        Option(
            help="GPUs of each worker on a Ray cluster: 1, a share such as 0.5, or 0 to train on the CPU.",
            panel=_TRIALS,
            metavar="N",
            unset="0",
        ),
    ] = None
    cache: Annotated[
        bool,
        Option(
            help="Reuse the score of an identical training in another study, instead of training again.",
            off="Train again what another study has trained in exactly the same way, instead of reusing its score.",
            panel=_TRIALS,
        ),
    ] = True
    preset: Annotated[
        Literal["quick", "standard", "thorough"] | None,
        Option(
            help="Amount of training: quick, standard or thorough. It sets the epochs, the training image size and, of "
            "large data sets, the fraction that are not given.",
            panel=_TRAINING,
            metavar="NAME",
            unset=either(DEMONSTRATION, USUAL),
        ),
    ] = None
    fraction: Annotated[
        float | None,
        Option(
            help="Train on this share of the training images: the same ones in all trials, chosen by class and by the "
            "seed; a smaller share is a part of a larger one. 1 takes all.",
            panel=_TRAINING,
            unit=Unit.SHARE,
            unset="all, but at most " + _of_presets(lambda preset: preset.most_images),
        ),
    ] = None
    val_images: Annotated[
        int | None,
        Option(
            help="Validate trials on at most so many images, chosen in the same way. `nas confirm` judges by all.",
            panel=_TRAINING,
            metavar="N",
            unset=str(MOST_VALIDATION_IMAGES),
        ),
    ] = None
    epochs: Annotated[
        int | None,
        Option(
            help="Epochs of each trial.",
            panel=_TRAINING,
            metavar="N",
            unset=f"{_of_presets(lambda preset: preset.epochs)}; from scratch "
            + ", ".join(str(preset.scratch_epochs) for preset in PRESETS.values())
            + f"; fewer for more than {FEW_IMAGES} images",
        ),
    ] = None
    base_epochs: Annotated[
        int | None,
        Option(
            help="Epochs of the stock model. It is trained once, and every trial starts from its weights; with 0 it "
            "is not trained, and trials start from the given weights.",
            panel=_TRAINING,
            metavar="N",
            unset=f"{_of_presets(lambda preset: preset.base_epochs)}; fewer for more than {FEW_IMAGES} images",
        ),
    ] = None
    calibrate: Annotated[
        bool,
        Option(
            help="First measure, with the stock model and two neighbours (of several spaces, each stock model and a "
            "neighbour), how noisy scores are and how much the stock "
            "model still gains; set --epochs, --base-epochs and --seeds from that, to at most 4 times the preset's "
            "epochs and 3 seeds.",
            panel=_TRAINING,
        ),
    ] = False
    image_size: Annotated[
        int | None,
        Option(
            help="Image size in training, in pixels; a multiple of 32.",
            panel=_TRAINING,
            metavar="PX",
            unset=_of_presets(lambda preset: preset.image_size),
        ),
    ] = None
    batch: Annotated[
        int | Literal["auto"] | None,
        Option(
            help="Images per training step. auto: the largest power of two, up to 64, at which the costliest "
            "architecture fits into memory and trials have enough steps; the learning rate grows with its root.",
            panel=_TRAINING,
            unit=Unit.BATCH,
            unset=f"auto on a GPU, {BATCH} on the CPU",
        ),
    ] = None
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        Option(
            help="Number format of the computation in training: fp32, bf16, or on a GPU fp16. Some CPUs have bf16, "
            "too; `nas doctor` shows it.",
            panel=_TRAINING,
            metavar="NAME",
            unset="bf16 on a GPU that supports it, fp16 on an older one with tensor cores, else fp32; fp32 on a Ray "
            "cluster, whose GPUs are not known before",
        ),
    ] = None
    deterministic: Annotated[
        bool,
        Option(
            help="Train on a GPU with kernels whose results repeat to the bit, which is slower; operators of your own "
            "must have such kernels, too. A CPU repeats to the bit anyway.",
            panel=_TRAINING,
        ),
    ] = False
    seed: Annotated[
        int, Option(help="Random seed of weights, image order and proposals.", panel=_TRAINING, metavar="N")
    ] = 0
    eta: Annotated[
        int | None,
        Option(
            help="Stop weak trainings early: at each rung about one in N continues, compared with models that cost no "
            "more. Each rung lies N times as many epochs away as the one before. A usual value is 3.",
            panel=_STOPPING,
            metavar="N",
            unset="no early stopping",
        ),
    ] = None
    first_rung: Annotated[
        int | None,
        Option(
            help="Epoch of the first rung, after which trainings are first compared.",
            panel=_STOPPING,
            metavar="N",
            unset="1",
        ),
    ] = None
    seeds: Annotated[
        int,
        Option(
            help="Number of seeds with which the stock model and each member of the Pareto front are trained. "
            "Repeats count as trials; the front is computed from the means.",
            panel=_STOPPING,
            metavar="N",
        ),
    ] = 1
    objectives: Annotated[
        tuple[str, ...] | list[str],
        Option(
            help="Scores that span the Pareto front, out of map50_95, map50, gflops, params and latency_ms.",
            panel=_OBJECTIVES,
            metavar="NAME,NAME",
        ),
    ] = ("map50_95", "gflops")
    deploy_size: Annotated[
        int | None,
        Option(
            help="Image size for which GFLOPs and latency are computed, in pixels; a multiple of 32.",
            panel=_OBJECTIVES,
            metavar="PX",
            unset=str(DEPLOY_SIZE),
        ),
    ] = None
    latency: Annotated[
        str | None,
        Option(
            help="Predict latencies from the table of this device, which `nas latency record` makes; the Pareto front "
            "is measured after the search.",
            panel=_OBJECTIVES,
            metavar="DEVICE",
            unset="measured in each trial, if latency is an objective, a target or a limit",
        ),
    ] = None
    reward: Annotated[
        Literal["tunas", "mnasnet", "mnasnet-hard", "linear"] | None,
        Option(
            help="Maximise one number instead of a Pareto front: the accuracy, with a penalty for missing the target "
            "cost. tunas, mnasnet, mnasnet-hard or linear.",
            panel=_OBJECTIVES,
            metavar="NAME",
            unset="a Pareto front",
        ),
    ] = None
    target_gflops: Annotated[
        float | None, Option(help="Target of the reward, in GFLOPs.", panel=_OBJECTIVES, metavar="X")
    ] = None
    target_latency: Annotated[
        float | None, Option(help="Target of the reward, in milliseconds per image.", panel=_OBJECTIVES, metavar="MS")
    ] = None
    sampler: Annotated[
        Literal["ours", "tpe", "nsga2", "gp", "random"],
        Option(
            help="Method that proposes architectures: ours (a Gaussian process predicts accuracy, costs are exact), "
            "Optuna's tpe, nsga2 or gp (gp needs seconds per proposal), or random for comparison.",
            panel=_OBJECTIVES,
            metavar="NAME",
        ),
    ] = "ours"
    max_gflops: Annotated[
        float | None,
        Option(help="Train no candidate with more GFLOPs than this.", panel=_LIMITS, metavar="X", unset="no limit"),
    ] = None
    max_params: Annotated[
        int | None,
        Option(
            help="Train no candidate with more parameters than this.",
            panel=_LIMITS,
            unit=Unit.COUNT,
            unset="no limit",
        ),
    ] = None
    max_latency: Annotated[
        float | None,
        Option(
            help="Train no candidate with a higher latency than this, in milliseconds per image.",
            panel=_LIMITS,
            metavar="MS",
            unset="no limit",
        ),
    ] = None
    study: Annotated[
        str | None,
        Option(
            help="Name of the study. A study of this name with the same settings is resumed.",
            panel=_FILES,
            metavar="NAME",
            unset="made of the space and the data set",
        ),
    ] = None
    storage: Annotated[
        str | None,
        Option(
            help="Address of a database for Optuna's trials, such as postgresql://user@machine/name.",
            panel=_FILES,
            metavar="ADDRESS",
            unset="a file in the folder of the study",
        ),
    ] = None
    system_metrics: Annotated[
        bool,
        Option(
            help="Log the load of this machine in MLflow: processor, memory, disk, network, GPUs.",
            panel=_FILES,
        ),
    ] = False
    runs: Annotated[FilePath, Option(help="Folder of all studies.", panel=_FILES, metavar="FOLDER")] = RUNS

    def __post_init__(self) -> None:
        """Check every value by itself; what depends on space, data or machine is checked later.

        Raises:
            SpecError: with every value that cannot be right; no such space.
        """
        from search_spaces.errors import SpecError  # noqa: PLC0415 - the help needs none
        from search_spaces.space_names import require_files  # noqa: PLC0415 - the same

        mistakes = problems(self)
        if self.space is not None and self.refine is None and not any(one.startswith("space:") for one in mistakes):
            try:
                require_files(self.space)
            except SpecError as error:
                mistakes += error.mistakes
        mistakes += self._beside_stock_only() if self.stock_only is True else []
        if self.calibrate is True:
            given = {
                "epochs": self.epochs is not None,
                "base-epochs": self.base_epochs is not None,
                "hours": self.hours is not None,
            }
            mistakes += [
                f"calibrate: it sets --{name}, which was given as well (leave one of the two out)"
                for name, is_given in given.items()
                if is_given
            ]
        if mistakes:
            raise SpecError(mistakes)

    def _beside_stock_only(self) -> list[str]:
        """Return a mistake for each option that has no meaning where only stock models are trained."""
        given = {
            "refine": self.refine is not None,
            "from-scratch": self.from_scratch,
            "trials": self.trials is not None,
            "hours": self.hours is not None,
            "epochs": self.epochs is not None,
            "base-epochs": self.base_epochs == 0,
            "calibrate": self.calibrate,
            "eta": self.eta is not None,
            "seeds": self.seeds != 1,
            "reward": self.reward is not None,
        }
        return [
            f"stock-only: no candidates are trained, so --{name} has no meaning ({_INSTEAD.get(name, 'leave it out')})"
            for name, is_given in given.items()
            if is_given
        ]

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Make options of what a user's program gives by name.

        Raises:
            SpecError: an unknown name, answered with the most similar option; a value that cannot be right.
        """
        from search_spaces.errors import SpecError  # noqa: PLC0415 - the help needs none

        names = [one.name for one in fields(cls)]
        mistakes = [
            f"{name}: nas.search has no such argument, got {ranges.shown(value)} ({instead_of(name, names)})"
            for name, value in options.items()
            if name not in names
        ]
        if mistakes:
            raise SpecError(mistakes)
        return cls(**options)


def instead_of(name: str, names: Collection[str]) -> str:
    """Return what to write instead of an unknown argument of `nas.search`."""
    found = "space" if name == "model" else spelling.nearest_option(name, names)
    return f"did you mean {found!r}?" if found else "help(nas.search) lists them"
