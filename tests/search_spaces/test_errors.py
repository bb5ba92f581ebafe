import pytest

from search_spaces import errors
from search_spaces.errors import NasError, SpecError, nearest


def test_every_error_class_is_documented() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert all(issubclass(one, NasError) for one in classes)
    assert errors.__doc__ is not None
    assert all(one.__name__ in errors.__doc__ for one in classes)


def test_mistakes_are_lines_with_their_address() -> None:
    error = SpecError(["a: wrong", "b: wrong"]).within("slots[0]").within("x.yaml")
    assert error.mistakes == ("x.yaml: slots[0]: a: wrong", "x.yaml: slots[0]: b: wrong")
    assert str(error) == "x.yaml: slots[0]: a: wrong\nx.yaml: slots[0]: b: wrong"
    assert SpecError("one").mistakes == ("one",)


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [
        ("DySampel", ["UIB", "DySample"], "did you mean 'DySample'?"),
        ("xyz", ["UIB", "DySample"], "one of UIB, DySample"),
        (4, [3, 5], "one of 3, 5"),
    ],
)
def test_unknown_name_suggests_the_nearest_or_lists_all(name: object, options: list[object], hint: str) -> None:
    assert nearest(name, options) == hint
