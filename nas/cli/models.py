"""`nas spaces`, `nas models`, `nas cost`, `nas yolo`: what can be built, and what it costs."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nas.cli import show
from nas.cli.options import Modules, Runs, Shown, load_modules
from nas.cli.show import Format
from nas.paths import RUNS

if TYPE_CHECKING:
    from search_spaces import SearchSpace

_COCO_CLASSES = 80
_DEPLOYED_SIZE = 640
_SEEN = 0.05
"""GFLOPs that one decimal shows."""


class _ShowsByDefault(TyperGroup):
    """`nas spaces v9` is `nas spaces show v9`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of that name, else `show` of it."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=_ShowsByDefault, invoke_without_command=True)
    group.callback()(spaces)
    group.command(name="show")(show_space)
    group.command()(derive)
    group.command(name="refine")(refine_space)
    app.add_typer(group, name="spaces")
    app.command()(cost)
    app.command()(models)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
        yolo
    )


@show.told
def spaces(context: typer.Context, shown: Shown = "table") -> None:
    """The search spaces; `nas spaces v9` shows one of them, `nas spaces derive MODEL.yaml` writes one."""
    if context.invoked_subcommand is not None:
        return
    from search_spaces import space_file

    loaded = {name: space_file.load(name) for name in space_file.catalog()}
    rows = [
        {"space": name, "base": found.base, "scale": found.scale, "slots": len(found.slots), "size": found.size}
        for name, found in loaded.items()
    ]
    columns = {"space": "space", "base": "base model", "scale": "scale", "slots": "slots", "words": "architectures"}
    told = [row | {"words": f"{row['size']:.2e}"} for row in rows] if shown == "table" else rows
    show.rows(told, shown, title="Search spaces", columns=columns)


@show.told
def show_space(
    space: Annotated[str, typer.Argument(help="A name from the catalog, or a file.")],
    scale: Annotated[str | None, typer.Option(help="Instead of the space's own.")] = None,
    classes: Annotated[int, typer.Option(min=1, help="That the head tells apart.")] = _COCO_CLASSES,
    deploy_size: Annotated[int | None, typer.Option(help="Of cost, pixels.  [default: 640]")] = None,
    shown: Shown = "table",
) -> None:
    """A space's slots, its size and the costs it can reach."""
    from search_spaces import space_file

    with show.err.status("building and counting every choice"):
        loaded = space_file.load(space, scale=scale)
        whole, slots = _describe(loaded, classes, loaded.image_size or deploy_size or _DEPLOYED_SIZE)
    _print_space(whole, slots, shown, title=f"Search space {loaded.at_scale} ({loaded.hash})")


@show.told
def derive(
    model: Annotated[str, typer.Argument(help="A detection model's YAML, or an Ultralytics name (yolo11s.yaml).")],
    scale: Annotated[str | None, typer.Option(help="By default the one in the name, else the model's first.")] = None,
    modules: Modules = None,
) -> None:
    """Write a space file with every slot of a model: nas spaces derive MODEL.yaml > my_space.yaml."""
    from search_spaces import model_reader
    from search_spaces.derive import derive as derived

    load_modules(modules)
    show.lines(f"note: {note}" for note in model_reader.read_model(model, scale=scale).notes)
    print(derived(model, scale=scale), end="")  # noqa: T201 - this is the output


@show.told
def refine_space(
    study: Annotated[str, typer.Argument(help="A study whose front is worth a closer look.")],
    runs: Runs = RUNS,
) -> None:
    """Write the space around a study's front: nas spaces refine STUDY > fine.yaml. Searched by nas search --refine."""
    from nas.study.folders import existing
    from nas.study.study import Study
    from nas.workflows.refinement import refined_space

    print(refined_space(Study.open(existing(study, runs))), end="")  # noqa: T201 - this is the output


def _describe(space: "SearchSpace", classes: int, deploy_size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A space as a whole, and its slots one by one."""
    from search_spaces import base
    from trials.costing.cost import CostTable, gflops
    from trials.costing.slot_costs import slot_costs

    table = CostTable(space, classes, deploy_size)
    loaded = base.load(space.base, space.scale)
    slots: list[dict[str, Any]] = []
    for slot in space.slots:
        costs = slot_costs(table, slot)
        slots.append(
            {
                "slot": costs.slot,
                "layers": list(costs.layers),
                "section": loaded.section(slot.layer),
                "host": costs.host,
                "stride": loaded.reduction(slot.layer),
                "choices": {operator: len(slot.of(operator)) for operator in slot.operators},
                "gflops": costs.stock_gflops,
                "min_gflops": costs.min_gflops,
                "max_gflops": costs.max_gflops,
            }
        )
    stock = table.cost(space.stock)
    whole = {
        "space": space.name,
        "scale": space.scale,
        "base": space.base,
        "hash": space.hash,
        "size": space.size,
        "classes": classes,
        "image_size": deploy_size,
        "pgi": space.pgi,
        "start": [architecture.as_picks() for architecture in space.start],
        "dials": {factor.name: list(factor.values) for factor in space.scaling_factors},
        "stock": {"gflops": stock.gflops, "params": stock.params},
        "gflops": [gflops(macs) for macs in table.reach(lambda layer: layer.macs)],
        "params": list(table.reach(lambda layer: layer.params)),
    }
    return whole, slots


def _print_space(whole: dict[str, Any], slots: list[dict[str, Any]], shown: Format, *, title: str) -> None:
    if shown == "json":
        print(json.dumps({**whole, "slots": slots}, indent=1))  # noqa: T201 - this is the output
        return
    if shown == "table":
        slots = [
            slot
            | {"choices": "  ".join(f"{name} {n}" for name, n in slot["choices"].items())}
            | ({"slot": f"{slot['slot']} (with {_listed(slot['layers'][1:])})"} if len(slot["layers"]) > 1 else {})
            for slot in slots
        ]
    columns = {
        "slot": "slot",
        "section": "section",
        "host": "host",
        "stride": "1/",
        "choices": "choices",
        "gflops": "GFLOPs",
        "min_gflops": "least",
        "max_gflops": "most",
    }
    show.rows(slots, shown, title=title, columns=columns)
    (least, most), (fewest, largest), stock = whole["gflops"], whole["params"], whole["stock"]
    show.lines(
        [
            *(f"{name:10} {_listed(values)}" for name, values in whole["dials"].items()),
            f"{whole['size']:.3g} architectures in {len(slots)} slots"
            + (f" and {len(whole['dials'])} dials" if whole["dials"] else ""),
            f"deployed, at {whole['image_size']} px, with {whole['classes']} classes:",
            f"stock      {stock['gflops']:.2f} GFLOPs, {stock['params'] / 1e6:.3f} M parameters",
            f"GFLOPs     {least:.2f} to {most:.2f}",
            f"parameters {fewest / 1e6:.3f} M to {largest / 1e6:.3f} M",
            *(["trained    with YOLOv9's auxiliary branch, deployed without"] if whole["pgi"] else []),
        ]
    )


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@show.told
def cost(
    model: Annotated[
        str, typer.Argument(help="A model's YAML in any dialect, or a name: yolov9c.yaml, or one of `nas models`.")
    ],
    image_size: Annotated[int, typer.Option(help="Pixels.")] = 640,
    classes: Annotated[int | None, typer.Option(min=1, help="Instead of the file's `nc`.")] = None,
    scale: Annotated[str | None, typer.Option(help="By default the one in the name, else the model's first.")] = None,
    as_printed: Annotated[
        bool, typer.Option("--as-printed", help="Count what an article prints, mistakes and all, to compare its table.")
    ] = False,
    modules: Modules = None,
    shown: Shown = "table",
) -> None:
    """Exact parameters and GFLOPs of a model, as built and as deployed, layer by layer.

    2 x multiply-adds of convolutions, linear layers, matrix products and the operators' own products. Batch norm and
    activations are not counted. Ultralytics counts them: before fusing, its figure is 0.2 to 2.6 % higher for its own
    models, most for the smallest; fused, the two are equal.

    Files of the YOLOv5 and YOLOv9 repositories and of articles about them are read as they are; where one prints a
    module that is wrong, the right operator is built and a note says what was wrong.
    """
    from search_spaces import model_reader
    from search_spaces.errors import CostError, SpecError
    from trials.costing.cost import gflops, measure

    load_modules(modules)
    reading = model_reader.read_model(model, as_printed=as_printed, scale=scale)
    nc, scale = classes or reading.document["nc"], model_reader.built_scale(reading.document)
    notes = [*_assumed(reading.document), *reading.notes]
    show.lines(f"note: {note}" for note in notes)
    try:
        with show.err.status("counting"):
            built, deployed = (measure(reading.document, nc, image_size, deployed=flag) for flag in (False, True))
            remarks = _remarks(reading.document, nc, image_size)
    except SpecError as error:
        raise error.within(Path(model).name) from None
    except CostError as error:
        raise CostError(f"{Path(model).name}: {error}") from None
    layers = [
        {"index": index, "module": layer.module, "params": layer.params, "gflops": gflops(layer.macs)}
        for index, layer in enumerate(built.layers)
    ]
    if shown == "json":
        whole = {
            "params": built.params,
            "gflops": built.gflops,
            "image_size": image_size,
            "classes": nc,
            "scale": scale,
            "deployed": {"params": deployed.params, "gflops": deployed.gflops},
            **{remark.key: remark.figures for remark in remarks},
            "notes": notes,
            "layers": layers,
        }
        print(json.dumps(whole, indent=1))  # noqa: T201 - this is the output
        return
    if shown == "table":
        layers = [layer | {"params": f"{layer['params']:,}"} for layer in layers]
    columns = {"index": "layer", "module": "module", "params": "params", "gflops": "GFLOPs"}
    named = Path(model).name + (f" at scale {scale}" if scale else "")
    title = f"{named}: {nc} classes, {image_size} px, as {'printed' if as_printed else 'built'}"
    show.rows(layers, shown, title=title, columns=columns)
    without = "fused, without the auxiliary branch" if len(deployed.layers) < len(built.layers) else "fused"
    show.lines(
        [
            f"as {'printed' if as_printed else 'built':7} {built.params:,} parameters, {built.gflops:.3f} GFLOPs",
            f"deployed   {deployed.params:,} parameters, {deployed.gflops:.3f} GFLOPs ({without})",
            *(remark.text for remark in remarks),
        ]
    )


def _assumed(document: dict[str, Any]) -> list[str]:
    """Return the note to show where a model has several scales and neither its name nor an option chooses one."""
    scales = list(document.get("scales") or ())
    if document["scale"] or len(scales) < 2:
        return []
    others = ", ".join(map(str, scales[1:]))
    return [f"counted at {scales[0]}, the first scale of the file's table; --scale takes another ({others})"]


@dataclass(frozen=True, kw_only=True)
class _Remark:
    """Another figure of a model: for programs under a key, for people as a line."""

    key: str
    figures: dict[str, Any]
    text: str


def _remarks(document: dict[str, Any], classes: int, image_size: int) -> list[_Remark]:
    """What is trained where that is more than what is built, and what other counters say."""
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
        missed = " and ".join(f"{value:.1f} in {name}" for name, value in counted.overlooked.items() if value >= _SEEN)
        missed = missed or f"less than {_SEEN} in {' and '.join(counted.overlooked)}"
        text = (
            f"counters   that look at modules alone print {counted.gflops:.1f} GFLOPs as built: they overlook "
            f"{missed}, which the operators compute in their own forward"
        )
        figures = {"gflops": counted.gflops, "overlooked": counted.overlooked}
        remarks.append(_Remark(key="counters", figures=figures, text=text))
    return remarks


@show.told
def models(shown: Shown = "table") -> None:
    """The models that come with this package: those of articles, with the right operators and true figures.

    Each is a file to read and to begin from: nas cost NAME, nas spaces derive NAME, nas yolo train model=NAME.
    """
    from search_spaces import model_reader
    from trials.costing.cost import measure

    found = []
    with show.err.status("counting"):
        for name, path in model_reader.catalog().items():
            document = model_reader.model_document(str(path))
            counted = measure(document, document["nc"], _DEPLOYED_SIZE)
            about = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            figures = {"params": counted.params, "gflops": counted.gflops, "classes": document["nc"]}
            found.append({"model": name, **figures, "about": about, "path": str(path)})
    columns = {"model": "model", "params": "params", "gflops": "GFLOPs", "about": "what it is"}
    show.rows(found, shown, title=f"Models, deployed, at {_DEPLOYED_SIZE} px", columns=columns)


@show.told
def yolo(context: typer.Context) -> None:
    """Ultralytics' own command, with our layers known: `nas yolo train model=best.yaml data=my.yaml`.

    `--modules my_ops.py` brings operators of your own. Nothing that a model or data file asks for is run or downloaded;
    a checkpoint with classes that are neither Ultralytics' nor ours is refused, unless `--trust` vouches for it.

    Trains with YOLOv9's auxiliary branch where the model asks for it or `pgi=True` does. The training of a model that
    `nas export` wrote is in the study's MLflow, under the study. `mlflow=True` asks for Ultralytics' own logging.
    """
    sys.argv[:] = ["yolo", *context.args]  # in place, and first: Ultralytics keeps the list when it is imported
    from ultralytics import cfg

    from nas.workflows.training_log import logged
    from trials.training import full_training, yolo_inputs  # which bring `search_spaces`, so that our layers are known

    arguments, trusted = yolo_inputs.without_trust(yolo_inputs.without_modules(sys.argv))
    sys.argv[:] = full_training.prepare_command(arguments)
    yolo_inputs.require_valid(sys.argv, trusted=trusted)
    yolo_inputs.guard()
    with logged():
        cfg.entrypoint()
