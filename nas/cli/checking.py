"""`nas check`: test a space, an operator or a model before a search spends hours on it."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from nas.cli import check_report, estimating, options, show
from nas.cli.show import Format
from nas.workflows.presets import DEMONSTRATION, PRESETS, USUAL
from nas.workflows.search_options import DEMONSTRATION_DATA, either

if TYPE_CHECKING:
    from nas.workflows.check_cache import CheckCache
    from nas.workflows.estimate import Estimate
    from nas.workflows.planned_search import PlannedSearch
    from nas.workflows.request import Request
    from search_spaces import Space
    from search_spaces.operators import Operator
    from trials.contracts.case import Case, Failure

_SUBJECT, _SEARCH, _LIMITS, _CHECKS = "What to check", "The search whose hours are estimated", "Limits", "Checks"
_FAILED = 1

OperatorName = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:NAME",
        help="Operator to check: FILE.py:NAME of yours, a record or a class (without :NAME all records of the file), "
        "or the name of one that comes with nas.",
        rich_help_panel=_SUBJECT,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A model: a YAML file for YOLOv5, YOLOv9 or Ultralytics, or a name such as yolov9c.yaml.",
        rich_help_panel=_SUBJECT,
    ),
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache/--no-cache",
        help="Skip the checks that passed before, where nothing has changed.",
        rich_help_panel=_CHECKS,
    ),
]
Shown = Annotated[
    Format,
    typer.Option("--format", help="Print text to read, or JSON or CSV for programs.", rich_help_panel=_CHECKS),
]


_PANELS = {
    **dict.fromkeys(("space", "scale"), _SUBJECT),
    **dict.fromkeys(("data", "trials", "epochs", "image_size", "deploy_size", "batch", "precision", "device"), _SEARCH),
    **dict.fromkeys(("max_gflops", "max_params"), _LIMITS),
    "workers": _CHECKS,
}
"""Headings of the options that a search has, too."""


def _of_usual_presets(field: str) -> str:
    demonstration, usual = PRESETS[DEMONSTRATION], PRESETS[USUAL]
    return either(getattr(demonstration, field), getattr(usual, field))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)


@show.reports_errors
@options.takes(
    *_PANELS,
    panels=_PANELS,
    defaults={"space": None},
    unset={
        "scale": "as in the file",
        "data": DEMONSTRATION_DATA,
        "epochs": _of_usual_presets("epochs"),
        "image_size": _of_usual_presets("image_size"),
        "workers": "one per core",
        "max_gflops": "",
        "max_params": "",
    },
    meaning={
        "workers": "Number of processes, for these checks and for the search.",
        "max_gflops": "Print the share of architectures with at most so many GFLOPs.",
        "max_params": "Print the share of architectures with at most so many parameters.",
    },
)
def check(
    typed: options.Typed,
    operator: OperatorName = None,
    model: Model = None,
    modules: options.Modules = None,
    cache: Cache = True,
    shown: Shown = "table",
) -> None:
    """Check a space, an operator of your own or a model file, before a search spends hours on it.

    Every value of every parameter is built at every distinct site that
    offers it and tested: shapes, gradients, precisions, memory layouts,
    copies, saved files, fuse(), ONNX and costs. For a space, the costs of
    its slots, the reachable costs and an estimate of a search's hours
    follow. A model is also tested as a whole: whether it trains, fuses,
    exports, and computes the same without its auxiliary branch.

    Exit status: 0 if every check passes, 1 if one fails, 2 if the input is
    wrong.

      nas check --space v9 --max-gflops 7
      nas check --operator my_ops.py:MyOp
      nas check --model yolov9-c-from-an-article.yaml
    """
    from search_spaces.errors import SpecError
    from search_spaces.space_names import require_files

    space, scale = typed["space"], typed["scale"]
    if sum(subject is not None for subject in (space, operator, model)) != 1:
        raise SpecError("check: one of --space, --operator and --model is expected, such as --space v9")
    if space is not None:
        require_files(space)  # before PyTorch is imported
    with show.err.status("loading operators"):
        from nas.workflows.check_cache import CheckCache
        from nas.workflows.request import Request

        options.load_modules(modules)
    passed = CheckCache.of_user() if cache else CheckCache(None)
    checking = _Checking(passed=passed, workers=typed["workers"], shown=shown)
    if operator is not None:
        checking.operators(operator)
    elif model is not None:
        checking.model(model, scale)
    else:
        checking.space(space, scale, Request(**typed))


@dataclass(frozen=True, kw_only=True)
class _Checking:
    """Checks of one command, and the printing of their result.

    Attributes:
        passed: checks that need not be repeated.
    """

    passed: "CheckCache"
    workers: int | None
    shown: Format

    def operators(self, named: str) -> None:
        """Check an operator, or all operators of a file."""
        from trials.contracts import cases, record_contract

        found = _operators(named)
        failures = [failure for operator in found for failure in record_contract.check(operator)]
        wrong = {failure.operator for failure in failures}
        sound = [operator for operator in found if operator.name not in wrong]
        tested = {operator.name: cases.of_operator(operator) for operator in sound}
        failures += self._failures([case for several in tested.values() for case in several])
        stands = {name: _places(several) for name, several in tested.items()}
        count = sum(map(len, tested.values()))
        self._show({"operators": [one.name for one in found], "stands": stands, "cases": count}, failures)
        show.lines(f"{name} stands in {', '.join(places)}" for name, places in stands.items())
        self._end(count, failures)

    def model(self, named: str, scale: str | None) -> None:
        """Check a model file: its operators at their sites, and the whole model."""
        from search_spaces import OPERATORS, base, model_reader
        from trials.contracts import cases, layer_contract, model_contract

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
        for layer, (operator, reason) in sorted(standing.items()):
            if reason:
                show.lines([f"note: layer {layer}: a space would not offer {operator}: {reason}"])
        found = cases.of_model(loaded)
        failures = self._failures(found)
        with show.err.status("checking your layers, one by one"):
            layers = layer_contract.check(layer_contract.cases(loaded))
        show.lines(layer_contract.lines(layers))
        failures += [failure for several in layers.values() for failure in several]
        with show.err.status("training a step, fusing, exporting"):
            failures += model_contract.check(reading.document | {"scale": loaded.scale})
        count = len(found) + len(layers)
        whole = {"model": loaded.name, "scale": loaded.scale, "cases": count, "notes": list(reading.notes)}
        self._show(whole, failures)
        self._end(count + 1, failures)

    def space(self, name: str, scale: str | None, request: "Request") -> None:
        """Check a space, and estimate a search of it."""
        from nas.workflows.planned_search import PlannedSearch
        from nas.workflows.space_summary import summarize
        from search_spaces import joined_file
        from trials.contracts import cases

        with show.err.status("reading space and data"):
            space = joined_file.load(name, scale=scale)
            search = PlannedSearch.of(request, space)
        with show.err.status("counting every choice"):
            summary = summarize(space, search)
        found = cases.of_space(space)
        failures = self._failures(found)
        search, estimated, problem = self._estimate(request, space, search)
        whole = {"space": space.name, "scale": space.scale, "hash": space.hash, "cases": len(found)}
        hours = None if estimated is None else {**asdict(estimated), "hours": estimated.hours}
        self._show({**whole, "outlook": asdict(summary), "effort": hours, "problem": problem}, failures)
        if self.shown == "table":
            check_report.print_space(space, search, summary)
        show.lines([] if estimated is None else check_report.estimate_lines(search, estimated))
        self._end(len(found), failures, problem)

    def _estimate(
        self, request: "Request", space: "Space", search: "PlannedSearch"
    ) -> "tuple[PlannedSearch, Estimate | None, str]":
        """Return a search with its batch, and its estimate; if there is none, the reason."""
        from nas.workflows import estimate
        from nas.workflows.fit_machine import with_chosen_batch
        from search_spaces.errors import EnvironmentProblem, EstimateError

        try:
            with show.err.status("choosing the batch") as status:
                search = with_chosen_batch(request, space, search, self.passed, trying=status.update)
            with estimating.timing() as report:
                return search, estimate.measure(space, search, self.passed, report=report), ""
        except (EnvironmentProblem, EstimateError) as error:
            return search, None, f"no estimate: {error}"

    def _failures(self, cases: "Sequence[Case]") -> "list[Failure]":
        """Check cases with a progress bar."""
        from nas.workflows import check

        failures: list[Failure] = []
        bar = Progress(*Progress.get_default_columns(), console=show.err, transient=True)
        try:
            with bar, closing(check.run(cases, self.passed, workers=self.workers)) as run:
                task = bar.add_task("checking", total=2 * len(cases))
                for progress in run:
                    bar.update(task, completed=progress.module_done + progress.done)
                    failures += progress.failures
        except KeyboardInterrupt:
            show.lines(["Stopped; checks that passed are saved, and the same command continues from there."])
            raise typer.Exit(show.STOPPED) from None
        return failures

    def _show(self, whole: dict[str, Any], failures: "Sequence[Failure]") -> None:
        """Print the result: one object as JSON, or one row or line per broken promise."""
        rows = [asdict(failure) for failure in failures]
        match self.shown:
            case "json":
                print(json.dumps({**whole, "failures": rows}, indent=1))  # noqa: T201 - this is the output
            case "csv":
                show.rows(rows, "csv", title="", columns=dict.fromkeys(check_report.COLUMNS, ""))
            case _:
                for line in check_report.failure_lines(failures):
                    show.text(line)

    def _end(self, cases: int, failures: "Sequence[Failure]", problem: str = "") -> None:
        """Print the result; exit with status 1 if a promise is broken."""
        from nas.words import with_unit

        if failures:
            show.lines(
                [
                    "",
                    "Promises that were broken:",
                    *check_report.explanations({failure.promise for failure in failures}),
                ]
            )
            show.lines([f"{with_unit(len(failures), 'broken promise')}; {with_unit(cases, 'case')} tried"])
        if problem:
            show.lines([problem])
        if failures or problem:
            raise typer.Exit(_FAILED)
        keep = "keeps" if cases == 1 else "keep"
        show.lines([f"all checks passed: {with_unit(cases, 'case')} {keep} every promise"])


def _operators(named: str) -> "tuple[Operator, ...]":
    """Return the operators of a file, one of them, or an operator that comes with the package.

    Raises:
        SpecError: no such file, no such operator.
    """
    from search_spaces import OPERATORS
    from search_spaces.errors import SpecError, nearest
    from search_spaces.operators import modules, user_classes

    if named in OPERATORS:
        return (OPERATORS[named],)
    path, colon, name = named.rpartition(":") if ".py:" in named else (named, "", "")
    if not path.endswith(".py"):
        raise SpecError(f"operator: FILE.py:NAME is expected, got {named!r} ({nearest(named, OPERATORS)})")
    found = modules.load(Path(path))
    made = modules.offer(name) if colon else None  # of a class without a record
    if made is not None and made.required:
        wanted = ", ".join(made.required)
        raise SpecError(f"operator: {name} has no default for {wanted}: nas check --space FILE checks it with values")
    found = found if made is None or made in found else (*found, made)
    chosen = tuple(operator for operator in found if operator.name == name or not colon)
    if not chosen:
        names = [*(one.name for one in found), *user_classes.names()]
        raise SpecError(f"operator: {path} has no {name!r} ({nearest(name, names)})")
    return chosen


def _places(cases: "Sequence[Case]") -> list[str]:
    return list(dict.fromkeys(place for case in cases for place in case.places))
