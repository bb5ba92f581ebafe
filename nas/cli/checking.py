"""`nas check`: a space or an operator, before a search spends hours on it."""

import json
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from nas.cli import show
from nas.cli.options import Modules, PrecisionName, load_modules, number
from nas.cli.show import Format

if TYPE_CHECKING:
    from nas.workflows.check_cache import CheckCache
    from nas.workflows.estimate import Estimate, Search, SpaceSummary
    from nas.workflows.request import Request
    from search_spaces import SearchSpace
    from search_spaces.operators import Operator
    from trials.contracts.case import Case, Failure

_WHAT, _SEARCH, _LIMITS, _HOW = "What", "The search whose hours are estimated", "Limits", "How"
_FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)


@show.told
def check(
    space: Annotated[
        str | None, typer.Option(help="A name (see [b]nas spaces[/b]), or a space file.", rich_help_panel=_WHAT)
    ] = None,
    scale: Annotated[str | None, typer.Option(help="Instead of the space's own.", rich_help_panel=_WHAT)] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="An operator of your own instead; all of the file without :NAME. Or one of ours by its name.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A model's YAML instead, in any dialect, or a name of Ultralytics'.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    modules: Modules = None,
    data: Annotated[
        str, typer.Option(help="digits (built in), or an Ultralytics data.yaml.", rich_help_panel=_SEARCH)
    ] = "digits",
    trials: Annotated[
        int | None, typer.Option(min=1, help="\\[default: 10 for digits, else 30]", rich_help_panel=_SEARCH)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each. \\[default: 3 for digits, else 20]", rich_help_panel=_SEARCH)
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Of training, pixels. \\[default: 128 for digits, else 320]", rich_help_panel=_SEARCH),
    ] = None,
    deploy_size: Annotated[
        int | None, typer.Option(help="Of cost and latency, pixels. \\[default: 640]", rich_help_panel=_SEARCH)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images a step. \\[default: 8]", rich_help_panel=_SEARCH)
    ] = None,
    precision: Annotated[
        PrecisionName | None,
        typer.Option(help="\\[default: bf16 on a GPU that has it, else fp32]", rich_help_panel=_SEARCH),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, or 0. \\[default: a GPU if there is one]", rich_help_panel=_SEARCH)
    ] = None,
    max_gflops: Annotated[
        float | None, typer.Option(help="Tell which share of the space is within.", rich_help_panel=_LIMITS)
    ] = None,
    max_params: Annotated[
        int | None, typer.Option(parser=number, metavar="N", help="Such as 2.5M.", rich_help_panel=_LIMITS)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes, here and in the search. \\[default: one per core]", rich_help_panel=_HOW),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Ask only what has not passed before.", rich_help_panel=_HOW)
    ] = True,
    shown: Annotated[
        Format, typer.Option("--format", help="For people, or for programs.", rich_help_panel=_HOW)
    ] = "table",
) -> None:
    """Check a space, an operator of your own or a model's file, before hours are spent on it.

    Every value of every parameter is built at every distinct site that offers it, and asked whether it keeps what
    operators promise: shapes, gradients, precisions, layouts, copies, files, `fuse()`, ONNX, costs. For a space, what
    its slots cost follows, what can be reached within limits, and an estimate of a search's hours. A model is asked as
    a whole as well: whether it trains, fuses, exports, and is the same without its auxiliary half.

    Ends with 0 if all is well, 1 if a promise is broken, 2 if the input is wrong.

      nas check --space v9 --max-gflops 7
      nas check --operator my_ops.py:MyOp
      nas check --model yolov9-c-from-an-article.yaml
    """
    from nas.workflows.check_cache import CheckCache
    from nas.workflows.request import Request
    from search_spaces.errors import SpecError

    if sum(asked is not None for asked in (space, operator, model)) != 1:
        raise SpecError("check: one of --space, --operator and --model is expected, such as --space v9")
    load_modules(modules)
    checking = _Checking(memory=CheckCache.of_user() if cache else CheckCache(None), workers=workers, shown=shown)
    if operator is not None:
        checking.operators(operator)
        return
    if model is not None:
        checking.model(model, scale)
        return
    request = Request(
        data=data,
        trials=trials,
        epochs=epochs,
        image_size=image_size,
        deploy_size=deploy_size,
        batch=batch,
        precision=precision,
        device=device,
        workers=workers,
        max_gflops=max_gflops,
        max_params=max_params,
    )
    checking.space(str(space), scale, request)


@dataclass(frozen=True, kw_only=True)
class _Checking:
    """One run of the command."""

    memory: "CheckCache"
    workers: int | None
    shown: Format

    def operators(self, named: str) -> None:
        """Check an operator, or all of a file."""
        from trials.contracts import cases, record_contract

        found = _operators(named)
        failures = [failure for operator in found for failure in record_contract.check(operator)]
        wrong = {failure.operator for failure in failures}
        sound = [operator for operator in found if operator.name not in wrong]
        asked = {operator.name: cases.of_operator(operator) for operator in sound}
        failures += self._failures([case for several in asked.values() for case in several])
        stands = {name: _places(several) for name, several in asked.items()}
        count = sum(map(len, asked.values()))
        self._show({"operators": [one.name for one in found], "stands": stands, "cases": count}, failures)
        show.lines(f"{name} stands in {', '.join(places)}" for name, places in stands.items())
        self._end(count, failures)

    def model(self, named: str, scale: str | None) -> None:
        """Check a model's file: the operators in it, where they stand, and the whole."""
        from search_spaces import OPERATORS, base, model_reader
        from trials.contracts import cases, model_contract

        with show.err.status("reading the model"):
            reading = model_reader.read_model(named, scale=scale)
            loaded = base.load(*model_reader.base_and_scale(named, scale))
        show.lines(f"note: {note}" for note in reading.notes)
        standing = {
            loaded.index_in_file(layer): (operator, loaded.incompatibility(layer, OPERATORS[operator], parameters))
            for layer, (operator, parameters) in loaded.operators.items()
        } | {
            loaded.index_in_file(layer) + 1: (
                operator,
                loaded.incompatibility(layer, OPERATORS[operator], parameters, inserted=True),
            )
            for layer, (_, operator, parameters) in loaded.inserted.items()
        }
        for layer, (operator, obstacle) in sorted(standing.items()):
            if obstacle:
                show.lines([f"note: layer {layer}: a space would not offer {operator}: {obstacle}"])
        found = cases.of_model(loaded)
        failures = self._failures(found)
        with show.err.status("training a step, fusing, exporting"):
            failures += model_contract.check(reading.document | {"scale": loaded.scale})
        whole = {"model": loaded.name, "scale": loaded.scale, "cases": len(found), "notes": list(reading.notes)}
        self._show(whole, failures)
        self._end(len(found) + 1, failures)

    def space(self, name: str, scale: str | None, request: "Request") -> None:
        """Check a space, and tell what a search of it has before it."""
        from nas.workflows import estimate
        from search_spaces import space_file
        from trials.contracts import cases

        with show.err.status("reading space and data"):
            space = space_file.load(name, scale=scale)
            search = estimate.Search.of(request, space)
        with show.err.status("counting every choice"):
            seen = estimate.summarize(space, search)
        found = cases.of_space(space)
        failures = self._failures(found)
        effort, problem = self._effort(space, search)
        whole = {"space": space.name, "scale": space.scale, "hash": space.hash, "cases": len(found)}
        told = None if effort is None else {**asdict(effort), "hours": effort.hours}
        self._show({**whole, "outlook": asdict(seen), "effort": told, "problem": problem}, failures)
        if self.shown == "table":
            _print_space(space, search, seen)
        show.lines([] if effort is None else _estimate(search, effort))
        self._end(len(found), failures, problem)

    def _effort(self, space: "SearchSpace", search: "Search") -> "tuple[Estimate | None, str]":
        """The estimate, or why there is none."""
        from nas.workflows import estimate
        from search_spaces.errors import LatencyError

        try:
            with show.err.status("timing the stock model and the costliest"):
                return estimate.measure(space, search, self.memory), ""
        except LatencyError as error:
            return None, f"no estimate: {error}"

    def _failures(self, cases: "Sequence[Case]") -> "list[Failure]":
        """Check cases under a progress bar."""
        from nas.workflows import check

        failures: list[Failure] = []
        bar = Progress(*Progress.get_default_columns(), console=show.err, transient=True)
        try:
            with bar, closing(check.run(cases, self.memory, workers=self.workers)) as run:
                task = bar.add_task("checking", total=2 * len(cases))
                for progress in run:
                    bar.update(task, completed=progress.module_done + progress.done)
                    failures += progress.failures
        except KeyboardInterrupt:
            show.lines(["Stopped; what has passed is remembered, and the same command goes on from there."])
            raise typer.Exit(show.STOPPED) from None
        return failures

    def _show(self, whole: dict[str, Any], failures: "Sequence[Failure]") -> None:
        """The result: one object as JSON, broken promises as CSV or as lines."""
        rows = [asdict(failure) for failure in failures]
        match self.shown:
            case "json":
                print(json.dumps({**whole, "failures": rows}, indent=1))  # noqa: T201 - this is the output
            case "csv":
                show.rows(rows, "csv", title="", columns=dict.fromkeys(_COLUMNS, ""))
            case _:
                for line in _merged(failures):
                    print(line)  # noqa: T201 - this is the output

    def _end(self, cases: int, failures: "Sequence[Failure]", problem: str = "") -> None:
        """The verdict, as a line and as a status."""
        if failures:
            show.lines(["", "What is promised:", *_promised({failure.promise for failure in failures})])
            show.lines([f"{len(failures)} broken promises in {cases} cases"])
        if problem:
            show.lines([problem])
        if failures or problem:
            raise typer.Exit(_FAILED)
        show.lines([f"all is well: {cases} cases keep every promise"])


def _operators(named: str) -> "tuple[Operator, ...]":
    """The operators of a file, one of them, or one of the vocabulary.

    Raises:
        SpecError: no such file, no such operator.
    """
    from search_spaces import OPERATORS
    from search_spaces.errors import SpecError, nearest
    from search_spaces.operators import modules

    if named in OPERATORS:
        return (OPERATORS[named],)
    path, colon, name = named.rpartition(":") if ".py:" in named else (named, "", "")
    if not path.endswith(".py"):
        raise SpecError(f"operator: FILE.py:NAME is expected, got {named!r} ({nearest(named, OPERATORS)})")
    found = modules.load(Path(path))
    chosen = tuple(operator for operator in found if operator.name == name or not colon)
    if not chosen:
        raise SpecError(f"operator: {path} has no {name!r} ({nearest(name, [one.name for one in found])})")
    return chosen


def _places(cases: "Sequence[Case]") -> list[str]:
    return list(dict.fromkeys(place for case in cases for place in case.places))


def _promised(names: "Collection[str]") -> list[str]:
    """What some promises say."""
    from trials.contracts import export_contract, model_contract, operator_contract, record_contract

    asked = (record_contract.PROMISES, operator_contract.PROMISES, export_contract.PROMISES, model_contract.PROMISES)
    sentences = {
        name: (promise.__doc__ or "").splitlines()[0] for several in asked for name, promise in several.items()
    }
    return [f"{name:<13} {told}" for name, told in sentences.items() if name in names]


def _merged(failures: "Sequence[Failure]") -> list[str]:
    """One line for what one operator breaks alike at several sites."""
    alike: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in failures:
        alike.setdefault((failure.operator, failure.promise, failure.seen), []).append(failure)
    lines = []
    for same in alike.values():
        places = tuple(dict.fromkeys(place for failure in same for place in failure.places))
        site = same[0].site if len(same) == 1 else f"{len(same)} distinct sites"
        lines.append(str(replace(same[0], places=places, site=site)))
    return lines


def _print_space(space: "SearchSpace", search: "Search", seen: "SpaceSummary") -> None:
    """Slots as a table, the rest as lines."""
    from nas.workflows.estimate import SAMPLES

    columns = {
        "slot": "slot",
        "host": "host",
        "choices": "choices",
        "stock_gflops": "GFLOPs",
        "min_gflops": "least",
        "median_gflops": "median",
        "max_gflops": "most",
    }
    title = f"Search space {space.at_scale} ({space.hash})"
    show.rows([asdict(slot) for slot in seen.slots], "table", title=title, columns=columns)
    sampled = f"of {SAMPLES} random architectures"
    told = {
        "size": f"{seen.size:.3g} architectures in {len(seen.slots)} slots",
        "deployed": f"at {search.budget.deploy_size} px, {len(search.data.classes)} classes",
        "stock": f"{seen.stock_gflops:.2f} GFLOPs, {seen.stock_params / 1e6:.3f} M parameters",
        "GFLOPs": f"{seen.gflops[0]:.2f} to {seen.gflops[1]:.2f}",
        "params": f"{seen.params[0] / 1e6:.3f} M to {seen.params[1] / 1e6:.3f} M",
    }
    if seen.buildable < 1:
        told["buildable"] = f"{seen.buildable:.0%} {sampled}: two dials together can leave a layer no operator fits"
    if seen.within is not None:
        told["within"] = f"the limits are {seen.within:.0%} {sampled}"
    show.lines(f"{name:<9} {text}" for name, text in told.items())


def _estimate(search: "Search", effort: "Estimate") -> list[str]:
    """How long a search may take, and what that is said of."""
    from nas.report.verdicts import with_unit

    budget, data, (least, most) = search.budget, search.data, effort.hours
    trials = f"{with_unit(effort.trials, 'trial')} of {budget.said}"
    images = f"{data.train_images} + {data.val_images} images, {effort.workers} at once"
    first = f"the stock model's own training {effort.base:.0f} s, " if effort.base else ""
    each = f"{first}a trial of the stock model takes {effort.stock:.0f} s, of the costliest {effort.costliest:.0f} s"
    return [
        f"search    {trials}, {images}",
        f"estimate  {_hours(least)} to {_hours(most)}: {each}",
        f"measured  a few steps on {effort.machine}; reading images, and workers in each other's way, come on top",
    ]


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


_COLUMNS = ("operator", "site", "places", "promise", "seen")
