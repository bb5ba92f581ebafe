"""A part of the images that a study reads: chosen by class, the same for all trainings, by default of large sets."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.cli.planning import _images
from nas.study.study import Study
from nas.workflows.amount import chosen_subset, in_words
from nas.workflows.begin import require_same_data
from nas.workflows.derived import derived_study
from nas.workflows.plan import Plan
from nas.workflows.presets import PRESETS, epochs_for
from nas.workflows.request import Request
from search_spaces.errors import SpecError, StudyError
from trials.budget import Budget, Subset
from trials.data import datasets, unseen_images
from trials.data.datasets import DataSet

from .test_sealed_images import SMALL, SPACE, TINY

Ask = Callable[..., Plan]
STANDARD = PRESETS["standard"]


@pytest.fixture
def data(tmp_path: Path, write_scenes: Callable[..., Path]) -> Path:
    return write_scenes(tmp_path / "scenes")


@pytest.fixture
def ask(tmp_path: Path, data: Path) -> Ask:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "small.yaml").write_text(SPACE)

    def make(**options: Any) -> Plan:
        fields: dict[str, Any] = {"space": tmp_path / "small.yaml", "data": data, "runs": tmp_path / "runs"}
        return Plan.of(Request.of(**{**fields, "trials": 3, **SMALL, **options}))

    return make


def images(data: DataSet) -> tuple[set[str], set[str]]:
    """Return the paths of the images to train on, and of those to validate on."""
    train, val = (set(datasets._images(sources)) for sources in (data.train, data.val))
    return train, val


class TestStudy:
    def test_numbers_are_stored_and_the_data_are_the_chosen_images(self, ask: Ask) -> None:
        plan = ask(fraction=0.25, val_images=8)
        study = plan.begin()
        stored = json.loads((study.folder / "study.json").read_text())["settings"]
        assert stored["subset"] == {"seed": 0, "train": 10, "val": 8, "of_train": 40, "of_val": 20}
        assert "subset" not in stored["budget"]
        assert (plan.data.train_images, plan.data.val_images) == (10, 8)
        opened = Study.open(study.folder).data_set()
        assert opened.fingerprint == plan.data.fingerprint == study.settings.data_fingerprint
        assert images(opened) == images(plan.data)

    def test_all_trainings_read_the_same_images(self, ask: Ask) -> None:
        study = ask(fraction=0.25).begin()
        subset = study.settings.subset
        assert study.stock_training is not None
        assert (
            study.stock_training.budget.subset
            == study.scoring.budget(study.space.stock, 3).subset
            == subset
            is not None
        )

    def test_a_confirmation_trains_on_them_and_judges_by_all_of_val(self, ask: Ask, data: Path) -> None:
        search = ask(fraction=0.25, val_images=8).begin()
        settings = search.settings.model_copy(update={"confirms": search.name})
        beside = derived_study(search, f"{search.name}-confirm", settings, trials=2, changes={})
        assert images(beside.data_set()) == images(search.data_set())
        assert len(unseen_images.validation_images(data).images) == 20

    def test_without_a_fraction_everything_is_as_before(self, ask: Ask) -> None:
        plan = ask()
        assert plan.file.settings.subset is None
        assert plan.data.train == (str(plan.data.path.parent / "images/train"),)
        assert ask(fraction=1.0, val_images=20).file.settings == plan.file.settings
        assert _images(plan) == ""

    def test_score_of_other_images_is_not_reused(self, ask: Ask) -> None:
        studies = [ask(**one).begin() for one in ({}, {"fraction": 0.25}, {"fraction": 0.5}, {"val_images": 8})]
        assert (
            len({study.scoring._key(study.space.stock, study.scoring.budget(study.space.stock)) for study in studies})
            == 4
        )
        assert len({study.stock_training.key for study in studies if study.stock_training}) == 4

    def test_a_changed_label_of_a_chosen_image_is_noticed(self, ask: Ask) -> None:
        study = ask(fraction=0.25).begin()
        image = Path(min(images(study.data_set())[0]))
        label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        label.write_text("0 0.5 0.5 0.2 0.2\n")
        with pytest.raises(StudyError, match="the data set has changed"):
            require_same_data(study)

    def test_plan_says_what_is_read(self, ask: Ask) -> None:
        expected = "40 images: 25 % of them, 10, chosen by class, 8 of 20 images to validate on, chosen by class"
        assert _images(ask(fraction=0.25, val_images=8)) == expected

    def test_sealed_images_are_not_among_them(self, ask: Ask) -> None:
        plan = ask(fraction=0.5, holdout=0.15)
        subset = plan.file.settings.subset
        assert subset is not None
        assert (subset.train, subset.of_train) == (17, 34)
        assert not set(plan.data.sealed) & images(plan.data)[0]

    def test_a_fraction_of_no_image_is_refused(self, ask: Ask) -> None:
        with pytest.raises(SpecError) as caught:
            ask(fraction=0.01)
        assert str(caught.value) == "fraction: 0.01 of 40 images is no image (at least 0.025)"

    def test_budget_of_an_old_study_has_no_subset(self, tmp_path: Path) -> None:
        assert "subset" not in Budget(data=tmp_path / "data.yaml").model_dump()


class TestSubset:
    def test_smaller_is_a_part_of_larger_and_another_seed_is_another_choice(self, data: Path) -> None:
        def chosen(count: int, seed: int = 0) -> set[str]:
            subset = Subset(seed=seed, train=count, val=20, of_train=40, of_val=20)
            return images(datasets.load(data, subset=subset))[0]

        assert chosen(5) < chosen(13) < chosen(30)
        assert chosen(13) == chosen(13)
        assert chosen(13) != chosen(13, seed=1)

    def test_the_same_images_wherever_the_data_set_lies(self, data: Path, tmp_path: Path) -> None:
        subset = Subset(seed=0, train=9, val=4, of_train=40, of_val=20)
        before = datasets.load(data, subset=subset)
        moved = data.parent.rename(tmp_path / "elsewhere") / data.name
        after = datasets.load(moved, subset=subset)
        assert before.fingerprint == after.fingerprint
        assert {Path(one).name for one in images(after)[0]} == {Path(one).name for one in _listed(before)}

    def test_classes_and_images_without_objects_have_their_share(self, data: Path) -> None:
        every = datasets.load(data).summary.train
        half = datasets.load(data, subset=Subset(seed=0, train=20, val=20, of_train=40, of_val=20)).summary.train
        assert [abs(a - 2 * b) <= 2 for a, b in zip(every.per_class, half.per_class, strict=True)] == [True, True]
        assert abs(every.background - 2 * half.background) <= 2


def _listed(data: DataSet) -> list[str]:
    return Path(data.train[0]).read_text().split()


class TestAmount:
    @pytest.mark.parametrize("images", [1, 192, 205, 2400])
    def test_small_sets_keep_images_and_epochs(self, images: int) -> None:
        for preset in PRESETS.values():
            assert chosen_subset(Request(), preset, images, 5000) is None
            assert epochs_for(preset.epochs, images) == preset.epochs
            assert epochs_for(preset.base_epochs, images) == preset.base_epochs

    @pytest.mark.parametrize(
        ("train", "read", "epochs", "base", "text"),
        [
            (3000, 3000, 16, 48, "3000 images: 16 epochs instead of 20, in which a trial reads 48000 images"),
            (
                20_000,
                4000,
                12,
                36,
                (
                    "20000 images: 20 % of them, 4000, chosen by class, 12 epochs instead of 20, in which a trial "
                    "reads 48000 images"
                ),
            ),
        ],
    )
    def test_large_sets_are_read_as_often_in_all(
        self, train: int, read: int, epochs: int, base: int, text: str
    ) -> None:
        subset = chosen_subset(Request(seed=3), STANDARD, train, 500)
        assert (subset.train if subset else train) == read
        assert (epochs_for(STANDARD.epochs, read), epochs_for(STANDARD.base_epochs, read)) == (epochs, base)
        assert in_words(subset, read, epochs, STANDARD.epochs) == text

    def test_given_numbers_hold(self) -> None:
        assert chosen_subset(Request(fraction=1.0), STANDARD, 20_000, 500) is None
        subset = chosen_subset(Request(fraction=0.5, val_images=100), STANDARD, 20_000, 500)
        assert subset == Subset(seed=0, train=10_000, val=100, of_train=20_000, of_val=500)
        assert in_words(subset, 10_000, 7, STANDARD.epochs) == (
            "20000 images: 50 % of them, 10000, chosen by class, 100 of 500 images to validate on, chosen by class"
        )

    def test_very_large_sets_have_six_epochs(self) -> None:
        assert epochs_for(STANDARD.epochs, 1_000_000) == 6
        assert Counter(epochs_for(1, images) for images in (10, 10_000)) == {1: 2}


class TestTrust:
    def test_a_ranking_on_fewer_images_says_so(self, make_study: Callable[..., Study]) -> None:
        subset = Subset(seed=0, train=400, val=288, of_train=4000, of_val=500)
        trust = make_study(subset=subset).trust()
        expected = (
            "trained on 400 of 4000 images, validated on 288 of 500: noise and order are those on so many; whether all "
            "rank alike is not measured; the sample of 288 adds an error of about 0.2 points to a difference, which "
            "seeds do not show (as measured on BCCD)"
        )
        assert trust.images == trust.as_document()["images"] == expected
        assert f"images    {expected}" in trust.lines()

    def test_a_ranking_on_all_images_says_nothing(self, make_study: Callable[..., Study]) -> None:
        trust = make_study().trust()
        assert trust.images == ""
        assert not [line for line in trust.lines() if line.startswith("images")]
