"""Provenance of a score."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from trials import Budget, Recipe, provenance
from trials.data import datasets
from trials.provenance import Provenance

TinyBudget = Callable[..., Budget]


def test_provenance_has_seed_data_device_recipe_code_and_versions(tiny: TinyBudget, scenes: datasets.DataSet) -> None:
    found = Provenance.of(tiny(seed=7), scenes)
    assert (found.seed, found.data, found.threads) == (7, scenes.fingerprint, 1)
    assert found.versions["torch"] == torch.__version__
    assert {"python", "ultralytics", "numpy"} <= set(found.versions)
    assert found.device
    assert re.fullmatch(r"[0-9a-f]{12}", found.recipe)
    assert re.fullmatch(r"[0-9a-f]{12}", found.code)


def test_provenance_of_another_recipe_has_another_hash(tiny: TinyBudget, scenes: datasets.DataSet) -> None:
    one = Provenance.of(tiny(), scenes)
    assert Provenance.of(tiny(epochs=9), scenes) == one  # epochs are the budget's, not the recipe's
    other = Provenance.of(tiny(recipe=Recipe(fliplr=0.0, scale=0.5)), scenes)
    assert other == replace(one, recipe=other.recipe)
    assert other.recipe != one.recipe


def test_commit_of_the_provenance_is_a_hash_or_empty_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    provenance._commit.cache_clear()
    assert re.fullmatch(r"([0-9a-f]{40}\+?)?", provenance._commit())
    provenance._commit.cache_clear()

    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert provenance._commit() == ""
    provenance._commit.cache_clear()
