"""`nas spaces`, `nas models` and `nas yolo`: search spaces, models that come with the package, Ultralytics' command."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nas.cli import completion, model_cost, opening, show
from nas.cli.options import Modules, Runs, Shown, Typed, help_of, load_modules, takes
from nas.cli.show import Format
from nas.paths import RUNS
from nas.workflows.deployment_options import COCO_CLASSES, MODEL_SCALE, DeploymentOptions
from nas.workflows.search_options import DEPLOY_SIZE
from search_spaces.errors import typo_of

if TYPE_CHECKING:
    from search_spaces import SearchSpace

_ONE_PANEL = dict.fromkeys(("scale", "classes", "deploy_size"), "")
"""These commands have few options, without headings."""
_HELP = {"help", "--help", "-h"}
"""Words that ask for help; Ultralytics' command warns of those with dashes."""


class _ShowsByDefault(TyperGroup):
    """Group in which `nas spaces v9` means `nas spaces show v9`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of that name; for any other word, find `show`."""
        name = args[0]
        meant = typo_of(name, self.commands)
        if name not in self.commands and meant and not Path(name).exists():
            ctx.fail(f"no such command or space {name!r} (did you mean {meant!r}?)")
        return super().resolve_command(ctx, args if name in self.commands else ["show", *args])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the commands, and the names of spaces, which may stand in their place."""
        (space,) = (one for one in self.commands["show"].params if one.param_type_name == "argument")
        return [*super().shell_complete(ctx, incomplete), *space.shell_complete(ctx, incomplete)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=_ShowsByDefault, invoke_without_command=True)
    group.callback()(spaces)
    group.command(name="show")(show_space)
    group.command()(derive)
    group.command(name="refine")(refine_space)
    group.command(name="schema")(print_schema)
    app.add_typer(group, name="spaces")
    app.command()(model_cost.cost)
    app.command()(models)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
        yolo
    )


def spaces(context: typer.Context, shown: Shown = "table") -> None:
    """List the search spaces, show one, or write one for another model.

    nas spaces                               those that come along
    nas spaces v9                            one of them: slots, size, costs
    nas spaces derive yolo11n.yaml           one for any detection model
    """
    if context.invoked_subcommand is None:
        _list_spaces(shown)


@show.reports_errors
def _list_spaces(shown: Format) -> None:
    with show.err.status("reading the spaces"):
        from search_spaces import space_file, space_names

        loaded = {name: space_file.load(name) for name in space_names.catalog()}
    rows = [
        {"space": name, "base": found.base, "scale": found.scale, "slots": len(found.slots), "size": found.size}
        for name, found in loaded.items()
    ]
    columns = {name: name for name in ("space", "base", "scale", "slots", "architectures")} | {"base": "base model"}
    cells = [row | {"architectures": f"{row['size']:.2e}"} for row in rows] if shown == "table" else rows
    show.rows(cells, shown, title="Search spaces", columns=columns)


@show.reports_errors
@takes("scale", "classes", "deploy_size", of=DeploymentOptions, panels=_ONE_PANEL)
def show_space(
    space: Annotated[str, typer.Argument(metavar="SPACE", help=help_of("space"), autocompletion=completion.spaces)],
    typed: Typed,
    shown: Shown = "table",
) -> None:
    """Show the slots of a space, its size, and the costs it can reach.

    nas spaces show v9
    nas spaces show mine.yaml --scale s
    """
    from search_spaces import space_names

    space_names.require_files(space)  # before PyTorch is imported
    with show.err.status("building and counting every choice"):
        from search_spaces import joined_file

        loaded = joined_file.load(space, scale=typed["scale"])
        classes, size = typed["classes"] or COCO_CLASSES, loaded.image_size or typed["deploy_size"]
        members = [(member, *_describe(member, classes, size)) for member in loaded.members]
    if len(members) > 1 and shown == "json":
        found = [{**whole, "slots": slots} for _, whole, slots in members]
        document = {"space": loaded.name, "hash": loaded.hash, "size": loaded.size, "members": found}
        print(json.dumps(document, indent=1))  # noqa: T201 - this is the output
        return
    for member, whole, slots in members:
        _print_space(whole, slots, shown, title=f"Search space {member.at_scale} ({member.hash})")
    if len(members) > 1:
        show.lines([f"{loaded.size:.3g} architectures in {len(members)} members ({loaded.hash})"])


@show.reports_errors
@takes("scale", of=DeploymentOptions, panels=_ONE_PANEL, unset={"scale": MODEL_SCALE})
def derive(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="YAML file of a detection model, or a name such as yolo11s.yaml.")
    ],
    typed: Typed,
    modules: Modules = None,
) -> None:
    """Write a space file with every possible slot of a model.

    nas spaces derive yolo11n.yaml > my_space.yaml
    nas search --space my_space.yaml
    """
    scale = typed["scale"]
    with show.err.status("trying every operator in every layer"):
        from search_spaces import model_reader
        from search_spaces.derive import derive as derived

        load_modules(modules)
        show.lines(f"note: {note}" for note in model_reader.read_model(model, scale=scale).notes)
        space = derived(model, scale=scale)
    show.text(space, end="")


@show.reports_errors
def refine_space(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="Name of the study around whose Pareto front to search.")
    ],
    runs: Runs = RUNS,
) -> None:
    """Write the space file that nas search --refine searches.

    nas spaces refine v9t-digits > fine.yaml
    """
    coarse = opening.opened(study, runs)
    with show.err.status("reading its front"):
        from nas.workflows.refinement import refined_space

        text = refined_space(coarse)
    show.text(text, end="")


@show.reports_errors
def print_schema(modules: Modules = None) -> None:
    """Print the JSON Schema of space files, with which an editor completes and checks them.

      nas spaces schema > space.schema.json

    The first line of a space file then names it:
    # yaml-language-server: $schema=space.schema.json
    """
    from search_spaces.json_schema import space_schema

    load_modules(modules)
    show.text(json.dumps(space_schema(), indent=1))


def _describe(space: "SearchSpace", classes: int, deploy_size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return figures of a whole space, and of each of its slots."""
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
    """Print the slots as a table, as CSV or in JSON, and the whole space as lines."""
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
            + (f" and {len(whole['dials'])} scaling factors" if whole["dials"] else ""),
            f"deployed, at {whole['image_size']} px, with {whole['classes']} classes:",
            f"stock      {stock['gflops']:.2f} GFLOPs, {stock['params'] / 1e6:.3f} M parameters",
            f"GFLOPs     {least:.2f} to {most:.2f}",
            f"parameters {fewest / 1e6:.3f} M to {largest / 1e6:.3f} M",
            *(["trained    with YOLOv9's auxiliary branch, deployed without"] if whole["pgi"] else []),
        ]
    )


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


@show.reports_errors
def models(shown: Shown = "table") -> None:
    """List the models that come with this package: those of articles, with the right operators and exact costs.

    Use their names as: nas cost NAME, nas spaces derive NAME, nas yolo train
    model=NAME.

      nas models
    """
    found = []
    with show.err.status("counting"):
        from search_spaces import model_reader
        from trials.costing.cost import measure

        for name, path in model_reader.catalog().items():
            document = model_reader.model_document(str(path))
            counted = measure(document, document["nc"], DEPLOY_SIZE)
            about = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
            figures = {"params": counted.params, "gflops": counted.gflops, "classes": document["nc"]}
            found.append({"model": name, **figures, "about": about, "path": str(path)})
    columns = {"model": "model", "params": "params", "gflops": "GFLOPs", "about": "what it is"}
    show.rows(found, shown, title=f"Models, deployed, at {DEPLOY_SIZE} px", columns=columns)


def yolo(context: typer.Context) -> None:
    """Run Ultralytics' command with the layers of nas.

      nas yolo train model=model.yaml pretrained=weights.pt data=my.yaml
      nas yolo val model=weights.pt data=my.yaml

    --modules my_ops.py adds operators of your own. Nothing that a model or
    data file asks for is run or downloaded. A checkpoint with classes that are
    neither of Ultralytics nor of nas is refused, unless --trust is given.

    The model trains with YOLOv9's auxiliary branch if its file or pgi=True
    asks for it. The training of a model that nas export wrote is logged in the
    study's MLflow; mlflow=True uses Ultralytics' logging instead.

    Results go where Ultralytics' command puts them, and it prints the folder:
    below runs_dir of its settings (nas yolo settings), wherever the command
    is called. An absolute project=FOLDER chooses another.
    """
    arguments = ["help" if word in _HELP else word for word in context.args]
    if "help" in arguments:
        print(f"{context.command.help}\n", flush=True)  # noqa: T201 - this is the output, before Ultralytics' own help
    _run_yolo(arguments)


@show.reports_errors
def _run_yolo(arguments: list[str]) -> None:
    from nas.workflows import yolo_command

    yolo_command.run(arguments)
