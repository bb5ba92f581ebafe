"""Print the plan of a search: what it is about to do, before it writes anything."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.cli import data_sets, estimating, initial_weights, show

if TYPE_CHECKING:
    from nas.settings import RunSettings, Settings
    from nas.workflows.outlook import Outlook
    from nas.workflows.plan import Plan
    from nas.workflows.request import Request
    from search_spaces import Space

_BETWEEN_MEMBERS = {"stock": "; ", "weights": " | ", "rungs": "; "}
"""Separators in JSON of members' texts, which are lines of their own for a person, by their name in the plan."""
_DOMINATED = "a stock model that another at no higher cost leads by more than noise is not trained further"


def print_plan(plan: "Plan", shown: show.Format, *, slope: str = "", outlook: "Outlook | None" = None) -> None:
    """Print what a search is about to do, before it writes anything.

    Args:
        slope: of the stock model, in words; empty while it is not measured.
        outlook: time, memory and disk space of the search; None if they are not looked at.
    """
    texts = _plan_in_words(plan, slope, outlook)
    if shown == "json":
        print(json.dumps(_plan_document(plan, texts, outlook), indent=1))  # noqa: T201 - this is the output
    elif not show.err.is_quiet:
        show.labelled(_plan_lines(plan, texts))


def _plan_in_words(plan: "Plan", slope: str, outlook: "Outlook | None") -> dict[str, str]:
    """Return what is said of every search, by label; empty texts where there is nothing to say."""
    from nas.report import rewarded
    from nas.report.few_images import few_images_in_words
    from nas.words import with_unit

    settings, run = plan.file.settings, plan.file.run
    limits = {name: value for name, value in settings.limits.model_dump().items() if value is not None}
    space, data = plan.space, plan.data
    slots = sum(len(member.slots) for member in space.members)
    return {
        "study": _study_name(plan),
        "space": f"{space.at_scale}: {with_unit(slots, 'slot')}, {space.size:.3g} architectures",
        "stock": _stock_costs(plan),
        "reach": f"{plan.cheapest.gflops:.2f} to {plan.costliest.gflops:.2f} GFLOPs",
        "data": f"{data.name}: {data.summary.line(len(data.classes))}",
        "images": _images(plan),
        "holdout": _holdout(plan),
        "few": few_images_in_words(len(plan.sealed.images) if plan.sealed else plan.judging),
        "budget": f"{with_unit(run.trials, 'stock model' if settings.stock_only else 'trial')} of "
        + settings.budget.summary,
        **({} if outlook is None else estimating.lines(outlook, plan.folder)),
        "batch": _batch(plan),
        "slope": slope,
        "rungs": _early_stopping(settings),
        "seeds": _seeds(settings, run),
        "weights": initial_weights.describe(settings, plan.coverages),
        "advice": initial_weights.advice(plan),
        "aim": rewarded.describe(settings) if settings.reward else ", ".join(settings.objectives),
        "sampler": "" if settings.stock_only else settings.sampler,
        "latency": _predicted(plan),
        "limits": ", ".join(f"{name} {value:g}" for name, value in limits.items()) or "none",
        "workers": f"{run.workers} on {run.device}{f': {plan.workers}' if plan.workers else ''}",
    }


def _plan_document(plan: "Plan", texts: Mapping[str, str], outlook: "Outlook | None") -> dict[str, Any]:
    """Return the plan for JSON: each text in one line, and figures of data set and estimate as numbers."""
    in_one_line = {name: text.replace("\n", _BETWEEN_MEMBERS.get(name, "\n")) for name, text in texts.items()}
    numbers = {} if outlook is None else {"estimate": estimating.document(outlook)}
    return {**in_one_line, "data": data_sets.document(plan.data, test=plan.judging), **numbers}


def _plan_lines(plan: "Plan", texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the plan as lines with their labels: what is said of every search, then what is special about this one."""
    from search_spaces.operators import user_classes

    settings = plan.file.settings
    lines = [(name, text) for name, text in texts.items() if text]
    at = 1 + [name for name, _ in lines].index("data")
    lines[at:at] = data_sets.remarks(plan.data)
    if pgi := settings.budget.recipe.pgi:
        led = ", lead-guided" if pgi is not True else ""
        lines.append(("pgi", f"trained with YOLOv9's auxiliary branch{led}, costed and deployed without"))
    if plan.space.start:
        lines.append(("start", _start(plan.space)))
    if preset := _preset(settings, plan.data.train_images):
        lines.append(("preset", preset))
    if plan.data.note:
        lines.append(("note", plan.data.note))
    return [*lines, *(("note", line) for line in user_classes.left_out())]


def _study_name(plan: "Plan") -> str:
    """Return the study's name, with the reason if it is not the usual one."""
    from nas.study.folders import STUDY

    name, stem = plan.folder.name, plan.stem
    there = (plan.folder / STUDY).is_file()
    which = ", which exists with these settings and is resumed" if there else ""
    if stem in {None, name}:
        return f"{name}{which}"
    return f"{name}{which or f': {stem} exists with other settings (choose a name with --study)'}"


def _stock_costs(plan: "Plan") -> str:
    """Return the cost of the stock model; of several members that of each with its name, in lines."""
    size = plan.file.settings.budget.deploy_size
    costs = [f"{one.gflops:.2f} GFLOPs at {size} px, {one.params / 1e6:.3f} M parameters" for one in plan.stocks]
    names = plan.space.member_names or ("",)
    return "\n".join(f"{name} {cost}".lstrip() for name, cost in zip(names, costs, strict=True))


def _images(plan: "Plan") -> str:
    """Return what a large data set is trained on, and why; empty if that is all of it for a preset's epochs."""
    from nas.workflows.amount import in_words
    from nas.workflows.presets import PRESETS

    settings = plan.file.settings
    preset = PRESETS[settings.preset]
    usual = preset.epochs if settings.inherits else preset.scratch_epochs
    return in_words(settings.subset, plan.data.train_images, settings.budget.epochs, usual)


def _holdout(plan: "Plan") -> str:
    """Return by which images `nas confirm` judges that no search has read; empty if there are none."""
    from nas.words import with_unit

    if plan.sealed is not None:
        sealed = len(plan.sealed.images)
        share = f"{sealed} of {plan.sealed.of} images {'is' if sealed == 1 else 'are'} sealed"
        return f"{share}: no training and no search score reads them; nas confirm judges by them"
    if plan.judging:
        them = "it" if plan.judging == 1 else "them"
        return (
            f"the test split, {with_unit(plan.judging, 'image')}: no search reads {them}; nas confirm judges by {them}"
        )
    return ""


def _batch(plan: "Plan") -> str:
    """Return the batch that was chosen, why, and the learning rate that goes with it; empty if none was chosen."""
    budget = plan.file.settings.budget
    rate = f"learning rate {budget.recipe.learning_rate:g}"
    return f"{budget.batch}: {plan.batch}; {rate}" if plan.batch else ""


def _early_stopping(settings: "Settings") -> str:
    """Return after which epochs trainings may be stopped; empty if they may not."""
    from nas.algorithms.dominance import rungs_of

    rungs, lines = ", ".join(map(str, settings.budget.rungs)), []
    compared = ", ".join(map(str, rungs_of(settings.base.epochs))) if settings.members and settings.base else ""
    if compared or (settings.stock_only and rungs):
        lines.append(f"{_DOMINATED}, after epoch {compared or rungs}")
    if settings.stopping is not None:
        one_in = f"after epoch {rungs} about one in {settings.stopping.eta} continues"
        lines.append(one_in if rungs else "none: too few epochs")
    return "\n".join(lines)


def _seeds(settings: "Settings", run: "RunSettings") -> str:
    """Return with how many seeds models are trained, and a warning if the trials end before; empty for one seed."""
    from nas.study.repeats import SCORED_BEFORE

    if settings.seeds == 1:
        return ""
    text = f"{settings.seeds} for the stock model and the front"
    if run.trials > SCORED_BEFORE:
        return text
    return f"{text}, but {run.trials} trials are too few: repeats begin after {SCORED_BEFORE} architectures"


def _predicted(plan: "Plan") -> str:
    """Return for which device latency is predicted, and how many layers are timed first; empty if none was named."""
    device = plan.file.settings.latency
    if not device:
        return ""
    first = f"; {plan.unrecorded} layers that its table lacks are timed first" if plan.unrecorded else ""
    return f"predicted for {device}{first}"


def _start(space: "Space") -> str:
    """Return what a search tries first, an architecture a line."""
    from nas.study.trial_records import description

    after = "the stock model" if len(space.members) == 1 else "the stock models"
    return "\n".join([f"after {after}:", *(description(each, space)["summary"] for each in space.start)])


def _preset(settings: "Settings", images: int) -> str:
    """Return what a preset is good for, or which of its numbers for so many images were changed; empty if all were."""
    from nas.workflows.presets import PRESETS, epochs_for

    preset, budget, base = PRESETS[settings.preset], settings.budget, settings.base
    usual_epochs = preset.epochs if settings.inherits else preset.scratch_epochs
    flag, usual_epochs = ("--base-epochs", preset.base_epochs) if settings.stock_only else ("--epochs", usual_epochs)
    numbers = {
        flag: (budget.epochs, epochs_for(usual_epochs, images)),
        "--image-size": (budget.image_size, preset.image_size),
        **({"--base-epochs": (base.epochs, epochs_for(preset.base_epochs, images))} if base is not None else {}),
    }
    changed = [f"{flag} {chosen} instead of {usual}" for flag, (chosen, usual) in numbers.items() if chosen != usual]
    if len(changed) == len(numbers):
        return ""
    return f"{settings.preset}, but {', '.join(changed)}" if changed else f"{settings.preset}: {preset.purpose}"


def slope_in_words(plan: "Plan", request: "Request") -> str:
    """Return what the stock model still gains, if that is measured; else when it will be said.

    It is measured in this study, in the one that it refines, or by equal trainings that are in the score cache. Empty
    where only stock models are trained.
    """
    from nas.cli.fronts import trust_of
    from nas.study.folders import STUDY, command, study_folder
    from nas.study.stored_study import StoredStudy
    from nas.workflows.cached_slope import cached_slope

    before = [] if request.refine is None else [study_folder(request.refine, request.runs_folder)]
    for folder in (plan.folder, *before):
        if not (folder / STUDY).is_file():
            continue
        study = StoredStudy.open(folder)
        trust = trust_of(study, None, study.records())  # a slope needs no verdict
        if trust is not None and trust.slope is not None:
            where = "" if folder == plan.folder else f"in {folder.name} "
            return f"{where}{trust.slope.sentence}"
    if plan.file.settings.stock_only:
        return ""
    if plan.file.settings.base is None:
        return f"not measured from scratch; after the search: {command('trust', plan.folder)} --measure"
    if plan.file.settings.members:
        return "whether the budget is long enough to rank is said at the end of the search"
    found = cached_slope(plan)
    if found is not None:
        return f"(trained before) {found.sentence}"
    return "whether the budget is long enough to rank is said when the stock model has been trained, as trial 0"
