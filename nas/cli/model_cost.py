"""`nas cost`: exact parameters and GFLOPs of a model, layer by layer."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import show
from nas.cli.options import Modules, Shown, Typed, load_modules, takes
from nas.cli.show import Format
from nas.workflows.deployment_options import MODEL_SCALE, DeploymentOptions
from nas.workflows.search_options import DEPLOY_SIZE

if TYPE_CHECKING:
    from search_spaces.foreign_files import Translation
    from trials.costing.cost import Cost

_OVERLOOKED = 0.05
"""Fewest GFLOPs that one decimal shows."""

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="YAML file for YOLOv5, YOLOv9 or Ultralytics, or a name: yolov9c.yaml, or one of [b]nas models[/b].",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(metavar="PX", help="Image size, in pixels.", show_default=f"{DEPLOY_SIZE}; of a classifier 224"),
]
AsPrinted = Annotated[
    bool,
    typer.Option(
        "--as-printed", help="Count the model exactly as an article prints it, with its mistakes, to compare tables."
    ),
]


@show.reports_errors
@takes(
    *("classes", "scale"),
    of=DeploymentOptions,
    panels={"classes": "", "scale": ""},
    unset={"classes": "nc in the file", "scale": MODEL_SCALE},
)
def cost(
    model: Model,
    typed: Typed,
    image_size: ImageSize = None,
    as_printed: AsPrinted = False,
    modules: Modules = None,
    shown: Shown = "table",
) -> None:
    """Count the parameters and GFLOPs of a model exactly, as built and as deployed, layer by layer.

    GFLOPs are 2 x multiply-adds of convolutions, linear layers, matrix
    products and the products inside operators. Batch norm and activations are
    not counted. Ultralytics counts them: before fusing, its figure is 0.2 to
    2.6 % higher for its own models, most for the smallest; fused, the two are
    equal.

    Files of the YOLOv5 and YOLOv9 repositories and of articles about them are
    read as they are. If one prints a module that is wrong, the right operator
    is built, and a note says what was wrong. Ultralytics' models of other
    tasks, RT-DETR, YOLO-World and YOLOE are counted, too.

      nas cost yolov9c.yaml --image-size 320
      nas cost article.yaml --as-printed    what the article counted
    """
    with show.err.status("counting"):
        from search_spaces import model_reader
        from trials.costing import other_tasks

        load_modules(modules)
        scale, classes = typed["scale"], typed["classes"]
        reading = model_reader.read_model(model, as_printed=as_printed, scale=scale, or_counted=True)
        notes = [*_assumed_scale(reading.document), *reading.notes]
        show.lines(f"note: {note}" for note in notes)
        name, classes = Path(model).name, classes or reading.document["nc"]
        image_size = image_size or other_tasks.usual_size(reading.document, DEPLOY_SIZE)
        counted = _count(reading, name, classes, image_size, as_printed=as_printed)
        of_layers = [*_users_layers(reading.document), *counted.uncounted]
        show.lines(f"note: {note}" for note in of_layers)
        notes += of_layers
    if shown == "json":
        print(json.dumps(counted.as_json(notes), indent=1))  # noqa: T201 - this is the output
    else:
        counted.print_layers(shown)


@dataclass(frozen=True, kw_only=True)
class _Remark:
    """Another figure of a model: under a key for programs, as a line for people."""

    key: str
    figures: dict[str, Any]
    text: str


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """Model whose parameters and multiply-adds are counted."""

    name: str
    scale: str
    classes: int
    image_size: int
    as_printed: bool
    built: "Cost"
    deployed: "Cost"
    remarks: list[_Remark]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Index, module, parameters and GFLOPs of each layer, as built."""
        from trials.costing.cost import gflops

        return [
            {"index": index, "module": layer.module, "params": layer.params, "gflops": gflops(layer.macs)}
            for index, layer in enumerate(self.built.layers)
        ]

    def as_json(self, notes: list[str]) -> dict[str, Any]:
        """Return everything, for programs."""
        return {
            "params": self.built.params,
            "gflops": self.built.gflops,
            "image_size": self.image_size,
            "classes": self.classes,
            "scale": self.scale,
            "deployed": {"params": self.deployed.params, "gflops": self.deployed.gflops},
            **{remark.key: remark.figures for remark in self.remarks},
            "notes": notes,
            "layers": self.layers,
        }

    def print_layers(self, shown: Format) -> None:
        """Print the layers as a table or as CSV, and the whole model as lines."""
        built, deployed, layers = self.built, self.deployed, self.layers
        if shown == "table":
            layers = [layer | {"params": f"{layer['params']:,}"} for layer in layers]
        columns = {"index": "layer", "module": "module", "params": "params", "gflops": "GFLOPs"}
        name, how = self.name + (f" at scale {self.scale}" if self.scale else ""), self._how
        show.rows(
            layers, shown, title=f"{name}: {self.classes} classes, {self.image_size} px, as {how}", columns=columns
        )
        fused = "fused, without the auxiliary branch" if len(deployed.layers) < len(built.layers) else "fused"
        show.lines(
            [
                f"as {how:7} {built.params:,} parameters, {built.gflops:.3f} GFLOPs",
                f"deployed   {deployed.params:,} parameters, {deployed.gflops:.3f} GFLOPs ({fused})",
                *(remark.text for remark in self.remarks),
            ]
        )

    @property
    def uncounted(self) -> list[str]:
        """Lines on the operations that multiply and that nobody can count, by layer."""
        return [
            f"layer {index}: {self.built.layers[index].module} computes {', '.join(names)}, which is not counted: its "
            "cost is higher"
            for index, names in self.built.uncounted.items()
        ]

    @property
    def _how(self) -> str:
        return "printed" if self.as_printed else "built"


def _count(reading: "Translation", name: str, classes: int, image_size: int, *, as_printed: bool) -> _Counted:
    """Count a model as built and as deployed.

    Raises:
        SpecError: the model cannot be built; the message begins with its name.
        CostError: a layer cannot be counted; likewise.
    """
    from search_spaces import model_checks, model_reader
    from search_spaces.errors import CostError, SpecError
    from trials.costing import other_tasks

    document = reading.document
    is_counted_only = model_checks.is_counted_only(document)
    try:
        built, deployed = (
            other_tasks.measure_any(document, classes, image_size, deployed=flag) for flag in (False, True)
        )
        remarks = [] if is_counted_only else _remarks(document, classes, image_size)
    except SpecError as error:
        raise error.within(name) from None
    except CostError as error:
        raise CostError(f"{name}: {error}") from None
    return _Counted(
        name=name,
        scale=model_reader.built_scale(document),
        classes=classes,
        image_size=image_size,
        as_printed=as_printed,
        built=built,
        deployed=deployed,
        remarks=remarks,
    )


def _users_layers(document: dict[str, Any]) -> list[str]:
    """Return how the layers of users' classes were built, and what `fuse()` leaves; empty if there are none."""
    from search_spaces import build, model_file, placed, user_rows
    from trials.costing.cost import unfolded_norms

    if not any(user_rows.user_class(row) for _, row in model_file.addressed(document)):
        return []
    built = build.skeleton(document, document["nc"])
    left: dict[str, int] = {}
    for layer in built:
        one = placed.PLACED.get(layer)
        if one is not None and one.found.source is not None and (norms := unfolded_norms(layer)):
            left[one.found.name] = left.get(one.found.name, 0) + norms
    listed = ", ".join(f"{name} ({count})" for name, count in left.items())
    reason = "Ultralytics' fuse() folds those of its own Conv alone; GFLOPs do not count them, latency has them"
    return placed.notes(built) + ([f"batch norms that stay when deployed: {listed}; {reason}"] if left else [])


def _assumed_scale(document: dict[str, Any]) -> list[str]:
    """Return a note if a model has several scales and neither its name nor an option chooses one."""
    scales = list(document.get("scales") or ())
    if document["scale"] or len(scales) < 2:
        return []
    others = ", ".join(map(str, scales[1:]))
    return [f"counted at {scales[0]}, the first scale of the file's table; --scale takes another ({others})"]


def _remarks(document: dict[str, Any], classes: int, image_size: int) -> list[_Remark]:
    """Return the cost with the auxiliary branch, if it is trained, and what other counters would print."""
    from search_spaces import auxiliary
    from trials.costing import counters
    from trials.costing.cost import measure

    remarks: list[_Remark] = []
    if document.get("pgi") and not auxiliary.has_auxiliary(document):
        whole = measure(auxiliary.with_branch(document), classes, image_size, deployed=False)
        figures: dict[str, Any] = {"params": whole.params, "gflops": whole.gflops}
        text = f"trained    {whole.params:,} parameters, {whole.gflops:.3f} GFLOPs (with the auxiliary branch)"
        remarks.append(_Remark(key="trained", figures=figures, text=text))
    counted = counters.count(document, classes, image_size)
    if counted.overlooked:
        large = [f"{value:.1f} in {name}" for name, value in counted.overlooked.items() if value >= _OVERLOOKED]
        missed = " and ".join(large) or f"less than {_OVERLOOKED} in {' and '.join(counted.overlooked)}"
        text = (
            f"counters   that look at modules alone print {counted.gflops:.1f} GFLOPs as built: they overlook "
            f"{missed}, which the operators compute in their own forward"
        )
        figures = {"gflops": counted.gflops, "overlooked": counted.overlooked}
        remarks.append(_Remark(key="counters", figures=figures, text=text))
    return remarks
