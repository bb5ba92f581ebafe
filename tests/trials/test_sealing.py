import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import DataError, SpecError
from trials.budget import Recipe
from trials.data import datasets, holdout, image_cache, image_files, sealing, stratification, unseen_images
from trials.data.holdout import Holdout

WriteScenes = Callable[..., Path]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, write_scenes: WriteScenes) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data"))


def absolute(sealed: Holdout, data: Path) -> list[Path]:
    return [data.parent / image for image in sealed.images]


def label(image: Path) -> Path:
    return Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")


def refusal(data: Path, share: float = 0.15, seed: int = 0) -> str:
    with pytest.raises(SpecError) as caught:
        sealing.seal(data, share, seed)
    return str(caught.value)


class TestStratification:
    @given(st.lists(st.integers(0, 5), max_size=80), st.floats(0.05, 0.5))
    def test_each_class_of_images_with_one_class_has_its_share(self, classes: list[int], share: float) -> None:
        drawn = stratification.draw([{number: 1} for number in classes], share)
        got = Counter(classes[position] for position in drawn)
        for number, count in Counter(classes).items():
            assert abs(got[number] - share * count) <= 0.5 + 1e-9

    @given(st.lists(st.sets(st.integers(0, 4), min_size=1), max_size=60))
    def test_the_rarest_class_has_its_share_among_images_with_several(self, sets: list[set[int]]) -> None:
        units: list[Mapping[int, int]] = [dict.fromkeys(sorted(one), 1) for one in sets]
        drawn = stratification.draw(units, 0.3)
        counts = Counter(number for unit in units for number in unit)
        if counts:
            fewest = min(counts.values())
            rarest = next(number for unit in units for number in unit if counts[number] == fewest)
            assert abs(sum(rarest in units[position] for position in drawn) - 0.3 * fewest) <= 0.5 + 1e-9

    def test_images_that_stay_together_count_as_many(self) -> None:
        assert stratification.draw([{"a": 4}, {"a": 1}, {"a": 4}, {"a": 1}], 0.2) == {3}


class TestDraw:
    def test_a_seed_draws_the_same_images_in_every_version(self, data: Path) -> None:
        sealed = sealing.seal(data, 0.15, 0)
        assert sealed.of == 60
        train, val = ("006", "012", "020", "033", "035", "037"), ("011", "016", "019")
        names = [*(f"images/train/{name}.png" for name in train), *(f"images/val/{name}.png" for name in val)]
        assert list(sealed.images) == names
        assert sealed == sealing.seal(data, 0.15, 0)

    def test_another_seed_draws_others(self, data: Path) -> None:
        draws = {sealing.seal(data, 0.15, seed).images for seed in range(5)}
        assert len(draws) == 5

    def test_where_the_data_set_lies_and_how_it_lists_its_images_changes_nothing(
        self, data: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(data.parent, tmp_path / "moved")
        before, after = sealing.seal(data, 0.2, 3), sealing.seal(tmp_path / "moved" / "data.yaml", 0.2, 3)
        assert after == before
        moved = tmp_path / "moved"
        names = sorted(str(path) for path in (moved / "images" / "train").iterdir())
        (moved / "images" / "train" / "train.txt").write_text("\n".join(reversed(names)))
        (moved / "data.yaml").write_text("train: images/train/train.txt\nval: images/val\nnames: [square, bar]\n")
        assert sealing.seal(moved / "data.yaml", 0.2, 3) == before

    @pytest.mark.parametrize("share", [0.05, 0.15, 0.3, 0.5])
    def test_both_splits_and_every_class_give_their_share(self, data: Path, share: float) -> None:
        sealed = absolute(sealing.seal(data, share, 0), data)
        for split in ("train", "val"):
            images = sorted((data.parent / "images" / split).iterdir())
            classes = {image: {row[0] for row in label(image).read_text().splitlines()} for image in images}
            for number in ("0", "1"):
                have = [image for image in images if number in classes[image]]
                assert abs(sum(image in sealed for image in have) - share * len(have)) < 2
            assert abs(sum(image in sealed for image in images) - share * len(images)) < 2

    @pytest.mark.parametrize("name", [b"two\nlines.png", b"\xff.png", "line\u2028.png".encode()])
    def test_name_that_no_list_can_have_is_refused(
        self, tmp_path: Path, write_scenes: WriteScenes, name: bytes
    ) -> None:
        file = write_scenes(tmp_path)
        image = tmp_path / "images" / "train" / "000.png"
        image.rename(image.with_name(os.fsdecode(name)))
        with pytest.raises(DataError, match="no list of images can have this name"):
            sealing.seal(file, 0.15, 0)

    def test_no_image_is_opened(self, data: Path, tmp_path: Path) -> None:
        shutil.copytree(data.parent, tmp_path / "broken")
        sizes = {path: path.stat().st_size for path in (tmp_path / "broken").rglob("*.png")}
        for path, size in sizes.items():
            path.write_bytes(b"x" * size)
        assert sealing.seal(tmp_path / "broken" / "data.yaml", 0.15, 0) == sealing.seal(data, 0.15, 0)


class TestCopies:
    def test_copies_of_an_image_go_together(self, data: Path, tmp_path: Path) -> None:
        copy = tmp_path / "data"
        shutil.copytree(data.parent, copy)
        with_boxes = [image for image in sorted((copy / "images" / "val").iterdir()) if label(image).read_text()]
        for image in with_boxes:
            for file in (image, label(image)):
                shutil.copy(file, file.parents[1] / "train" / f"copy-{file.name}")
        self.require_together(
            copy / "data.yaml", [(f"images/val/{one.name}", f"images/train/copy-{one.name}") for one in with_boxes]
        )

    def test_one_image_under_two_names_goes_together(self, data: Path, tmp_path: Path) -> None:
        copy = tmp_path / "data"
        shutil.copytree(data.parent, copy)
        names = [image.name for image in sorted((copy / "images" / "train").iterdir())]
        for name in names:
            (copy / "images" / "val" / f"link-{name}").symlink_to(copy / "images" / "train" / name)
        pairs = [(f"images/train/{name}", f"images/val/link-{name}") for name in names]
        self.require_together(copy / "data.yaml", pairs)

    def test_augmented_copies_of_roboflow_go_together(self, data: Path, tmp_path: Path) -> None:
        copy = tmp_path / "data"
        shutil.copytree(data.parent, copy)
        pairs = []
        for number in range(20):
            names = [f"scene{number}_jpg.rf.{'ab'[half] * 32}" for half in range(2)]
            for half, name in enumerate(names):
                image = copy / "images" / "train" / f"{number + 20 * half:03}.png"
                for file in (image, label(image)):
                    file.rename(file.with_name(f"{name}{file.suffix}"))
            pairs.append((f"images/train/{names[0]}.png", f"images/train/{names[1]}.png"))
        self.require_together(copy / "data.yaml", pairs)

    def require_together(self, file: Path, pairs: list[tuple[str, str]]) -> None:
        together = 0
        for seed in range(4):
            sealed = set(sealing.seal(file, 0.3, seed).images)
            assert all((one in sealed) == (other in sealed) for one, other in pairs)
            together += sum(one in sealed for one, _ in pairs)
        assert together > 0


class TestVanishing:
    def test_classes_that_would_vanish_are_named_with_their_images(
        self, tmp_path: Path, write_scenes: WriteScenes
    ) -> None:
        file = write_scenes(tmp_path)
        file.write_text(file.read_text().replace("bar]", "bar, rare]"))
        for name in ("train/000", "train/001", "val/000"):
            (tmp_path / "labels" / f"{name}.txt").write_text("2 0.5 0.5 0.2 0.2\n")
        assert refusal(file) == (
            "holdout: at 15% no image would be sealed of 'rare' (2 in train, 1 in val) (--holdout 30% would seal 18 "
            "images, and no class would vanish; or give the data.yaml a test: split, whose images no search reads)"
        )

    def test_class_of_one_image_cannot_be_kept_by_any_share(self, tmp_path: Path, write_scenes: WriteScenes) -> None:
        file = write_scenes(tmp_path)
        file.write_text(file.read_text().replace("bar]", "bar, single]"))
        (tmp_path / "labels" / "val/000.txt").write_text("2 0.5 0.5 0.2 0.2\n")
        assert refusal(file, 0.5) == (
            "holdout: at 50% no image would be sealed of 'single' (0 in train, 1 in val) (no share can be "
            "used; give the data.yaml a test: split, whose images no search reads)"
        )

    def test_all_classes_that_would_vanish_are_named_at_once(self, tmp_path: Path, write_scenes: WriteScenes) -> None:
        file = write_scenes(tmp_path)
        file.write_text(file.read_text().replace("bar]", "bar, a, b, c, d]"))
        for number, classes in enumerate([(2, 5), (2, 3, 5), (3, 5), (4, 5), (0,), (0,)]):
            rows = [f"{one} 0.5 0.5 0.{2 + one} 0.2\n" for one in classes]
            (tmp_path / "labels" / "train" / f"{number:03}.txt").write_text("".join(rows))
        assert refusal(file, 0.5, 295) == (
            "holdout: at 50% no image would be sealed of 'c' (1 in train, 0 in val); no image would stay in train of "
            "'a' (2 in train) (no share can be used; give the data.yaml a test: split, whose images no search reads)"
        )

    def test_class_without_any_image_does_not_count(self, tmp_path: Path, write_scenes: WriteScenes) -> None:
        file = write_scenes(tmp_path)
        file.write_text(file.read_text().replace("bar]", "bar, none]"))
        assert len(sealing.seal(file, 0.15, 0).images) > 0

    def test_mistakes_in_labels_are_found_before_they_are_sealed(
        self, tmp_path: Path, write_scenes: WriteScenes
    ) -> None:
        file = write_scenes(tmp_path)
        sealed = sealing.seal(file, 0.15, 0)
        label(absolute(sealed, file)[0]).write_text("9 0.5 0.5 0.2 0.2\n")
        with pytest.raises(DataError, match="class 9"):
            sealing.seal(file, 0.15, 0)


class TestReading:
    def test_sealed_images_and_labels_are_not_read(self, data: Path, tmp_path: Path) -> None:
        sealed = sealing.seal(data, 0.15, 0)
        whole, rest = datasets.load(data), datasets.load(data, sealed=sealed)
        assert rest.train_images + rest.val_images == 60 - len(sealed.images)
        assert rest.sealed == tuple(map(str, sorted(absolute(sealed, data))))
        assert rest.summary.train.unused == rest.summary.val.unused == 0
        assert rest.fingerprint != whole.fingerprint
        shutil.copytree(data.parent, tmp_path / "data")
        copy = tmp_path / "data" / "data.yaml"
        for image in absolute(sealed, copy):
            image.unlink()
            label(image).unlink()
        assert datasets.load(copy, sealed=sealed).fingerprint == rest.fingerprint
        assert datasets.load(copy).fingerprint == rest.fingerprint
        moved = datasets.load(copy, sealed=sealed)
        images = image_cache.load(
            moved.train, moved.classes, 32, 8, Recipe(), stride=32, training=True, root=moved.root
        )
        assert len(images.im_files) == len([one for one in images.ims if one is not None]) == rest.train_images
        assert not set(images.im_files) & set(moved.sealed)

    def test_training_reads_the_same_images_from_the_list_as_from_folders(self, data: Path) -> None:
        sealed = sealing.seal(data, 0.15, 0)
        read = datasets.load(data, sealed=sealed)
        images = image_files.find([*read.train, *read.val], Path())
        every = set(map(str, data.parent.rglob("*.png")))
        assert sorted(images) == sorted(every - set(read.sealed))

    def test_list_deleted_from_the_cache_is_written_again(self, data: Path) -> None:
        sealed = sealing.seal(data, 0.15, 0)
        (listed,) = datasets.load(data, sealed=sealed).train
        text = Path(listed).read_text()
        Path(listed).write_text("torn")
        assert datasets.load(data, sealed=sealed).train == (listed,)
        assert Path(listed).read_text() == text

    def test_written_data_yaml_names_the_sealed_images_as_test(self, data: Path, tmp_path: Path) -> None:
        sealed = sealing.seal(data, 0.15, 0)
        rest = datasets.load(data, sealed=sealed)
        datasets.write(rest, tmp_path)
        written = yaml.safe_load((tmp_path / "data.yaml").read_text())
        assert written["test"] == str(tmp_path / "test.txt")
        assert (tmp_path / "test.txt").read_text().splitlines() == list(rest.sealed)
        again = datasets.load(tmp_path / "data.yaml")
        assert (again.train_images, again.val_images) == (rest.train_images, rest.val_images)
        assert unseen_images.images_of_test(tmp_path / "data.yaml") == rest.sealed


class TestStoredList:
    def test_list_is_read_as_it_was_written(self, data: Path, tmp_path: Path) -> None:
        sealed = sealing.seal(data, 0.15, 0)
        sealed.write(tmp_path / "holdout.json")
        assert holdout.read(tmp_path / "holdout.json") == sealed
        assert set(json.loads((tmp_path / "holdout.json").read_text())) == {
            "share",
            "seed",
            "images",
            "of",
            "fingerprint",
        }

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (None, "missing; it lists the images that the study has sealed (put it back)"),
            ("{", "damaged: Invalid JSON"),
            ('{"share": 0.1}', "damaged: seed: Field required"),
            ('{"share": 0.1, "seed": 0, "images": [], "of": 3, "fingerprint": ""}', "damaged: images: "),
        ],
    )
    def test_damaged_list_is_named_in_one_line(self, tmp_path: Path, text: str | None, problem: str) -> None:
        file = tmp_path / "holdout.json"
        if text is not None:
            file.write_text(text)
        with pytest.raises(DataError) as caught:
            holdout.read(file)
        assert str(caught.value).startswith(f"{file}: {problem}")
        assert "\n" not in str(caught.value)

    def test_images_outside_of_the_root_are_stored_with_their_whole_path(
        self, tmp_path: Path, write_scenes: WriteScenes
    ) -> None:
        file = write_scenes(tmp_path / "data")
        elsewhere = tmp_path / "elsewhere" / "data.yaml"
        elsewhere.parent.mkdir()
        elsewhere.write_text(file.read_text().replace("images/", f"{tmp_path}/data/images/"))
        sealed = sealing.seal(elsewhere, 0.15, 0)
        assert all(Path(image).is_absolute() for image in sealed.images)
        assert datasets.load(elsewhere, sealed=sealed).train_images < 40


class TestJudging:
    def judge(self, data: Path, sealed: Holdout, folder: Path) -> Any:
        sealed.write(folder / "holdout.json")
        return unseen_images.judging_images(data, folder / "holdout.json")

    def test_sealed_images_judge(self, data: Path, tmp_path: Path) -> None:
        sealed = sealing.seal(data, 0.15, 0)
        found = self.judge(data, sealed, tmp_path)
        assert (found.source, found.fingerprint) == ("holdout", sealed.fingerprint)
        assert found.images == tuple(map(str, sorted(absolute(sealed, data))))

    @pytest.mark.parametrize("change", ["label", "image"])
    def test_changed_sealed_images_are_refused(self, tmp_path: Path, write_scenes: WriteScenes, change: str) -> None:
        file = write_scenes(tmp_path / "data")
        sealed = sealing.seal(file, 0.15, 0)
        image = absolute(sealed, file)[0]
        if change == "image":
            image.unlink()
        else:
            label(image).write_text("0 0.5 0.5 0.1 0.1\n")
        with pytest.raises(
            DataError, match="is missing" if change == "image" else "have changed since they were sealed"
        ):
            self.judge(file, sealed, tmp_path)
