"""What an operator's record promises: the few lines by which the rest of the house knows it."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import nn
from ultralytics.nn import tasks

from search_spaces import Choice
from search_spaces.hosts import HOSTS
from search_spaces.operators import Operator, Site, Value
from trials.contracts.cases import LAYERS, combinations, of_operator, sites_in
from trials.contracts.operator_contract import REORDERED, Case, Failure, distance, raised, undisturbed, wake

_ASKED = 500
"""Combinations of values that a function of the record is asked about, at each site."""

Given = dict[str, Value]


def check(operator: Operator) -> tuple[Failure, ...]:
    """Ask for every promise of this file; a broken one ends it, for the next ones build on it."""
    with undisturbed():
        for name, promise in PROMISES.items():
            try:
                seen = list(promise(operator))
            except Exception as error:  # noqa: BLE001 - a user's code may raise anything, and that is the finding
                seen = [raised(error)]
            if seen:
                return tuple(Failure(operator=operator.name, promise=name, seen=told) for told in seen)
    return ()


def _name(operator: Operator) -> Iterator[str]:
    """Its name can stand in a row, alone and behind a host's."""
    if operator.misnamed:
        yield operator.misnamed.removeprefix("name: ")
    if operator.name in HOSTS or operator.name in vars(tasks):
        yield f"{operator.name} is a module of Ultralytics already"


def _parameters(operator: Operator) -> Iterator[str]:
    """A parameter's default is allowed, and every value is there once."""
    names = [parameter.name for parameter in operator.parameters]
    if len(set(names)) < len(names):
        yield f"a parameter stands twice: {', '.join(names)}"
    for parameter in operator.parameters:
        kinds = {type(value) for value in parameter.allowed}
        told = f"{parameter.name}, allowed {parameter.allowed}"
        if not kinds <= {bool, int, float, str} or len(kinds) != 1:
            yield f"{told}: values of one type are expected: bool, int, float or str"
        elif type(parameter.default) not in kinds or parameter.default not in parameter.allowed:
            yield f"{told}: the default {parameter.default!r} is not among them"
        if len(set(parameter.allowed)) < len(parameter.allowed):
            yield f"{told}: a value stands twice"
        if strangers := [value for value in parameter.search_values if value not in parameter.allowed]:
            yield f"{told}: {', '.join(map(str, strangers))} cannot be among `search_values`"


def _signature(operator: Operator) -> Iterator[str]:
    """`build` takes a site, and every parameter by its name."""
    _, *given = inspect.signature(operator.build).parameters.values()
    taken = {parameter.name for parameter in given}
    known = {parameter.name for parameter in operator.parameters}
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in given)
    if not takes_all and (missing := sorted(known - taken)):
        yield f"`build` does not take {', '.join(missing)}"
    required = {one.name for one in given if one.default is one.empty and one.kind is not one.VAR_KEYWORD}
    if unknown := sorted(required - known):
        yield f"`build` asks for {', '.join(unknown)}, of which the record knows nothing"


def _incompatibility(operator: Operator) -> Iterator[str]:
    """`incompatibility` gives None, or words that a person understands."""
    for name in LAYERS:
        for site in sites_in(name, operator):
            for given in islice(combinations(operator), _ASKED):
                told = operator.incompatibility(site, given)
                if told is not None and (not isinstance(told, str) or len(told.split()) < 3):
                    yield f"for {_said(given)} in {name} it gives {told!r} (None, or a sentence)"
                    return


def _stands(operator: Operator) -> Iterator[str]:
    """It stands somewhere."""
    sites = [(name, site) for name in LAYERS for site in sites_in(name, operator)]
    if not sites:
        yield f"nowhere: no host has a site of its kinds ({', '.join(operator.kinds) or 'it names none'})"
    elif not of_operator(operator):
        name, site = sites[0]
        told = operator.incompatibility(site, operator.complete({}))
        yield f"nowhere: its `incompatibility` refuses all {len(sites)} sites that were tried, such as {name}: {told}"


def _module(operator: Operator) -> Iterator[str]:
    """What it builds holds the class that it names, which is what the cost counter looks for."""
    for case in _one_of_each_kind(operator):
        built = case.build()
        if not any(type(module) is operator.module for module in built.modules()):
            yield f"the record names {operator.module.__name__}, but `build` gives none of it ({case.where})"


def _active_parameters(operator: Operator) -> Iterator[str]:
    """`active_parameters` drops the parameters that have no effect, and no others."""
    for given in islice(combinations(operator), _ASKED):
        strange = [
            name
            for name, value in operator.active_parameters(given).items()
            if name not in given or given[name] != value
        ]
        if strange:
            yield f"for {_said(given)} it gives another {', '.join(strange)}; it may leave parameters out, no more"
            return
    for case in _one_of_each_kind(operator):
        for told in (*_dropped(operator, case), *_kept(operator, case)):
            yield f"{told} ({case.where})"
            return


def _dropped(operator: Operator, case: Case) -> Iterator[str]:
    """Parameters that are left out, although they have an effect."""
    for given in islice(combinations(operator), _ASKED):
        held = operator.complete(operator.active_parameters(given))
        if held != given and _legal(operator, case, (given, held)) and not _do_the_same(case, given, held):
            yield f"{_said(given)} is said to be the same as {_said(held)}, but another module is built"


def _kept(operator: Operator, case: Case) -> Iterator[str]:
    """Values that are kept apart, although they build the same."""
    default = dict(case.parameters)
    for parameter in operator.parameters:
        for value in parameter.allowed:
            given = default | {parameter.name: value}
            apart = Choice.of(operator.name, given) != Choice.of(operator.name, default)
            if apart and _legal(operator, case, (given,)) and _are_the_same(case, given, default):
                yield f"{parameter.name} has no effect: {value} builds the same as {default[parameter.name]}"


def _init_from(operator: Operator) -> Iterator[str]:
    """`init_from` takes the replaced module, or None, and returns the names of its parameters that were copied."""
    if operator.init_from is None:
        return
    for place, site in _one_place_of_each_kind(operator):
        case = Case.of(Choice.of(operator.name, {}), site, (place,))
        stood = LAYERS[place][1]().get_submodule(site.path)
        for before in (stood, None):
            module = case.build()
            for inner in [one for one in module.modules() if type(one) is operator.module]:
                with torch.no_grad():
                    names = operator.init_from(inner, before)
                strange = [name for name in names if name not in dict(inner.named_parameters())]
                told = "nothing" if before is None else f"a {type(before).__name__}"
                if strange:
                    yield f"after {told} it names {', '.join(strange)}, of which it has no parameter ({case.where})"
                    return
            with torch.no_grad():
                if not module(case.image()).isfinite().all():
                    yield f"after {told} NaN or infinite numbers leave it ({case.where})"
                    return


def _one_place_of_each_kind(operator: Operator) -> list[tuple[str, Site]]:
    """Return a layer of `LAYERS` and a site in it for each kind of site where the defaults can stand."""
    default = operator.complete({})
    found = ((name, site) for name in LAYERS for site in sites_in(name, operator))
    return list(
        {site.kind: (name, site) for name, site in found if not operator.incompatibility(site, default)}.values()
    )


def _legal(operator: Operator, case: Case, several: Sequence[Given]) -> bool:
    return not any(operator.incompatibility(case.site, given) for given in several)


def _do_the_same(case: Case, one: Given, other: Given) -> bool:
    """Whether two choices build modules that give the same with equal parameters."""
    first, second = (_woken(case, given) for given in (one, other))
    shapes = [[(name, p.shape) for name, p in module.named_parameters()] for module in (first, second)]
    if shapes[0] != shapes[1]:
        return False
    with torch.no_grad():
        for own, taken in zip(second.parameters(), first.parameters(), strict=True):
            own.copy_(taken)
        return distance(first(case.image()), second(case.image())) <= REORDERED


def _are_the_same(case: Case, one: Given, other: Given) -> bool:
    """Whether two choices build modules that start alike, and are alike after training passes."""
    built = [_woken(case, given) for given in (one, other)]
    if not _alike(*built):
        return False
    with torch.no_grad():
        trained = [[module.train()(case.image()) for _ in range(2)] for module in built]
        outputs = [module.eval()(case.image()) for module in built]
    same = all(distance(a, b) <= REORDERED for a, b in zip(*trained, strict=True))
    return same and distance(*outputs) <= REORDERED and _alike(*built)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        value.shape == states[1][name].shape and torch.allclose(value, states[1][name], rtol=REORDERED)
        for name, value in states[0].items()
    )


def _woken(case: Case, given: Given) -> nn.Module:
    module = replace(case, parameters=tuple(given.items())).build()
    torch.manual_seed(0)
    return wake(module)


def _one_of_each_kind(operator: Operator) -> list[Case]:
    return list({case.kind: case for case in reversed(of_operator(operator))}.values())


def _said(given: Given) -> str:
    return ", ".join(f"{name}={value}" for name, value in given.items()) or "no parameters"


PROMISES: dict[str, Callable[[Operator], Iterator[str]]] = {
    "name": _name,
    "parameters": _parameters,
    "build": _signature,
    "incompatibility": _incompatibility,
    "stands": _stands,
    "module": _module,
    "active_parameters": _active_parameters,
    "init_from": _init_from,
}
"""By the names that failures carry; their docstrings are the promises."""
