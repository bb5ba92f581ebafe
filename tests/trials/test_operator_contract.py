"""Contracts of operators, checked with operators that break one promise each."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from search_spaces import OPERATORS, Choice, SearchSpace, space_file
from search_spaces.operators import Operator, Parameter, Parameters, Site, SiteKind, Value, modules
from trials.contracts import cases, export_contract, operator_contract, record_contract
from trials.contracts.case import Case

SCALED = '''
import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from search_spaces.operators import Operator, Parameter, SiteKind

KNOWN = {}


class Doubled(Conv):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.act(self.bn(self.conv(x)))


class Scaled(nn.Module):
    """A convolution whose output channels are weighed by the image."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, act: nn.Module) -> None:
        super().__init__()
        self.weigh = nn.Linear(c_in, c_out)
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(c_out)
        self.act = act
        CONSTRUCT

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x) * self.weigh(x.mean((2, 3))).sigmoid()[..., None, None]
        FORWARD
        return self.act(self.bn(y))

    def blind(self, x: Tensor) -> Tensor:
        x = torch.cat((x[:, :1] * 0, x[:, 1:]), 1)
        return self.conv(x) * self.weigh(x.mean((2, 3))).sigmoid()[..., None, None]


SCALED = Operator(
    name="NAME",
    module=Scaled,
    parameters=(Parameter(name="kernel", default=3, allowed=(3, 5)),),
    kinds=(SiteKind.CONV, SiteKind.LAYER),
    build=lambda site, *, kernel: Scaled(site.c_in, site.c_out, kernel, site.stride, site.activation),
    incompatibility=lambda site, _: "an even kernel shifts the map by half a pixel" if site.kernel % 2 == 0 else None,
    reference="none",
)
'''
"""Source of an operator that keeps every promise, with placeholders for code that breaks one."""

BREAKING: dict[str, tuple[str, str, str]] = {
    "wrong shape": ("shape", "", "y = y[..., 1:]"),
    "infinite": ("shape", "", "y = y / 0"),
    "raises": ("shape", "", "y = y + missing"),
    "noise": ("deterministic", "", "y = y + 0.1 * torch.rand_like(y)"),
    "counts in eval": ("deterministic", "self.register_buffer('n', torch.zeros(1))", "self.n += 1"),
    "one object": ("copy", "self.__class__.__deepcopy__ = lambda self, memo: self", ""),
    "smaller in training": ("train", "", "y = y[..., 1:] if self.training else y"),
    "a child called f": ("marks", "self.f = nn.Identity()", ""),
    "a child of two names": ("marks", "self.i = act", ""),
    "a parameter called i": ("marks", "self.i = nn.Parameter(torch.ones(()))", "y = y * self.i"),
    "a buffer called np": ("marks", "self.register_buffer('np', torch.ones(()))", "y = y * self.np"),
    "an attribute called type": ("marks", "self.type = 'mine'", ""),
    "a batch norm behind global pooling": (
        "one_image",
        "self.pooled = nn.BatchNorm2d(c_out)",
        "y = y + self.pooled(y.mean((2, 3), keepdim=True))",
    ),
    "the batch it met first": (
        "one_image",
        "self.many = 0",
        "self.many = self.many or len(y); y = y + (y.new_zeros(self.many, 1, 1, 1) if self.training else 0)",
    ),
    "keeps its graph": ("train", "", "self.seen = y if self.training else None"),
    "unused weight": ("gradient", "self.unused = nn.Parameter(torch.ones(3))", ""),
    "detached input": ("gradient", "", "y = y.detach()"),
    "blind to a channel": (
        "gradient",
        "",
        "y = self.blind(x)",
    ),
    "counts aside": ("state", "self.steps = 0", "self.steps += self.training; y = y / (1 + self.steps)"),
    "plain tensor": ("state", "self.aside = torch.randn(c_out, 1, 1)", "y = y + self.aside.to(y.dtype)"),
    "whole number": ("state", "self.register_buffer('n', torch.zeros(1, dtype=int))", "self.n += self.training"),
    "made on the CPU": ("device", "", "y = y + torch.zeros(1, y.shape[1], 1, 1, dtype=y.dtype)"),
    "five dimensions": ("storage", "self.five = nn.Parameter(torch.ones(1, 1, 1, 1, 2))", "y = y * self.five.sum()"),
    "overflow": ("float16", "", "y = y * 1e5 / 1e5"),
    "cancellation": ("bfloat16", "", "y = (y + 300) - 300"),
    "not under autocast": ("autocast", "", "y = y * (float('nan') if torch.is_autocast_enabled('cpu') else 1)"),
    "a view": ("channels_last", "", "y = y.view(len(y), -1).view(y.shape)"),
    "its own Conv": ("fuse", "self.twice = Doubled(c_out, c_out, 1)", "y = self.twice(y)"),
    "mean of the batch": ("alone", "", "y = y - y.mean((0, 2, 3), keepdim=True)"),
    "uncounted": (
        "cost",
        "self.k = nn.Parameter(torch.ones(c_out, c_out, 1, 1))",
        "y = nn.functional.conv2d(y, self.k)",
    ),
    "frozen size": ("export", "", "y = y + y.new_zeros(int(y.shape[2]), 1)"),
    "frozen batch": ("export", "", "y = y + y.new_zeros(int(len(y)), 1, 1, 1)"),
    "lambda": ("file", "self.made = lambda: 1", ""),
    "table of the module": ("file", "KNOWN[kernel] = 1; self.kernel = kernel", "y = y * KNOWN[self.kernel]"),
}
"""The broken promise, and the code that breaks it: in the constructor, in the forward pass."""

MAY_BREAK_TOO = {
    "five dimensions": {"channels_last"},
    "cancellation": {"float16"},
    "detached input": {"train"},
    "one object": set(operator_contract.PROMISES),
}


def written(name: str, construct: str = "", forward: str = "") -> str:
    text = SCALED.replace("NAME", name)
    return text.replace("CONSTRUCT", construct or "pass").replace("FORWARD", forward or "pass")


def spelled(words: str) -> str:
    return "".join(word.title() for word in words.split())


@pytest.fixture(scope="module")
def operators(
    tmp_path_factory: pytest.TempPathFactory,
    vocabulary_of_module: None,  # noqa: ARG001 - it ends with the tests of this file
) -> dict[str, Operator]:
    """Load the good operator and all broken ones."""
    folder = tmp_path_factory.mktemp("operators")
    sources = {"good": ("", "", ""), **BREAKING}
    for name, (_, construct, forward) in sources.items():
        path = folder / f"{spelled(name)}.py"
        path.write_text(written(spelled(name), construct, forward), encoding="utf-8")
    return {name: modules.load(folder / f"{spelled(name)}.py")[0] for name in sources}


def case_of(operator: Operator) -> Case:
    site = cases.sites_in("Conv 3x3", operator)[0]
    return Case.of(Choice.of(operator.name, {}), site, ("4", "6"))


def broken(operator: Operator) -> set[str]:
    return {failure.promise for failure in operator_contract.check(case_of(operator))}


def test_a_good_operator_keeps_every_promise(operators: dict[str, Operator]) -> None:
    assert record_contract.check(operators["good"]) == ()
    found = cases.of_operator(operators["good"])
    assert {case.kind for case in found} == {SiteKind.CONV, SiteKind.LAYER}
    assert [failure for case in found for failure in operator_contract.check(case)] == []


SINGLE = [name for name, (promise, *_) in BREAKING.items() if promise in operator_contract.PROMISES]
TOGETHER = [name for name, (promise, *_) in BREAKING.items() if promise in export_contract.PROMISES]


@pytest.mark.parametrize("name", SINGLE)
def test_only_the_broken_promise_of_an_operator_is_named(name: str, operators: dict[str, Operator]) -> None:
    promise = BREAKING[name][0]
    found = broken(operators[name])
    assert promise in found
    assert found - MAY_BREAK_TOO.get(name, set()) <= {promise}


def test_export_contract_finds_the_broken_ones_of_many_operators(operators: dict[str, Operator]) -> None:
    checked = {case_of(operators[name]): name for name in ("good", *TOGETHER)}
    assert [failure for case in checked for failure in operator_contract.check(case)] == []
    found = {
        checked[case]: {failure.promise for failure in failures}
        for case, failures in export_contract.check(list(checked)).items()
    }
    assert found == {"good": set(), **{name: {BREAKING[name][0]} for name in TOGETHER}}


MESSAGES = {
    "wrong shape": "(2, 32, 8, 8) becomes (2, 48, 8, 7), where (2, 48, 8, 8) is expected",
    "unused weight": "unused gets no gradient",
    "blind to a channel": "1 of 32 input channels get no gradient",
    "five dimensions": "five has 5 dimensions; Ultralytics converts models to channels_last, which takes 4",
    "raises": "raises NameError: name 'missing' is not defined",
    "counts in eval": "in eval mode a pass changes n",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_failure_names_layers_site_promise_and_observation(name: str, operators: dict[str, Operator]) -> None:
    promise = BREAKING[name][0]
    failure = next(one for one in operator_contract.check(case_of(operators[name])) if one.promise == promise)
    site = "convolution layer, 32 to 48 channels, kernel 3"
    assert str(failure) == f"layers 4, 6: {spelled(name)} at {site}: {promise}: {MESSAGES[name]}"


def test_an_operator_that_cannot_be_built_is_a_failure(operators: dict[str, Operator]) -> None:
    def build(_site: Site, **_given: object) -> nn.Module:
        raise ValueError("no such thing")

    OPERATORS["Unbuilt"] = replace(operators["good"], name="Unbuilt", build=build)
    (failure,) = operator_contract.check(case_of(OPERATORS["Unbuilt"]))
    assert (failure.promise, failure.seen) == ("build", "raises ValueError: no such thing")


def test_operator_check_restores_random_states_and_backends(operators: dict[str, Operator]) -> None:
    before, was = torch.get_rng_state(), torch.backends.mkldnn.enabled
    operator_contract.check(case_of(operators["noise"]))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.backends.mkldnn.enabled == was


def from_a_convolution(module: Any, before: Any) -> list[str]:
    """Fail for an inserted layer, which replaces nothing."""
    module.bn.weight.copy_(before.bn.weight)
    return ["bn.weight"]


def divided_by_zero(module: Any, _before: Any) -> list[str]:
    module.conv.weight.div_(0)
    return ["conv.weight"]


def refusing(_site: Site, _parameters: Parameters) -> str:
    return "not today, and not tomorrow either"


RECORDS: dict[str, tuple[str, Callable[[Operator], Operator]]] = {
    "an underscore": ("name", lambda good: replace(good, name="My_Op")),
    "a module of Ultralytics": ("name", lambda good: replace(good, name="C2f")),
    "a default of its own": (
        "parameters",
        lambda good: replace(good, parameters=(Parameter(name="kernel", default=7, allowed=(3, 5)),)),
    ),
    "two types": (
        "parameters",
        lambda good: replace(good, parameters=(Parameter(name="kernel", default=3, allowed=(3, 5.0)),)),
    ),
    "a parameter that build does not take": (
        "build",
        lambda good: replace(good, parameters=(*good.parameters, Parameter(name="x", default=1, allowed=(1, 2)))),
    ),
    "a parameter that the record lacks": ("build", lambda good: replace(good, parameters=())),
    "no words": ("incompatibility", lambda good: replace(good, incompatibility=lambda _site, _given: "no")),
    "a refusal everywhere": ("stands", lambda good: replace(good, incompatibility=refusing)),
    "no kinds": ("stands", lambda good: replace(good, kinds=())),
    "another module": ("module", lambda good: replace(good, module=nn.Bilinear)),
    "an effect denied": ("active_parameters", lambda good: replace(good, active_parameters=lambda _given: {})),
    "a name it does not have": (
        "init_from",
        lambda good: replace(good, init_from=lambda _module, _before: ["nothing"]),
    ),
    "what stood there alone": ("init_from", lambda good: replace(good, init_from=from_a_convolution)),
    "no number": ("init_from", lambda good: replace(good, init_from=divided_by_zero)),
    "no effect": (
        "active_parameters",
        lambda good: replace(
            good,
            parameters=(*good.parameters, Parameter(name="idle", default=1, allowed=(1, 2))),
            build=lambda site, *, kernel, idle: good.build(site, kernel=kernel),  # noqa: ARG005 - that is what is wrong
        ),
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_wrong_operator_record_breaks_its_promise(name: str, operators: dict[str, Operator]) -> None:
    promise, change = RECORDS[name]
    record = change(operators["good"])
    OPERATORS[record.name] = record
    assert {failure.promise for failure in record_contract.check(record)} == {promise}


@pytest.mark.parametrize("operator", list(OPERATORS.values()), ids=lambda operator: operator.name)
def test_operator_records_of_the_vocabulary_are_right(operator: Operator) -> None:
    assert record_contract.check(operator) == ()


SPACE = """
name: small
base: yolov8{scale}.yaml
scale: n
slots:
  - {at: {layers: [4, 6]}, tie: true, choices: {UIB: {start_kernel: [0, 3, 5], expansion: [2, 4]}}}
  - {at: {layers: [10]}, choices: {DySample: {style: [lp, pl]}}}
insert:
  - {after: 9, choices: {DCNv4: {groups: [2, 4]}}}
macro: {width: [0.75, 1.0], depth: [0.67, 1.0], image_size: [320, 640]}
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    path = tmp_path_factory.mktemp("space") / "small.yaml"
    path.write_text(SPACE, encoding="utf-8")
    return space_file.load(path)


def test_cases_have_every_value_of_a_space_at_every_distinct_site(space: SearchSpace) -> None:
    found = cases.of_space(space)
    sites: dict[tuple[str, int, int | None], set[tuple[str, Value]]] = {}
    for case in found:
        key = (case.operator, case.c_in, case.reduction)
        sites.setdefault(key, set()).update(case.parameters)
    values: dict[str, set[tuple[str, Value]]] = {
        "UIB": {("start_kernel", 0), ("start_kernel", 3), ("start_kernel", 5), ("expansion", 2), ("expansion", 4)},
        "DySample": {("style", "lp"), ("style", "pl")},
        "DCNv4": {("groups", 2), ("groups", 4)},
    }
    assert all(values[operator] <= met for (operator, *_), met in sites.items())
    widths = {operator: sorted(c_in for name, c_in, _ in sites if name == operator) for operator in values}
    assert widths == {"UIB": [24, 32, 48, 64], "DySample": [192, 256], "DCNv4": [192, 256]}
    assert {place for case in found for place in case.places} == {"4", "6", "after-9", "10"}
    assert len(set(found)) == len(found) == 4 * 3 + 2 * 2 + 2 * 2


def test_few_choices_cover_all_values() -> None:
    offered = [
        Choice.of("UIB", {"start_kernel": start, "mid_kernel": mid, "expansion": expansion})
        for start in (0, 3, 5)
        for mid in (3, 5, 7)
        for expansion in (2, 4)
    ]
    chosen = cases.covering(offered)
    assert len(chosen) == 3
    assert {value for choice in chosen for value in choice.parameters} == {
        value for choice in offered for value in choice.parameters
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_the_vocabulary_keeps_every_promise_at_every_value(name: str) -> None:
    """Includes values that no space of the catalog offers."""
    found = cases.of_operator(OPERATORS[name])
    assert [failure for case in found for failure in operator_contract.check(case)] == []
    assert [failure for failures in export_contract.check(found).values() for failure in failures] == []
