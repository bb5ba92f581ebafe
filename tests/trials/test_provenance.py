"""Provenance of a score."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from search_spaces.files import digest
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


def test_initial_weights_are_hashed_by_their_tensors(
    tiny: TinyBudget, scenes: datasets.DataSet, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}.pt" for name in ("one", "two", "other")]
    for path, value in zip(paths, (1.0, 1.0, 2.0), strict=True):
        torch.save({"tensors": torch.tensor([value, 3.0]), "path": str(path)}, path)
    assert paths[0].read_bytes() != paths[1].read_bytes()
    one, two, other = (Provenance.of(tiny(weights=path), scenes) for path in paths)
    assert one == two
    assert other == replace(one, weights=other.weights)
    assert re.fullmatch(r"[0-9a-f]{12}", one.weights)
    assert other.weights != one.weights
    assert Provenance.of(tiny(), scenes).weights == ""
    torch.save({"tensors": torch.tensor([9.0, 3.0])}, paths[0])
    assert Provenance.of(tiny(weights=paths[0]), scenes).weights != one.weights


def test_weights_that_are_no_archive_are_hashed_whole(
    tiny: TinyBudget, scenes: datasets.DataSet, tmp_path: Path
) -> None:
    path = tmp_path / "legacy.pt"
    path.write_bytes(b"weights")
    assert Provenance.of(tiny(weights=path), scenes).weights == digest(path)[:12]


def test_commit_of_the_provenance_is_a_hash_or_empty_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    provenance.commit.cache_clear()
    assert re.fullmatch(r"([0-9a-f]{40}\+?)?", provenance.commit())
    provenance.commit.cache_clear()

    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert provenance.commit() == ""
    provenance.commit.cache_clear()
