"""Records of operators: field names of version 0.1.0, which users' files and checkpoints still have."""

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from search_spaces.operators import OPERATORS, Operator, Parameter, Site, SiteKind
from search_spaces.operators.record import Parameters


def refuse(_site: Site, _parameters: Parameters) -> str:
    return "it fits nowhere at all"


def drop_all(_parameters: Parameters) -> Parameters:
    return {}


def copy_nothing(_module: nn.Module, _replaced: nn.Module | None) -> tuple[str, ...]:
    return ()


def count_nothing(*_arguments: Any) -> int:
    return 0


OLD: dict[str, Any] = {
    "obstacle": refuse,
    "living": drop_all,
    "adopt": copy_nothing,
    "unseen_macs": count_nothing,
}
NEW: dict[str, Any] = {
    "incompatibility": refuse,
    "active_parameters": drop_all,
    "init_from": copy_nothing,
    "extra_macs": count_nothing,
}


def record(**fields: Any) -> Operator:
    return Operator(
        name="Mine",
        module=nn.Identity,
        parameters=(),
        kinds=(SiteKind.CONV,),
        build=nn.Identity,
        reference="",
        **fields,
    )


def test_an_operator_takes_old_field_names() -> None:
    assert record(**OLD) == record(**NEW)


def test_a_parameter_takes_the_old_field_name() -> None:
    old: dict[str, Any] = {"worthwhile": (1, 2)}
    new = Parameter(name="groups", default=1, allowed=(1, 2, 4), search_values=(1, 2))
    assert Parameter(name="groups", default=1, allowed=(1, 2, 4), **old) == new


@pytest.mark.parametrize(("old", "new"), list(zip(OLD, NEW, strict=True)))
def test_old_field_names_of_records_can_be_read(old: str, new: str) -> None:
    assert getattr(OPERATORS["DynamicConv"], old) is getattr(OPERATORS["DynamicConv"], new)


def test_field_under_old_and_new_name_is_refused() -> None:
    both: dict[str, Any] = {"obstacle": refuse, "incompatibility": refuse}
    with pytest.raises(TypeError, match="obstacle is an older name of incompatibility; give one of them"):
        record(**both)


def test_copy_of_a_record_has_other_fields() -> None:
    assert replace(record(), incompatibility=refuse).incompatibility is refuse
