import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from trials import Budget, Limits, Recipe

DATA = {"data": Path("/data/data.yaml")}


def mistakes(model: type[BaseModel], fields: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the addresses of all mistakes."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return [error["loc"] for error in caught.value.errors()]


@pytest.mark.parametrize("field", ["image_size", "deploy_size"])
@pytest.mark.parametrize("size", [0, -32, 31, 33, 100, 64.0, "64", True, None])
def test_image_size_must_be_a_multiple_of_32(field: str, size: object) -> None:
    assert mistakes(Budget, {**DATA, field: size}) == [(field,)]


@pytest.mark.parametrize("size", [32, 96, 640])
def test_every_positive_multiple_of_32_is_an_image_size(size: int) -> None:
    assert Budget(data=DATA["data"], image_size=size).image_size == size


@pytest.mark.parametrize("field", ["epochs", "batch", "seed"])
@pytest.mark.parametrize("value", [True, 1.0, "1", -1, None])
def test_count_must_be_a_whole_number(field: str, value: object) -> None:
    assert mistakes(Budget, {**DATA, field: value}) == [(field,)]


@pytest.mark.parametrize("rung", [True, "1", 1.0])
def test_rung_must_be_a_whole_number(rung: object) -> None:
    assert mistakes(Budget, {**DATA, "rungs": [1, rung]}) == [("rungs", 1)]


@pytest.mark.parametrize("model", [Budget, Recipe, Limits])
def test_unknown_key_of_a_budget_is_refused(model: type[BaseModel]) -> None:
    assert mistakes(model, {**DATA, "epoch": 3})[-1] == ("epoch",)


REALS = [
    (Budget, "timeout"),
    *((Recipe, name) for name, field in Recipe.model_fields.items() if field.annotation is float),
    (Limits, "gflops"),
    (Limits, "latency_ms"),
]


def test_budget_has_fields_of_real_numbers() -> None:
    assert len(REALS) == 13


@pytest.mark.parametrize(("model", "field"), REALS)
@pytest.mark.parametrize("value", [True, "0.5", math.nan, math.inf, -1.0])
def test_booleans_text_and_non_finite_values_are_no_numbers(model: type[BaseModel], field: str, value: object) -> None:
    fields = DATA if model is Budget else {}
    assert (field,) in {address[:1] for address in mistakes(model, {**fields, field: value})}


@pytest.mark.parametrize(("model", "field"), REALS)
def test_whole_number_is_allowed_for_a_real_number(model: type[BaseModel], field: str) -> None:
    fields = DATA if model is Budget else {}
    if field == "scale":  # below 1, lest an image is scaled to nothing
        assert mistakes(model, {field: 1}) == [(field,)]
    else:
        assert getattr(model.model_validate({**fields, field: 1}), field) == 1.0


@pytest.mark.parametrize("field", ["gflops", "params", "latency_ms"])
def test_a_limit_of_0_is_refused(field: str) -> None:
    assert mistakes(Limits, {field: 0})[0][0] == field


def test_limits_are_none_by_default() -> None:
    assert Limits().model_dump(exclude_none=True) == {}


@pytest.mark.parametrize("value", [Budget(data=DATA["data"], rungs=(1, 2)), Recipe(), Limits(params=1)])
def test_budgets_recipes_and_limits_are_immutable_values(value: BaseModel) -> None:
    again = type(value).model_validate_json(value.model_dump_json())
    assert again == value
    assert hash(again) == hash(value)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(value, next(iter(type(value).model_fields)), None)


@pytest.mark.parametrize(("deploy_size", "image_size"), [(None, 128), (640, 128), (320, 64), (416, 96), (1280, 256)])
def test_training_size_keeps_its_ratio_to_the_deployment_size(deploy_size: int | None, image_size: int) -> None:
    budget = Budget(data=Path("data.yaml"), image_size=128, deploy_size=640)
    assert budget.at(deploy_size).image_size == image_size
    assert budget.at(deploy_size).deploy_size == (deploy_size or 640)


def test_deterministic_is_stored_only_where_it_was_asked_for() -> None:
    """Stored budgets, and hashes of them, stay as they were before it existed."""
    budget = Budget(data=DATA["data"])
    assert "deterministic" not in budget.model_dump()
    assert "deterministic" not in budget.model_dump_json(exclude={"timeout"})
    asked = budget.model_copy(update={"deterministic": True})
    assert asked.model_dump(mode="json")["deterministic"] is True
    assert Budget.model_validate_json(asked.model_dump_json()) == asked
    assert Budget.model_validate_json(budget.model_dump_json()) == budget


def test_channels_are_stored_only_where_a_width_is_searched() -> None:
    assert "channels" not in Budget(data=DATA["data"]).model_dump(mode="json")
    searched = Budget(data=DATA["data"], channels="important")
    assert Budget.model_validate_json(searched.model_dump_json()) == searched
    assert mistakes(Budget, {**DATA, "channels": "last"}) == [("channels",)]
