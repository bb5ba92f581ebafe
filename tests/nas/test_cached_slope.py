"""Slope of a search that is planned, from the score cache."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nas.study.score_cache import OFF, ScoreCache
from nas.workflows.cached_slope import cached_slope
from nas.workflows.plan import Plan
from nas.workflows.request import Request

SPACE = '{name: small, base: "yolov8{scale}.yaml", scale: n, slots: [{at: {layers: [4]}, choices: {UIB: {}}}]}'


@pytest.mark.parametrize("holdout", [None, 0.2])
def test_trainings_of_the_stock_model_are_found_by_the_keys_of_the_study(
    tmp_path: Path, write_scenes: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, holdout: float | None
) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    places = {"space": tmp_path / "small.yaml", "data": write_scenes(tmp_path / "scenes"), "runs": tmp_path / "runs"}
    plan = Plan.of(Request.of(**places, holdout=holdout, epochs=2, base_epochs=4, image_size=64, device="cpu"))
    stored: dict[str, Any] = {}
    monkeypatch.delenv(OFF, raising=False)
    monkeypatch.setattr(ScoreCache, "read", lambda _, key: stored.get(key))
    assert cached_slope(plan) is None
    study = plan.begin()
    assert study.stock_training is not None
    keys = study.stock_training.key, study.scoring._key(study.space.stock, study.scoring.budget(study.space.stock))
    for key, accuracy in zip(keys, (0.30, 0.35), strict=True):
        assert cached_slope(plan) is None
        stored[key] = SimpleNamespace(scores={"map50_95": accuracy})
    found = cached_slope(plan)
    assert found is not None
    assert found.epochs == 2
    assert found.gain == pytest.approx(5)
