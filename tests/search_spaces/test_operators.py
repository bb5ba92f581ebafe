"""Contract of every operator in `OPERATORS`, at every host that has a site for it."""

import io
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search_spaces import OPERATORS, Choice
from search_spaces.build import graft
from search_spaces.errors import SpecError
from search_spaces.hosts import HOSTS, WHOLE, Host, host_of
from search_spaces.operators import Operator, Parameters, Site, SiteKind, Value
from trials.contracts.cases import LAYERS
from trials.contracts.joined_maps import JoinedMaps


@dataclass(frozen=True, kw_only=True)
class Case:
    """Operator in a layer, with the first parameters that are legal there."""

    layer: str
    operator: Operator
    parameters: dict[str, Value]

    @property
    def c_in(self) -> int:
        read = LAYERS[self.layer][0]
        return sum(read) if isinstance(read, tuple) else read

    @property
    def is_inner(self) -> bool:
        return sites(self.layer, self.operator)[0].path != WHOLE

    def __str__(self) -> str:
        return f"{self.operator.name} in {self.layer}"


@cache
def layer_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[name][1]().eval()


def joined(name: str, layer: nn.Module) -> nn.Module:
    """Return a layer that reads one map, which has the channels of all that it reads."""
    read = LAYERS[name][0]
    if not isinstance(read, tuple):
        return layer
    return JoinedMaps(layer, [(channels, 1) for channels in read], reads_list=True).eval()


def stock_of(name: str) -> nn.Module:
    return joined(name, layer_of(name))


def host(name: str) -> Host:
    found = host_of(layer_of(name))
    assert found is not None
    return found


def sites(name: str, operator: Operator) -> tuple[Site, ...]:
    return host(name).sites_for(operator, layer_of(name), LAYERS[name][0])


def combinations(operator: Operator) -> Iterator[dict[str, Value]]:
    names = [parameter.name for parameter in operator.parameters]
    for values in product(*(parameter.allowed for parameter in operator.parameters)):
        yield dict(zip(names, values, strict=True))


def is_legal(name: str, operator: Operator, parameters: Parameters) -> bool:
    return not any(operator.incompatibility(site, parameters) for site in sites(name, operator))


def grafted(name: str, operator: Operator, parameters: Parameters) -> nn.Module:
    c_in = LAYERS[name][0]
    return joined(name, graft(deepcopy(layer_of(name)), host(name), operator, parameters, c_in=c_in).eval())


def offered() -> list[Case]:
    cases = []
    for (name, (c_in, _)), operator in product(LAYERS.items(), OPERATORS.values()):
        if host(name).sites_for(operator, layer_of(name), c_in):
            legal = (p for p in (operator.complete({}), *combinations(operator)) if is_legal(name, operator, p))
            first = next(legal, None)
            if first is not None:
                cases.append(Case(layer=name, operator=operator, parameters=first))
    return cases


CASES = offered()
IN_EVERY_HOST = ("UIB", "MMQA", "DCNv4", "DynamicConv", "DySample")


def marked(cases: list[Case]) -> list[Any]:
    """Mark as slow all but the first host of each kind of site, for operators that are not in `IN_EVERY_HOST`."""
    met: set[tuple[str, SiteKind]] = set()
    parameters: list[Any] = []
    for case in cases:
        key = case.operator.name, sites(case.layer, case.operator)[0].kind
        is_slow = key in met and case.operator.name not in IN_EVERY_HOST
        parameters.append(pytest.param(case, marks=pytest.mark.slow if is_slow else ()))
        met.add(key)
    return parameters


each_case = pytest.mark.parametrize("case", marked(CASES), ids=str)
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=lambda operator: operator.name)


@cache
def built(case: str) -> nn.Module:
    """Return the grafted layer of a case; it is shared, so copy it before a change."""
    with torch.random.fork_rng():  # a test's numbers are the same, whether another has built the case before
        torch.manual_seed(0)
        (found,) = (one for one in CASES if str(one) == case)
        return grafted(found.layer, found.operator, found.parameters)


def image(case: Case, height: int = 12, width: int = 16, batch: int = 2) -> Tensor:
    return torch.randn(batch, case.c_in, height, width)


def promised(case: Case, height: int, width: int) -> tuple[int, int]:
    """Return height and width after the layer: as before the graft; a strided whole-layer operator rounds up."""
    if case.is_inner:
        out = stock_of(case.layer)(torch.zeros(1, case.c_in, height, width))
        return out.shape[-2], out.shape[-1]
    site = sites(case.layer, case.operator)[0]
    if site.kind is SiteKind.UPSAMPLE:
        return height * site.stride, width * site.stride
    return -(-height // site.stride), -(-width // site.stride)


def test_every_host_is_tested_with_a_layer() -> None:
    assert {host(name).name for name in LAYERS} == set(HOSTS)


@each_operator
def test_every_operator_has_a_site(operator: Operator) -> None:
    assert operator.name in {case.operator.name for case in CASES}


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (13, 15)], ids=["square", "not square", "odd"])
@each_case
def test_operator_returns_the_promised_shape_and_finite_values(case: Case, size: tuple[int, int]) -> None:
    if case.layer == "Conv 6x6 s2" and size == (13, 15):
        size = (14, 22)  # an even kernel promises nothing at odd sizes
    stock = stock_of(case.layer)(torch.zeros(1, case.c_in, 16, 16))
    with torch.no_grad():
        out = built(str(case))(image(case, *size))
    assert out.shape == (2, stock.shape[1], *promised(case, *size))
    assert out.isfinite().all()


@each_case
def test_gradient_reaches_every_parameter_and_the_input(case: Case, awake: Callable[[nn.Module], nn.Module]) -> None:
    layer = awake(built(str(case)))  # in eval mode: batch statistics would cancel a bias before them
    x = image(case, batch=8).requires_grad_()
    (layer(x) ** 2).sum().backward()
    starved = [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()]
    assert starved == []
    assert x.grad is not None
    assert x.grad.abs().sum(dim=(0, 2, 3)).all()  # every channel of it


@each_case
def test_operator_trains_and_stores_no_part_of_the_graph(case: Case) -> None:
    layer = deepcopy(built(str(case))).train()
    layer(image(case).requires_grad_()).sum().backward()  # an operator may have no parameters
    stored = [name for module in layer.modules() for name, value in vars(module).items() if isinstance(value, Tensor)]
    assert stored == []
    assert not any(buffer.requires_grad for buffer in layer.buffers())
    assert all(parameter.is_leaf for parameter in layer.parameters())
    deepcopy(layer)


@each_case
def test_copy_of_an_operator_is_the_same_and_independent(case: Case) -> None:
    layer, x = built(str(case)), image(case)
    copy = deepcopy(layer)
    with torch.no_grad():
        assert torch.equal(copy(x), layer(x))
        for parameter in copy.parameters():
            parameter.zero_()
    assert any(parameter.any() for parameter in layer.parameters()) or not [*layer.parameters()]


@each_case
def test_operator_is_loaded_from_a_file(case: Case) -> None:
    file = io.BytesIO()
    torch.save(built(str(case)), file)
    file.seek(0)
    layer, x = torch.load(file, weights_only=False), image(case)
    with torch.no_grad():
        assert torch.equal(layer(x), built(str(case))(x))
    assert repr(layer) == repr(built(str(case)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@each_case
def test_operator_works_in_half_precision(
    case: Case, dtype: torch.dtype, awake: Callable[[nn.Module], nn.Module]
) -> None:
    layer, x = awake(built(str(case))), image(case)
    with torch.no_grad():
        expected = layer(x)
        out = layer.to(dtype)(x.to(dtype))
    assert out.dtype is dtype
    assert out.isfinite().all()
    error = (out.float() - expected).abs().mean() / expected.abs().mean()
    assert error < (0.01 if dtype is torch.float16 else 0.1)


@each_case
def test_operator_trains_under_autocast(case: Case) -> None:
    layer = deepcopy(built(str(case))).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(image(case).requires_grad_())
    out.float().square().sum().backward()
    assert out.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@each_case
def test_operator_accepts_channels_last(case: Case, awake: Callable[[nn.Module], nn.Module]) -> None:
    layer, x = awake(built(str(case))), image(case)
    last = deepcopy(layer).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.allclose(last(x.to(memory_format=torch.channels_last)), layer(x), atol=1e-5)
    last.train()(x.to(memory_format=torch.channels_last).requires_grad_()).sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@each_case
def test_operator_traced_at_one_size_is_right_at_another(case: Case, awake: Callable[[nn.Module], nn.Module]) -> None:
    layer = awake(built(str(case))).requires_grad_(False)
    traced = torch.jit.trace(layer, image(case, 8, 8), check_trace=False)
    x = image(case, 12, 16)
    assert torch.allclose(traced(x), layer(x), atol=1e-5)


@each_case
def test_operator_has_no_tensor_of_more_than_four_dimensions(case: Case) -> None:
    stored = built(str(case)).state_dict()
    assert max((tensor.dim() for tensor in stored.values()), default=0) <= 4


@each_case
def test_operator_in_eval_mode_is_deterministic(case: Case) -> None:
    layer, x = built(str(case)), image(case)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with torch.no_grad():
        assert torch.equal(layer(x), layer(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


@each_case
def test_parameters_of_an_operator_are_counted(case: Case) -> None:
    layer = built(str(case))
    layer = layer.layer if isinstance(layer, JoinedMaps) else layer
    assert layer.np == sum(parameter.numel() for parameter in layer.parameters())


@each_case
def test_every_compatible_value_can_be_built(case: Case) -> None:
    tried = 0
    for parameter in case.operator.parameters:
        for value in parameter.allowed:
            parameters = {**case.parameters, parameter.name: value}
            if is_legal(case.layer, case.operator, parameters):
                with torch.no_grad():
                    out = grafted(case.layer, case.operator, parameters)(image(case))
                assert out.shape[-2:] == promised(case, 12, 16)
                tried += 1
            else:
                with pytest.raises(SpecError, match=f"{case.operator.name} cannot stand in {host(case.layer).name}"):
                    grafted(case.layer, case.operator, parameters)
    assert tried or not case.operator.parameters


@each_operator
def test_incompatibility_covers_all_that_a_module_refuses(operator: Operator) -> None:
    every = (site for layer in LAYERS for site in sites(layer, operator))
    different = {(site.kind, site.c_in, site.c_out, site.kernel, site.stride): site for site in every}
    for site, parameters in product(different.values(), combinations(operator)):
        obstacle = operator.incompatibility(site, parameters)
        assert obstacle is None or len(obstacle.split()) > 3
        if obstacle is None:
            with torch.device("meta"):
                operator.build(site, **parameters)  # raises nothing


@each_operator
def test_equal_choices_build_equal_layers_and_others_do_not(operator: Operator) -> None:
    layer = next(case.layer for case in CASES if case.operator is operator)
    built: dict[str, Choice] = {}
    for parameters in combinations(operator):
        if is_legal(layer, operator, parameters):
            choice = Choice.of(operator.name, parameters)
            with torch.device("meta"):
                module = repr(operator.build(sites(layer, operator)[0], **dict(choice.parameters)))
            assert built.setdefault(module, choice) == choice
    assert len(set(built.values())) == len(built)


@each_operator
def test_operator_records_are_complete(operator: Operator) -> None:
    assert all(parameter.default in parameter.allowed for parameter in operator.parameters)
    assert all(parameter.check(value) is value for parameter in operator.parameters for value in parameter.allowed)
    assert list(operator.complete({})) == [parameter.name for parameter in operator.parameters]
    assert "arXiv" in operator.reference
    assert OPERATORS[operator.name] is operator


@each_operator
def test_operator_modules_stay_where_checkpoints_look_for_them(operator: Operator) -> None:
    assert operator.module.__module__.startswith("search_spaces.operators.")
    assert getattr(__import__(operator.module.__module__, fromlist=["_"]), operator.module.__name__) is operator.module


@each_case
def test_extra_macs_of_operators_are_counted(case: Case) -> None:
    found = [module for module in built(str(case)).modules() if isinstance(module, case.operator.module)]
    assert found
    if case.operator.extra_macs is not None:
        x = torch.zeros(1, 32, 8, 8)
        assert case.operator.extra_macs(found[0], x, x) > 0


@pytest.mark.parametrize("case", marked([case for case in CASES if case.operator.init_from is not None]), ids=str)
def test_an_initialised_operator_learns(case: Case) -> None:
    """Train for some steps: zero or equal initial values delay some gradients, but none stays zero."""
    module, stock = deepcopy(built(str(case))).train(), stock_of(case.layer)
    before = dict(stock.named_modules())
    inside = {path: each for path, each in module.named_modules() if type(each) is case.operator.module}
    assert case.operator.init_from is not None
    with torch.no_grad():
        for path, each in inside.items():
            case.operator.init_from(each, before.get(path))
    start = {name: value.clone() for name, value in module.named_parameters() if name.startswith(tuple(inside))}
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        y = module(image(case, batch=4))
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
    parameters = dict(module.named_parameters())
    assert [name for name, value in start.items() if torch.equal(value, parameters[name])] == []
    assert all(parameters[name].isfinite().all() for name in start)
