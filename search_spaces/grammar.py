"""Format of a space file, key by key; `space_reader` checks what the keys mean together."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from pydantic_core import PydanticCustomError

from search_spaces.errors import nearest
from search_spaces.insertions import Feeds
from search_spaces.pgi_setting import Pgi, is_pgi
from search_spaces.scaling import STAGES

Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _several(value: Any) -> Any:
    return value if isinstance(value, list | dict) else (value,)


def _staged(value: Any) -> Any:
    return value if isinstance(value, dict) else {EVERYWHERE: value}


def _pgi(value: Any) -> Any:
    if not is_pgi(value):
        raise PydanticCustomError("pgi", "true, false or lead-guided is expected")
    return value


EVERYWHERE = ""
"""Stage of a factor for all stages."""

Several = BeforeValidator(_several)
"""Accepts a single value as a list of one."""

AuxiliaryBranch = Annotated[Pgi, BeforeValidator(_pgi)]
"""Setting of YOLOv9's auxiliary branch in training."""

Choices = Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
"""Operators with their parameters; each parameter has a value or a list of values."""

Factor = Annotated[float, Field(ge=0.1, le=4, strict=True)]
Factors = Annotated[tuple[Factor, ...], Several, Field(min_length=1)]
PerStage = Annotated[dict[Literal["", *STAGES], Factors], BeforeValidator(_staged), Field(min_length=1)]  # type: ignore[valid-type]
Pixels = Annotated[StrictInt, Field(ge=32, multiple_of=32)]


class At(_Strict):
    """Layers of an entry: those that meet all given conditions."""

    section: Literal["backbone", "head"] | None = None
    host: Annotated[tuple[str, ...], Several, Field(min_length=1)] | None = None
    layers: Annotated[tuple[StrictInt, ...], Field(min_length=1)] | None = None


class Entry(_Strict):
    """Entry of `slots`: choices for some layers, independent or, with `tie`, the same in all of them."""

    at: At
    choices: Choices
    tie: StrictBool = False


class Insert(_Strict):
    """Entry of `insert`: choices for a new layer behind some layers."""

    after: Annotated[tuple[StrictInt, ...], Several, Field(min_length=1)]
    feeds: Feeds = "next"
    choices: Choices


class Macro(_Strict):
    """Scaling factors of the whole model."""

    depth: PerStage | None = None
    width: PerStage | None = None
    image_size: Annotated[tuple[Pixels, ...], Several, Field(min_length=1)] | None = None


class Heading(_Strict):
    """Top level of the file; `space_reader` reads the lists entry by entry, so that all mistakes are reported."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    base: str
    scale: str = ""
    modules: Annotated[tuple[str, ...], Several] = ()
    pgi: AuxiliaryBranch = False
    start: Any = None
    slots: Any = None
    insert: Any = None
    macro: Any = None


MEMBERS = "members"
"""Key of a file that joins several spaces."""


class Member(_Strict):
    """Entry of `members`: a space by name or path, at one scale or several."""

    space: str
    scale: Annotated[tuple[str, ...], Several, Field(min_length=1)] | None = None


class JoinedHeading(_Strict):
    """Top level of a file that joins several spaces; without a name, the members' names are its name."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.,_-]*$")] | None = None
    members: Any


class PartReader:
    """Base of the readers of parts of a file, which collect all mistakes in them.

    Args:
        mistakes: gets a line for each mistake.
    """

    def __init__(self, mistakes: list[str]) -> None:
        self._mistakes = mistakes

    def _wrong(self, address: str, mistake: str) -> None:
        self._mistakes.append(f"{address}: {mistake}")


def read(model: type[Model], raw: Any, address: str, mistakes: list[str]) -> Model | None:
    """Validate a part of a file; on mistakes add a line for each to `mistakes` and return None."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_message(problem, model, address) for problem in error.errors() if not _is_consequence(problem)]
        mistakes.extend(dict.fromkeys(lines))
        return None


def _is_consequence(problem: Any) -> bool:
    """Return whether pydantic calls a list empty only because every item is wrong, which is reported already."""
    return problem["type"] == "too_short" and bool(problem["input"])


def _message(problem: Any, model: type[BaseModel], address: str) -> str:
    """Return pydantic's problem as a line of ours: address, mistake, value, suggestion."""
    place = address
    for part in problem["loc"]:
        if part in {EVERYWHERE, "[key]"}:
            continue
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    match problem["type"]:
        case "extra_forbidden":
            inner = At if "at" in problem["loc"][:-1] else model
            return f"{place}: unknown key ({nearest(problem['loc'][-1], inner.model_fields)})"
        case "missing":
            return f"{place}: missing"
        case "too_short":
            return f"{place}: empty"
        case "tuple_type":
            return f"{place}: a list is expected, got {problem['input']!r}"
        case "dict_type" | "model_type":
            return f"{place}: a mapping is expected, got {problem['input']!r}"
        case "literal_error" if "P1" in problem["ctx"]["expected"]:
            return f"{place}: unknown stage ({nearest(problem['input'], STAGES)})"
        case "float_type":
            return f"{place}: a number is expected, got {problem['input']!r}"
        case _:
            return f"{place}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"
