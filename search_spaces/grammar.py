"""The form of a space file, key by key; what the keys mean together is `space_reader`'s to say."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, ValidationError
from pydantic_core import PydanticCustomError

from search_spaces.auxiliary import Pgi, is_pgi
from search_spaces.errors import nearest
from search_spaces.insertions import Feeds
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
"""The stage of a factor that is meant for all of them."""

Several = BeforeValidator(_several)
"""One value is a list of one."""

AuxiliaryBranch = Annotated[Pgi, BeforeValidator(_pgi)]
"""Whether to train with YOLOv9's auxiliary branch, and how."""

Choices = Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
"""For each operator its parameters, a value or a list of values each."""

Factor = Annotated[float, Field(ge=0.1, le=4, strict=True)]
Factors = Annotated[tuple[Factor, ...], Several, Field(min_length=1)]
PerStage = Annotated[dict[Literal["", *STAGES], Factors], BeforeValidator(_staged), Field(min_length=1)]  # type: ignore[valid-type]
Pixels = Annotated[StrictInt, Field(ge=32, multiple_of=32)]


class At(_Strict):
    """Which layers an entry is about; what is given must all hold."""

    section: Literal["backbone", "head"] | None = None
    host: Annotated[tuple[str, ...], Several, Field(min_length=1)] | None = None
    layers: Annotated[tuple[StrictInt, ...], Field(min_length=1)] | None = None


class Entry(_Strict):
    """What may stand in some layers, in each by itself or, tied, the same in all of them."""

    at: At
    choices: Choices
    tie: StrictBool = False


class Insert(_Strict):
    """What may be added behind some layers."""

    after: Annotated[tuple[StrictInt, ...], Several, Field(min_length=1)]
    feeds: Feeds = "next"
    choices: Choices


class Macro(_Strict):
    """Choices about the model as a whole."""

    depth: PerStage | None = None
    width: PerStage | None = None
    image_size: Annotated[tuple[Pixels, ...], Several, Field(min_length=1)] | None = None


class Heading(_Strict):
    """The file as a whole; its lists are read entry by entry, so that one bad entry hides no other's mistakes."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    base: str
    scale: str = ""
    modules: Annotated[tuple[str, ...], Several] = ()
    pgi: AuxiliaryBranch = False
    start: Any = None
    slots: Any = None
    insert: Any = None
    macro: Any = None


def read(model: type[Model], raw: Any, address: str, mistakes: list[str]) -> Model | None:
    """Validate, turning pydantic's errors into ours."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        told = [_told(problem, model, address) for problem in error.errors() if not _echoes(problem)]
        mistakes.extend(dict.fromkeys(told))
        return None


def _echoes(problem: Any) -> bool:
    """Whether pydantic calls a list empty because every item in it is wrong, each of which has its own line."""
    return problem["type"] == "too_short" and bool(problem["input"])


def _told(problem: Any, model: type[BaseModel], address: str) -> str:
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
