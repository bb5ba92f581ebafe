"""Refine a space: the search space around the Pareto front of a coarser study."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nas.records.record import stocks_of
from nas.report.stock_models import contenders
from nas.study.fetching import fetched
from nas.study.folders import SPACE, existing
from nas.study.study import Study
from nas.workflows.request import Request
from search_spaces import SearchSpace, Space, joined_file, scaling, space_file
from search_spaces.errors import SpecError
from search_spaces.grammar import MEMBERS
from search_spaces.refine import refine
from search_spaces.yaml_text import parse_yaml


def refined_space(coarse: Study) -> str:
    """Return the text of the space file around a study's Pareto front.

    Of several members those stay that have a model on the front, each refined around its own. One that has none but its
    stock model stays as that alone if no cheaper one leads it by more than noise: gains are gains over these.

    Raises:
        SpecError: the front is the stock model alone, or the study has only stock models.
    """
    document, space = parse_yaml(joined_file.text(coarse.folder / SPACE)), coarse.space
    if coarse.settings.stock_only:
        names = ",".join(record.member for record in coarse.front()) or "v8n,v9t"
        raise SpecError(
            f"refine: {coarse.name} has stock models alone, around which there is nothing to refine "
            f"(nas search --space {names} searches around them)"
        )
    front = [coarse.architecture(record) for record in coarse.front()]
    if isinstance(space, SearchSpace):
        return refine(document, space, front)
    bar = {one.member for one in contenders(stocks_of(coarse.records()), coarse.settings)}
    members = []
    for member, part in zip(space.members, space_file.parts(document), strict=True):
        found = [one for one in front if space.member_of(one) is member and not one.is_stock]
        if found:
            members.append({**parse_yaml(refine(part, member, found)), "name": member.name})
        elif member.short_name in bar:
            members.append(_stock_model(part))
    if all(one.is_stock for one in front):
        raise SpecError("refine: nothing was found but stock models, around which there is nothing to refine")
    if len(members) == 1:
        return space_file.dump({**members[0], "name": f"{members[0]['name']}-fine"})
    return space_file.dump({"name": f"{space.name}-fine", MEMBERS: members})


def _stock_model(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a space file for one member without its choices."""
    rest = {name: value for name, value in part.items() if name not in {"slots", "insert", "start"}}
    return {**rest, "macro": {scaling.DEPTH: 1.0}}  # a file has one choice at least


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
    document[MEMBERS] = [_stock_model(member) for member in space_file.parts(document)]
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
    return replace(request, data=data), joined_file.parse(parse_yaml(text)), text
