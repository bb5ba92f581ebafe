"""A search with sealed images and its confirmation, as an older version wrote them, are judged and resumed today.

tests/golden/README.md says what the archive holds.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas.cli import app
from nas.study.score_cache import ScoreCache
from nas.study.study import Study
from nas.workflows.confirm import confirm
from nas.workflows.running import supervise
from trials.accuracy.judged import Judged
from trials.data import holdout

SEALED = ("images/train/10.png", "images/train/7.png", "images/train/9.png", "images/val/7.png", "images/val/9.png")
FINALIST = {
    "difference": -1.8876174702490545,
    "low": -11.509460053190342,
    "high": 7.734225112692233,
    "seed_error": 1.6424645349267126,
    "image_error": 2.776521556791282,
    "p_better": 0.7024512995726283,
    "p_worse": 0.2975487004273717,
    "p_equivalent": 0.6535227169052195,
    "search_difference": 7.5059999999999905,
    "cost_change": -0.00846688841850618,
}
JUDGED = [0.5609493145743146, 0.5309839743589744, 0.5506500000000001, 0.5428629908103593]


@pytest.fixture
def golden(extract_golden: Callable[[str, Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive's folder."""
    folder = extract_golden("2026-11-holdout", tmp_path)
    monkeypatch.setenv("NAS_CACHE", str(folder / "cache"))
    return folder


@pytest.fixture
def search(golden: Path) -> Study:
    return Study.open(golden / "runs" / "golden-holdout")


@pytest.fixture
def confirmation(golden: Path) -> Study:
    return Study.open(golden / "runs" / "golden-holdout-confirm")


def test_sealed_images_are_read(search: Study, confirmation: Study) -> None:
    assert search.sealed is not None
    sealed = holdout.read(search.sealed)
    assert (sealed.share, sealed.images, sealed.of) == (0.25, SEALED, 24)
    assert search.settings.holdout is not None
    judging = confirmation.settings.judging
    assert judging is not None
    assert (judging.source, judging.images) == ("holdout", len(SEALED))


def test_data_without_the_sealed_images_are_those_of_then(search: Study) -> None:
    assert search.data_set().fingerprint == search.settings.data_fingerprint


def test_accuracies_on_sealed_images_are_read(confirmation: Study) -> None:
    judging = confirmation.settings.judging
    assert judging is not None
    read = [Judged.read(confirmation.files(record.trial).judged) for record in confirmation.records()]
    assert [one.map50_95 for one in read] == JUDGED
    assert {one.fingerprint for one in read} == {judging.fingerprint}
    assert {one.matches.images for one in read} == {len(SEALED)}


@pytest.mark.parametrize("name", ["golden-holdout", "golden-holdout-confirm"])
def test_verdict_of_then_is_given(golden: Path, name: str) -> None:
    verdict = Study.open(golden / "runs" / name).verdict()
    assert verdict is not None
    document = verdict.as_document()
    (finalist,) = document["finalists"]
    assert {key: finalist[key] for key in FINALIST} == pytest.approx(FINALIST, rel=1e-12)
    assert (finalist["trial"], finalist["finding"]) == (2, "undecided")
    assert document["stock_map50_95"] == pytest.approx(0.5557996572871573, rel=1e-12)
    assert document["seeds"] == [1000, 1001]


def test_verdict_of_then_is_printed_without_a_training(golden: Path, confirmation: Study) -> None:
    before = confirmation.records()
    shown = CliRunner().invoke(app, ["confirm", "golden-holdout", "--runs", str(golden / "runs")])
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[1].startswith("trial 2: not told apart (-1.9, -11.5 to 7.7)")
    assert "judged on 5 images that were sealed before the search, which no search has read" in lines
    assert Study.open(confirmation.folder).records() == before


def test_confirmation_goes_on_with_another_seed(search: Study, confirmation: Study) -> None:
    before = confirmation.records()
    supervise(confirm(search, seeds=3))
    records = Study.open(confirmation.folder).records()
    assert records[: len(before)] == before
    assert [record.ending for record in records] == ["finished"] * 6
    verdict = search.verdict()
    assert verdict is not None
    assert verdict.seeds == (1000, 1001, 1002)


def test_cached_accuracies_on_sealed_images_are_read(golden: Path) -> None:
    cache = ScoreCache(golden / "cache/scores")
    stored = {path.stem: json.loads(path.read_bytes()) for path in (golden / "cache/scores").rglob("*.json")}
    judged_there = [name for name, training in stored.items() if training.get("judged")]
    assert len(judged_there) == 4
    assert all(cache.read(name) is not None for name in judged_there)
    assert all((golden / f"cache/scores/{name[:2]}/{name}.npz").is_file() for name in judged_there)
