"""Refine a space: the search space around the Pareto front of a coarser study."""

import os
from dataclasses import replace

from nas.study.fetching import fetched
from nas.study.folders import SPACE, existing
from nas.study.study import Study
from nas.workflows.request import Request
from search_spaces import SearchSpace, Space, joined_file, scaling, space_file
from search_spaces.errors import SpecError
from search_spaces.joined_space import require_one
from search_spaces.refine import refine
from search_spaces.yaml_text import parse_yaml


def refined_space(coarse: Study) -> str:
    """Return the text of the space file around a study's Pareto front.

    Raises:
        SpecError: the front is the stock model alone.
    """
    space = require_one(coarse.space, "refine")
    document = parse_yaml(joined_file.text(coarse.folder / SPACE))
    return refine(document, space, [coarse.architecture(record) for record in coarse.front()])


def _require_the_same(request: Request, coarse: Study) -> None:
    """Refuse a space or scale other than that of the study to refine.

    Raises:
        SpecError: the request names another.
    """
    there = {"space": coarse.settings.space, "scale": coarse.settings.scale}
    given = {"space": None if request.space is None else os.fspath(request.space), "scale": request.scale}
    mistakes = [
        f"{name}: {given[name]!r}, but {coarse.name} is refined, a study of {there[name]} (leave --{name} out)"
        for name in there
        if given[name] not in {None, there[name]}
    ]
    if mistakes:
        raise SpecError(mistakes)


def stock_models(space: Space, text: str) -> tuple[Space, str]:
    """Return the space of the stock models of several spaces alone, and the text of its file.

    Raises:
        SpecError: it is a single space.
    """
    if isinstance(space, SearchSpace):
        raise SpecError(f"stock-only: it compares several spaces, got {space.short_name} alone (--space v8n,v9t,v11n)")
    document = parse_yaml(text)
    for member in space_file.parts(document):
        for name in ("slots", "insert", "start"):
            member.pop(name, None)
        member["macro"] = {scaling.DEPTH: 1.0}  # a file has one choice at least
    return joined_file.parse(document), space_file.dump(document)


def resolve_space(request: Request) -> tuple[Request, Space, str]:
    """Return a request, its space and the text of the space file; one that refines a study gets that study's data.

    Raises:
        SpecError: the space file is wrong; the study to refine does not exist or has found nothing; only stock models
            are wanted of a single space.
    """
    if request.refine is None:
        name, scale, modules = request.space_name, request.scale, request.modules or ()
        space, text = (
            joined_file.load(name, scale=scale, modules=modules),
            joined_file.text(name, scale=scale, modules=modules),
        )
        return (request, *stock_models(space, text)) if request.stock_only else (request, space, text)
    coarse = fetched(Study.open(existing(request.refine, request.runs_folder)))
    _require_the_same(request, coarse)
    text = refined_space(coarse)
    data = request.data or coarse.settings.data
    return replace(request, data=data), space_file.parse(parse_yaml(text)), text
