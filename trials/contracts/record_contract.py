"""Contract of an operator's record: its name, parameters and functions are consistent with what it builds."""

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
from trials.contracts.case import Case, Failure
from trials.contracts.cases import LAYERS, combinations, of_operator, sites_in
from trials.contracts.probing import REORDERED, as_if_trained, isolated, observe, relative_difference

_MAX_COMBINATIONS = 500
"""Combinations of values that a function of the record is called with, at each site."""

_MAX_REASONS = 3
"""Different reasons that a message lists: the first may be that of a site, and another that of the operator."""

Given = dict[str, Value]


def check(operator: Operator) -> tuple[Failure, ...]:
    """Check the promises of this module up to the first broken one: the next ones depend on it."""
    with isolated():
        for name, promise in PROMISES.items():
            observations = observe(promise, operator)
            if observations:
                return tuple(Failure(operator=operator.name, promise=name, seen=one) for one in observations)
    return ()


def _name(operator: Operator) -> Iterator[str]:
    """Name of the operator is valid in a row, alone and after a host's."""
    if operator.misnamed:
        yield operator.misnamed.removeprefix("name: ")
    if operator.name in HOSTS or operator.name in vars(tasks):
        yield f"{operator.name} is a module of Ultralytics already"


def _parameters(operator: Operator) -> Iterator[str]:
    """Defaults are allowed values, and each allowed value is listed once."""
    names = [parameter.name for parameter in operator.parameters]
    if len(set(names)) < len(names):
        yield f"a parameter is listed twice: {', '.join(names)}"
    for parameter in operator.parameters:
        kinds = {type(value) for value in parameter.allowed}
        subject = f"{parameter.name}, allowed {parameter.allowed}"
        if not kinds <= {bool, int, float, str} or len(kinds) != 1:
            yield f"{subject}: values of one type are expected: bool, int, float or str"
        elif type(parameter.default) not in kinds or parameter.default not in parameter.allowed:
            yield f"{subject}: the default {parameter.default!r} is not among them"
        if len(set(parameter.allowed)) < len(parameter.allowed):
            yield f"{subject}: a value is listed twice"
        if strangers := [value for value in parameter.search_values if value not in parameter.allowed]:
            yield f"{subject}: {', '.join(map(str, strangers))} cannot be among `search_values`"


def _signature(operator: Operator) -> Iterator[str]:
    """`build` takes a site, and each parameter by its name."""
    _, *given = inspect.signature(operator.build).parameters.values()
    accepted = {parameter.name for parameter in given}
    names = {parameter.name for parameter in operator.parameters}
    accepts_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in given)
    if not accepts_all and (missing := sorted(names - accepted)):
        yield f"`build` does not take {', '.join(missing)}"
    required = {one.name for one in given if one.default is one.empty and one.kind is not one.VAR_KEYWORD}
    if unknown := sorted(required - names):
        yield f"`build` requires {', '.join(unknown)}, which the record does not have"


def _incompatibility(operator: Operator) -> Iterator[str]:
    """`incompatibility` returns None, or a sentence."""
    for name in LAYERS:
        for site in sites_in(name, operator):
            for given in islice(combinations(operator), _MAX_COMBINATIONS):
                reason = operator.incompatibility(site, given)
                if reason is not None and (not isinstance(reason, str) or len(reason.split()) < 3):
                    yield f"for {_as_text(given)} in {name} it returns {reason!r} (None, or a sentence)"
                    return


def _stands(operator: Operator) -> Iterator[str]:
    """Sites exist: the operator is compatible with at least one."""
    sites = [(name, site) for name in LAYERS for site in sites_in(name, operator)]
    if not sites:
        yield f"nowhere: no host has a site of its kinds ({', '.join(operator.kinds) or 'it names none'})"
    elif not of_operator(operator):
        refused: dict[str | None, str] = {}
        for name, site in sites:
            refused.setdefault(operator.incompatibility(site, operator.complete({})), name)
        listed = "; ".join(f"{name}: {reason}" for reason, name in islice(refused.items(), _MAX_REASONS))
        yield f"nowhere: its `incompatibility` refuses all {len(sites)} sites that were tried, such as {listed}"


def _module(operator: Operator) -> Iterator[str]:
    """`build` returns a module with the class that the record names, by which the cost counter finds it."""
    for case in _one_of_each_kind(operator):
        built = case.build()
        if not any(type(module) is operator.module for module in built.modules()):
            yield f"the record names {operator.module.__name__}, but `build` returns none of it ({case.site_summary})"


def _active_parameters(operator: Operator) -> Iterator[str]:
    """`active_parameters` drops the parameters that have no effect, and no others."""
    for given in islice(combinations(operator), _MAX_COMBINATIONS):
        strange = [
            name
            for name, value in operator.active_parameters(given).items()
            if name not in given or given[name] != value
        ]
        if strange:
            yield f"for {_as_text(given)} it returns another {', '.join(strange)}; it may only leave parameters out"
            return
    for case in _one_of_each_kind(operator):
        for observation in (*_wrongly_dropped(operator, case), *_without_effect(operator, case)):
            yield f"{observation} ({case.site_summary})"
            return


def _wrongly_dropped(operator: Operator, case: Case) -> Iterator[str]:
    """Yield combinations without a parameter that has an effect."""
    for given in islice(combinations(operator), _MAX_COMBINATIONS):
        reduced = operator.complete(operator.active_parameters(given))
        if (
            reduced != given
            and _compatible(operator, case, (given, reduced))
            and not _do_the_same(case, given, reduced)
        ):
            yield f"{_as_text(given)} should be the same as {_as_text(reduced)}, but another module is built"


def _without_effect(operator: Operator, case: Case) -> Iterator[str]:
    """Yield values that count as different, although they build the same module."""
    default = dict(case.parameters)
    for parameter in operator.parameters:
        for value in parameter.allowed:
            given = default | {parameter.name: value}
            differ = Choice.of(operator.name, given) != Choice.of(operator.name, default)
            if differ and _compatible(operator, case, (given,)) and _are_the_same(case, given, default):
                yield f"{parameter.name} has no effect: {value} builds the same as {default[parameter.name]}"


def _init_from(operator: Operator) -> Iterator[str]:
    """`init_from` takes the replaced module, or None, and returns the names of its parameters that were copied."""
    if operator.init_from is None:
        return
    for place, site in _one_place_of_each_kind(operator):
        case = Case.of(Choice.of(operator.name, {}), site, (place,))
        replaced_module = LAYERS[place][1]().get_submodule(site.path)
        for before in (replaced_module, None):
            module = case.build()
            for inner in [one for one in module.modules() if type(one) is operator.module]:
                with torch.no_grad():
                    names = operator.init_from(inner, before)
                strange = [name for name in names if name not in dict(inner.named_parameters())]
                replaced = "nothing" if before is None else f"a {type(before).__name__}"
                if strange:
                    missing = ", ".join(strange)
                    yield f"initialised from {replaced}, it names {missing}, no parameter of it ({case.site_summary})"
                    return
            with torch.no_grad():
                if not module(case.image()).isfinite().all():
                    yield f"initialised from {replaced}: NaN or infinite numbers in the output ({case.site_summary})"
                    return


def _one_place_of_each_kind(operator: Operator) -> list[tuple[str, Site]]:
    """Return a layer of `LAYERS` and a site in it for each kind of site where the defaults can stand."""
    default = operator.complete({})
    found = ((name, site) for name in LAYERS for site in sites_in(name, operator))
    return list(
        {site.kind: (name, site) for name, site in found if not operator.incompatibility(site, default)}.values()
    )


def _compatible(operator: Operator, case: Case, several: Sequence[Given]) -> bool:
    return not any(operator.incompatibility(case.site, given) for given in several)


def _do_the_same(case: Case, one: Given, other: Given) -> bool:
    """Return whether the modules of two combinations have the same output with the same weights."""
    first, second = (_trained(case, given) for given in (one, other))
    shapes = [[(name, p.shape) for name, p in module.named_parameters()] for module in (first, second)]
    if shapes[0] != shapes[1]:
        return False
    with torch.no_grad():
        for target, source in zip(second.parameters(), first.parameters(), strict=True):
            target.copy_(source)
        return relative_difference(first(case.image()), second(case.image())) <= REORDERED


def _are_the_same(case: Case, one: Given, other: Given) -> bool:
    """Return whether the modules of two combinations are equal when built, and after forward passes in train mode."""
    built = [_trained(case, given) for given in (one, other)]
    if not _equal(*built):
        return False
    with torch.no_grad():
        trained = [[module.train()(case.image()) for _ in range(2)] for module in built]
        outputs = [module.eval()(case.image()) for module in built]
    same = all(relative_difference(a, b) <= REORDERED for a, b in zip(*trained, strict=True))
    return same and relative_difference(*outputs) <= REORDERED and _equal(*built)


def _equal(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(
        value.shape == states[1][name].shape and torch.allclose(value, states[1][name], rtol=REORDERED)
        for name, value in states[0].items()
    )


def _trained(case: Case, given: Given) -> nn.Module:
    module = replace(case, parameters=tuple(given.items())).build()
    torch.manual_seed(0)
    return as_if_trained(module)


def _one_of_each_kind(operator: Operator) -> list[Case]:
    return list({case.kind: case for case in reversed(of_operator(operator))}.values())


def _as_text(given: Given) -> str:
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
"""Promises by the names in failures; `nas check` prints the first line of their docstrings."""
