from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces import Architecture, Choice, SearchSpace
from trials import Budget, Recipe
from trials.data import datasets


@pytest.fixture
def tiny(scenes: datasets.DataSet) -> Callable[..., Budget]:
    """A budget of a second on one core; changes replace its fields."""

    def budget(**changes: object) -> Budget:
        fields = {"data": scenes.path, "epochs": 2, "image_size": 64, "deploy_size": 64, "batch": 8}
        return Budget.model_validate({**fields, "recipe": Recipe(fliplr=0.0), **changes})

    return budget


@pytest.fixture(scope="session")
def stock() -> Architecture:
    """The quickest stock model that there is."""
    return Architecture(base="yolov5{scale}.yaml", scale="n", picks=())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder for one trial."""
    path = tmp_path / "trial"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def motley(space_of: Callable[[str], SearchSpace]) -> Architecture:
    """Every operator at once, in the quickest base model."""
    picks = {
        2: Choice.of("UIB", {}),
        3: Choice.of("DynamicConv", {}),
        4: Choice.of("DCNv4", {}),
        6: Choice.of("MMQA", {"kv_stride": 2}),
        11: Choice.of("DySample", {}),
    }
    return space_of("v5").of(picks)
