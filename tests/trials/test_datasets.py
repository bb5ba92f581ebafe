import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from search_spaces import cache_folder
from search_spaces.errors import DataError, EnvironmentProblem
from trials.data import data_yaml, datasets, digit_scenes, image_files, labels, splits

BCCD = Path(__file__).parents[2].parent / "shared" / "data" / "bccd" / "data.yaml"
BOX = "0 0.5 0.5 0.2 0.2\n"
ROW = "class x_center y_center width height"
OUTSIDE = "is not within 0 to 1 (fractions of the image's width and height)"


def write_image(file: Path, side: int = 16) -> None:
    Image.new("RGB", (side, side), (90, 120, 30)).save(file)


def write_data(folder: Path, labels: dict[str, str] | None = None, **changes: Any) -> Path:
    """Write a data set of two images per split; `changes` replace keys of the data.yaml, None takes one out."""
    labels = labels or {}
    for split in ("train", "val"):
        for name in ("a", "b"):
            image = folder / "images" / split / f"{name}.png"
            label = folder / "labels" / split / f"{name}.txt"
            for file in (image, label):
                file.parent.mkdir(parents=True, exist_ok=True)
            write_image(image)
            label.write_text(labels.get(f"{split}/{name}", BOX))
    description = {"train": "images/train", "val": "images/val", "names": ["cat", "dog"]} | changes
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in description.items() if value is not None}))
    return file


def refusal(data: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        datasets.load(data)
    return str(caught.value)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> datasets.DataSet:
    return datasets.load("digits", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def boxes(digits: datasets.DataSet) -> dict[str, Any]:
    """Return the boxes of each scene: class, left, top, right, bottom as fractions."""
    found = {}
    for label in sorted(digits.path.parent.glob("labels/*/*.txt")):
        number, x, y, w, h = np.loadtxt(label, ndmin=2).T
        found[str(label)] = np.stack((number, x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1)
    return found


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Ultralytics' functions."""
    return pytest.importorskip("ultralytics.data.utils")


class TestDigitScenes:
    def test_digit_scenes_are_described_like_any_data_set(self, digits: datasets.DataSet) -> None:
        assert digits == datasets.DataSet(
            name="digits",
            path=digits.path,
            classes=tuple("0123456789"),
            train=(str(digits.path.parent / "images" / "train"),),
            val=(str(digits.path.parent / "images" / "val"),),
            train_images=192,
            val_images=96,
            fingerprint="44fe9de98fedf5c6",
            note=digit_scenes.NOTE,
            root=str(digits.path.parent),
            summary=digits.summary,
        )
        assert digits.summary.line(10) == "192 + 96 images, 1234 + 612 boxes, 10 classes"
        assert [*digits.summary.left_out(), *digits.summary.warnings()] == []

    def test_digit_scenes_never_change(self, digits: datasets.DataSet) -> None:
        labels = sorted(digits.path.parent.glob("labels/*/*.txt"))
        text = "".join(label.read_text() for label in labels)
        assert hashlib.sha256(text.encode()).hexdigest() == (
            "7fd4e5d07d4b0c056dd9519caf7218e7a4d407c905ee9d2fa64adcde2c68dc65"
        )

    def test_digit_scenes_hold_five_to_eight_digits_of_every_class(self, boxes: dict[str, Any]) -> None:
        assert {len(scene) for scene in boxes.values()} == set(range(5, 9))
        assert np.bincount(np.concatenate(list(boxes.values()))[:, 0].astype(int)).min() > 100

    def test_digits_measure_8_to_40_percent_of_the_side(self, boxes: dict[str, Any]) -> None:
        _, left, top, right, bottom = np.concatenate(list(boxes.values())).T
        longer = np.maximum(right - left, bottom - top)
        assert min(left.min(), top.min()) >= -1e-6
        assert max(right.max(), bottom.max()) <= 1 + 1e-6
        assert 0.08 <= longer.min() < 0.1
        assert 0.38 < longer.max() <= 0.4 + 1e-6

    def test_digits_overlap_by_a_quarter_at_most(self, boxes: dict[str, Any]) -> None:
        def shared(one: Any, other: Any) -> float:
            corner, far = np.maximum(one[1:3], other[1:3]), np.minimum(one[3:], other[3:])
            smaller = min(np.prod(box[3:] - box[1:3]) for box in (one, other))
            return float(np.prod(np.clip(far - corner, 0, None)) / smaller)

        pairs = [shared(one, other) for scene in boxes.values() for i, one in enumerate(scene) for other in scene[:i]]
        assert 0.15 < max(pairs) < 0.3  # of what one sees of them; of the whole digits, a quarter

    def test_boxes_are_tight_and_digits_stand_out(self) -> None:
        flat = np.full((digit_scenes.SIDE, digit_scenes.SIDE, 3), 90, np.uint8)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digit_scenes, "_background", lambda _: flat.copy())
            patch.setattr(digit_scenes, "_add_distractor", lambda *_: None)
            scene = next(digit_scenes.scenes("train", 0))
        changed = np.abs(scene.image.astype(int) - 90).max(2) > 60
        covered = np.zeros_like(changed)
        for row in scene.label.splitlines():
            x, y, w, h = (float(value) * digit_scenes.SIDE for value in row.split()[1:])
            left, top, right, bottom = (round(v) for v in (x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            ink = changed[top:bottom, left:right]
            assert ink[0].any()
            assert ink[-1].any()
            assert ink[:, 0].any()
            assert ink[:, -1].any()
            covered[top:bottom, left:right] = True
        assert not (changed & ~covered).any()

    def test_two_draws_of_digit_scenes_are_the_same_bytes(self, tmp_path: Path) -> None:
        one, other = (digit_scenes.draw(tmp_path / name, seed=3, train=4, val=2).parent for name in ("one", "other"))
        files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
        assert len(files) == 2 * (4 + 2) + 1
        assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)

    def test_digit_scenes_of_another_seed_are_another_data_set(self, tmp_path: Path) -> None:
        one, other = (digit_scenes.draw(tmp_path, seed=seed, train=1, val=1).parent for seed in (0, 1))
        assert one != other
        assert (one / "labels/train/0000.txt").read_text() != (other / "labels/train/0000.txt").read_text()

    def test_fewer_digit_scenes_are_the_first_ones_of_more(self, digits: datasets.DataSet, tmp_path: Path) -> None:
        fewer = digit_scenes.draw(tmp_path, train=3, val=2).parent
        for file in ("images/train/0002.png", "images/val/0001.png", "labels/val/0001.txt"):
            assert (fewer / file).read_bytes() == (digits.path.parent / file).read_bytes()

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_no_digit_of_one_split_shows_in_the_other(self, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from sklearn import datasets as sklearn_datasets

        before = next(digit_scenes.scenes(split, 0))
        images, numbers = sklearn_datasets.load_digits(return_X_y=True)
        others = slice(digit_scenes.TRAINING_DIGITS, None) if split == "train" else slice(digit_scenes.TRAINING_DIGITS)
        images[others] = 16 - images[others]
        monkeypatch.setattr(sklearn_datasets, "load_digits", lambda **_: (images, numbers))
        assert (next(digit_scenes.scenes(split, 0)).image == before.image).all()

    def test_digit_scenes_are_drawn_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = digit_scenes.draw(tmp_path, train=1, val=1)
        monkeypatch.delattr(digit_scenes, "_write")
        assert digit_scenes.draw(tmp_path, train=1, val=1) == first

    def test_killed_draw_of_digit_scenes_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(split: str, seed: int) -> Iterator[digit_scenes.Scene]:
            yield next(scenes(split, seed))
            raise KeyboardInterrupt

        scenes = digit_scenes.scenes
        monkeypatch.setattr(digit_scenes, "scenes", killed)
        with pytest.raises(KeyboardInterrupt):
            digit_scenes.draw(tmp_path, train=2, val=1)
        assert list(tmp_path.iterdir()) == []

    def test_first_of_two_simultaneous_draws_of_digit_scenes_stays(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def overtaken(folder: Path, seed: int, counts: dict[str, int]) -> Path:
            finished = tmp_path / folder.name
            finished.mkdir()
            (finished / "data.yaml").write_text("of the other process")
            return write(folder, seed, counts)

        write = digit_scenes._write
        monkeypatch.setattr(digit_scenes, "_write", overtaken)
        drawn = digit_scenes.draw(tmp_path, train=1, val=1)
        assert drawn.read_text() == "of the other process"
        assert list(tmp_path.iterdir()) == [drawn.parent]

    @pytest.mark.parametrize("damage", ["missing", "cut off", "no label", "no data.yaml", "empty"])
    def test_damaged_digit_scenes_are_drawn_again(self, damage: str, tmp_path: Path) -> None:
        folder = digit_scenes.draw(tmp_path, train=2, val=1).parent
        image, label = folder / "images/train/0001.png", folder / "labels/val/0000.txt"
        whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        match damage:
            case "missing":
                image.unlink()
            case "cut off":
                image.write_bytes(image.read_bytes()[:1000])
            case "no label":
                label.write_bytes(b"")
            case "no data.yaml":
                (folder / "data.yaml").unlink()
            case _:
                shutil.rmtree(folder)
                folder.mkdir()
        assert digit_scenes.draw(tmp_path, train=2, val=1).parent == folder
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == whole
        assert list(tmp_path.iterdir()) == [folder]

    def test_unwritable_cache_of_digit_scenes_is_an_environment_problem(self, tmp_path: Path) -> None:
        cache = tmp_path / "a file"
        cache.touch()
        with pytest.raises(EnvironmentProblem) as caught:
            datasets.load("digits", cache=cache)
        assert str(caught.value) == (
            f"{cache}: the digit scenes cannot be written there: File exists "
            "(set NAS_CACHE to a folder that can be written)"
        )

    def test_digit_scenes_may_be_moved(self, digits: datasets.DataSet, tmp_path: Path) -> None:
        moved = shutil.copytree(digits.path.parent, tmp_path / "elsewhere") / "data.yaml"
        assert datasets.load(moved).fingerprint == digits.fingerprint

    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({"NAS_CACHE": "/scratch/n", "XDG_CACHE_HOME": "/scratch/x"}, "/scratch/n"),
            ({"NAS_CACHE": "", "XDG_CACHE_HOME": "/scratch/x"}, "/scratch/x/nas"),
            ({"NAS_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/of/the/user/.cache/nas"),
        ],
    )
    def test_nas_cache_wins_over_xdg_cache_home_over_home(
        self, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", "/home/of/the/user")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert cache_folder.path() == Path(expected)


class TestDataYaml:
    def test_data_yaml_is_read_and_counted(self, tmp_path: Path) -> None:
        data = datasets.load(write_data(tmp_path))
        assert (data.name, data.path, data.note) == (tmp_path.name, tmp_path / "data.yaml", "")
        assert (data.classes, data.train_images, data.val_images) == (("cat", "dog"), 2, 2)

    @pytest.mark.parametrize("names", [["cat", "dog"], {0: "cat", 1: "dog"}, {"1": "dog", "0": "cat"}])
    def test_class_names_are_a_list_or_numbered(self, names: Any, tmp_path: Path) -> None:
        assert datasets.load(write_data(tmp_path, names=names)).classes == ("cat", "dog")

    @pytest.mark.parametrize(
        "changes",
        [
            {"train": ["images/train"]},
            {"train": "../images/train"},
            {"path": "."},
            {"path": ""},
            {"val": None, "validation": "images/val"},
            {"nc": 2},
            {"nc": "2"},
        ],
    )
    def test_every_spelling_of_a_data_set_means_the_same(self, changes: dict[str, Any], tmp_path: Path) -> None:
        plain, other = write_data(tmp_path / "plain"), write_data(tmp_path / "other", **changes)
        assert datasets.load(other).fingerprint == datasets.load(plain).fingerprint

    def test_absolute_paths_in_data_yaml_need_no_path(self, tmp_path: Path) -> None:
        places: dict[str, Any] = {key: str(tmp_path / "images" / key) for key in ("train", "val")}
        assert datasets.load(write_data(tmp_path, path="nowhere", **places)).train_images == 2

    def test_path_of_data_yaml_may_start_from_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write_data(tmp_path / "data", path="data").rename(tmp_path / "beside.yaml")
        elsewhere = tmp_path / "files"
        elsewhere.mkdir()
        monkeypatch.chdir(tmp_path)
        assert datasets.load(file.rename(elsewhere / "cats.yaml")).name == "cats"

    def test_images_of_several_folders_add_up(self, tmp_path: Path) -> None:
        assert datasets.load(write_data(tmp_path, train=["images/train", "images/val"])).train_images == 4

    def test_list_of_images_has_absolute_or_relative_paths(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, train="train.txt")
        (tmp_path / "train.txt").write_text(
            f"./images/train/a.png\n{tmp_path}/images/train/b.png\n./images/train/notes.md\n"
        )
        assert datasets.load(file).train_images == 2

    def test_paths_in_a_list_of_images_may_start_from_the_root(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """CVAT exports such a data set."""
        plain = datasets.load(write_data(tmp_path))
        (tmp_path / "lists").mkdir()
        (tmp_path / "lists/train.txt").write_text("images/train/a.png\ndata/images/train/b.png\n\n")
        file = write_data(tmp_path, path="./", train="lists/train.txt")
        monkeypatch.chdir("/")
        data = datasets.load(file)
        assert (data.train_images, data.summary.train.boxes) == (2, plain.summary.train.boxes)

    def test_paths_in_a_list_start_from_the_working_directory_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_data(tmp_path / "here")
        (tmp_path / "train.txt").write_text("images/train/a.png\n")
        file = write_data(tmp_path, train="train.txt")
        monkeypatch.chdir(tmp_path / "here")
        assert image_files.find([tmp_path / "train.txt"], tmp_path) == [f"{tmp_path}/here/images/train/a.png"]
        assert datasets.load(file).train_images == 1

    @pytest.mark.parametrize("form", ["list", "mapping"])
    def test_class_names_are_the_text_of_the_file(self, form: str, tmp_path: Path) -> None:
        words = ["no", "null", "on", "1e3", "12:30", "~", "007", "1.50", "2024-01-01", "Yes"]
        named = (
            "".join(f"  - {word}\n" for word in words)
            if form == "list"
            else "".join(f"  {number}: {word}\n" for number, word in enumerate(words))
        )
        file = write_data(tmp_path)
        file.write_text(f"train: images/train\nval: images/val\nnames:\n{named}")
        data = datasets.load(file)
        assert data.classes == tuple(words)
        other = tmp_path / "resolved.yaml"
        other.write_text(datasets.resolved(data))
        assert datasets.load(other).classes == data.classes
        read = yaml.safe_load(other.read_text())["names"]
        assert list(read.values() if isinstance(read, dict) else read) == words

    def test_an_image_without_a_label_is_background(self, tmp_path: Path) -> None:
        file = write_data(tmp_path)
        (tmp_path / "labels/train/a.txt").unlink()
        assert datasets.load(file).train_images == 2

    def test_hidden_files_are_no_images(self, tmp_path: Path) -> None:
        file = write_data(tmp_path)
        (tmp_path / "images/train/.a.png").touch()
        data = datasets.load(file)
        assert (data.train_images, data.summary.train.left_out) == (2, ())

    def test_resolved_data_yaml_keeps_other_keys_and_downloads_nothing(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, path=".", download="https://x.org/a.zip", nc=2, train=["images/train"] * 2)
        assert yaml.safe_load(datasets.resolved(datasets.load(file))) == {
            "path": str(tmp_path),
            "train": [str(tmp_path / "images/train")] * 2,
            "val": str(tmp_path / "images/val"),
            "names": ["cat", "dog"],
        }

    @pytest.mark.skipif(not BCCD.exists(), reason="BCCD is not on this machine")
    def test_bccd_loads_from_any_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        data = datasets.load(BCCD)
        assert (data.classes, data.train_images, data.val_images) == (("RBC", "WBC", "Platelets"), 205, 87)


class TestFingerprint:
    def test_fingerprint_of_a_data_set_does_not_depend_on_its_folder(self, tmp_path: Path) -> None:
        here = write_data(tmp_path / "here")
        there = shutil.copytree(here.parent, tmp_path / "there") / here.name
        assert datasets.load(here).fingerprint == datasets.load(there).fingerprint

    @pytest.mark.parametrize("change", ["class", "label", "image size", "image name", "new image", "split"])
    def test_fingerprint_of_a_data_set_depends_on_all_that_changes_a_score(self, change: str, tmp_path: Path) -> None:
        before = datasets.load(write_data(tmp_path)).fingerprint
        match change:
            case "class":
                write_data(tmp_path, names=["cat", "cow"])
            case "label":
                write_data(tmp_path, labels={"val/b": "1 0.5 0.5 0.2 0.2\n"})
            case "image size":
                (tmp_path / "images/train/a.png").write_bytes((tmp_path / "images/train/a.png").read_bytes() + b" ")
            case "image name":
                (tmp_path / "images/train/a.png").rename(tmp_path / "images/train/c.png")
                (tmp_path / "labels/train/a.txt").rename(tmp_path / "labels/train/c.txt")
            case "new image":
                (tmp_path / "images/train/c.png").touch()
            case "split":
                write_data(tmp_path, val="images/train", train=["images/train", "images/val"])
        assert datasets.load(tmp_path / "data.yaml").fingerprint != before


class TestRefusedData:
    @pytest.mark.parametrize(
        ("word", "hint"),
        [("digit", "did you mean 'digits'?"), ("coco88", "did you mean 'coco8'?"), ("x", "one of digits")],
    )
    def test_unknown_data_set_is_refused_with_the_nearest_name(self, word: str, hint: str) -> None:
        assert refusal(word) == (f"unknown data set {word!r} ({hint}); the path of an Ultralytics data.yaml works, too")

    def test_missing_data_yaml_is_refused(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "coco8.yaml") == (
            f"{tmp_path}/coco8.yaml: no such file (data is 'digits' or the path of your data.yaml; "
            "the data sets that Ultralytics can fetch are not fetched)"
        )

    def test_folder_in_place_of_data_yaml_is_refused(self, tmp_path: Path) -> None:
        assert refusal(tmp_path) == (
            f"{tmp_path}: not a data.yaml (the path of a file whose name ends in .yaml or .yml)"
        )

    def test_data_yaml_with_a_syntax_error_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "data.yaml"
        file.write_text("names: [cat\n")
        assert refusal(file).startswith(f"{file}: not YAML: while parsing a flow sequence ")
        assert "\n" not in refusal(file)

    def test_data_yaml_that_is_no_mapping_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "data.yaml"
        file.write_text("- cat\n")
        assert refusal(file) == f"{file}: not a mapping, got ['cat'] (its keys: path, train, val, names)"

    @pytest.mark.parametrize(
        ("changes", "mistake"),
        [
            (
                {"names": None},
                "names: missing (the names of the classes: a list, or a mapping from 0 to n - 1)",
            ),
            ({"names": ["cat", ""]}, "names: class 1 has no name"),
            (
                {"names": [{0: "cat"}, {1: "dog"}]},
                "names: a name is text, got {0: 'cat'} (a list of names, or a mapping from 0 to n - 1)",
            ),
            (
                {"channels": 10},
                (
                    "channels: got 10 (a search trains on images of 3 channels; leave it out, and grey images are read "
                    "as three equal ones)"
                ),
            ),
            ({"train": "a\0b"}, "train: a NUL character in it, got 'a\\x00b'"),
            ({"val": ["images/val", "a\0b"]}, "val: a NUL character in it, got 'a\\x00b'"),
            ({"path": "a\0b"}, "path: a NUL character in it, got 'a\\x00b'"),
            ({"train": "a" * 300}, f"train: too long for a file's name, got '{'a' * 39}"),
            ({"path": "a" * 300}, f"path: too long for a file's name, got '{'a' * 39}"),
            ({"val": "/"}, "val: / is a whole disk (a folder that holds the data set's images is expected)"),
            ({"names": []}, "names: got [] (a list of names, or a mapping from 0 to n - 1)"),
            ({"names": "cat"}, "names: got 'cat' (a list of names, or a mapping from 0 to n - 1)"),
            (
                {"names": {1: "cat", 2: "dog"}},
                "names: numbered 1, 2 (2 names have the numbers 0 to 1)",
            ),
            ({"nc": 3}, "nc: got 3, but there are 2 names (leave nc out, or let them agree)"),
            (
                {"train": None},
                "train: missing (a folder of images, a list of folders, or a .txt list of images)",
            ),
            ({"val": 3}, "val: got 3 (a folder of images, a list of folders, or a .txt list of images)"),
            ({"path": 3}, "path: got 3 (a folder; absolute, or relative to this file)"),
            ({"path": "/nowhere"}, "path: no such folder: /nowhere"),
            ({"train": "/nowhere"}, "train: no such folder or list: /nowhere"),
            (
                {"train": ["images/train", "/nowhere"], "download": "https://x.org/a.zip"},
                "train: no such folder or list: /nowhere (nas downloads nothing, `download` is not followed)",
            ),
        ],
    )
    def test_wrong_key_of_data_yaml_is_refused_with_the_expected_value(
        self, changes: dict[str, Any], mistake: str, tmp_path: Path
    ) -> None:
        file = write_data(tmp_path, **changes)
        assert refusal(file).splitlines()[0] == f"{file}: {mistake}"

    def test_missing_path_of_data_yaml_is_refused_with_all_places(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write_data(tmp_path / "data", path="cats")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(data_yaml, "_datasets_folder", lambda: Path("/elsewhere"))
        assert refusal(file) == (
            f"{file}: path: no such folder: {tmp_path}/data/cats nor {tmp_path}/cats nor /elsewhere/cats"
        )

    def test_split_without_images_is_refused(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, val="labels/val")
        assert refusal(file) == (
            f"{file}: val: no images in {tmp_path}/labels/val (names end in avif, bmp, dng, heic, heif, "
            "jp2, jpeg, jpg, mpo, png, tif, tiff, webp)"
        )

    def test_images_without_labels_are_refused_with_the_expected_folder(self, tmp_path: Path) -> None:
        file = write_data(tmp_path)
        shutil.rmtree(tmp_path / "labels/train")
        assert refusal(file) == (
            f"{file}: train: no labels found for images in {tmp_path}/images/train: "
            f"no {tmp_path}/labels/train/a.txt and so on "
            "(in an image's path the last folder called images becomes labels, and the ending .txt)"
        )

    def test_split_without_boxes_is_refused(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, labels={"val/a": "\n", "val/b": ""})
        assert refusal(file) == (f"{file}: val: no boxes: every label is empty, like {tmp_path}/labels/val/a.txt")

    def test_missing_image_of_a_list_is_refused(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, train="train.txt")
        (tmp_path / "train.txt").write_text("./images/train/a.png\nimages/train/none.png\n")
        assert refusal(file) == (
            f"{tmp_path}/train.txt: no such image: images/train/none.png "
            "(absolute, from the data set's folder on, or ./ and from the list's folder on)"
        )

    @pytest.mark.parametrize(
        ("row", "mistake"),
        [
            ("2 0.5 0.5 0.2 0.2", "class 2 (the classes are 0 to 1)"),
            ("-1 0.5 0.5 0.2 0.2", "class -1 (the classes are 0 to 1)"),
            ("0.5 0.5 0.5 0.2 0.2", "class 0.5 (the classes are 0 to 1)"),
            ("0 64 0.5 0.2 0.2", f"64 {OUTSIDE}"),
            ("0 0.5 0.5 0.2 -0.005", f"-0.005 {OUTSIDE}"),
            ("0 0.5 nan 0.2 0.2", f"nan {OUTSIDE}"),
            ("0 0.5 0.5 0.2", f"4 values (a box has 5: {ROW}; a polygon has a class and 3 or more points)"),
            ("cat 0.5 0.5 0.2 0.2", f"could not convert string to float: 'cat' (a row of numbers: {ROW})"),
        ],
    )
    def test_wrong_label_row_is_refused_with_file_and_line(self, row: str, mistake: str, tmp_path: Path) -> None:
        file = write_data(tmp_path, labels={"train/b": f"{BOX}\n{row}\n"})
        assert refusal(file) == f"{tmp_path}/labels/train/b.txt:3: {mistake}"

    def test_label_file_with_boxes_and_polygons_is_refused(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, labels={"train/b": f"0 0 0 0 1 1 1\n{BOX}"})
        assert refusal(file) == (
            f"{tmp_path}/labels/train/b.txt:2: a box in a file of polygons (Ultralytics drops an image with both)"
        )

    def test_label_file_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        file = write_data(tmp_path)
        label = tmp_path / "labels/val/a.txt"
        label.write_bytes(b"\xff\xfe0")
        assert refusal(file) == f"{label}: not UTF-8 text (rows of {ROW})"

    def test_class_names_that_are_not_utf_8_are_refused(self, tmp_path: Path) -> None:
        file = write_data(tmp_path)
        text = file.read_text()
        file.write_bytes(f"# Größe\n{text}".encode("latin-1"))
        assert datasets.load(file).classes == ("cat", "dog")
        file.write_bytes(text.replace("cat", "Käfer").encode("latin-1"))
        assert refusal(file) == f"{file}: not UTF-8 text, so that names would be read wrongly (save it as UTF-8)"

    def test_link_to_a_missing_image_is_refused(self, tmp_path: Path) -> None:
        file, link = write_data(tmp_path), tmp_path / "images/train/c.png"
        link.symlink_to("/nowhere/c.png")
        assert refusal(file) == f"{link}: a link to an image that is not there"

    def test_five_wrong_label_rows_are_shown_and_the_rest_counted(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, labels={"train/a": "7 0.5 0.5 0.2 0.2\n" * 4, "val/b": "0 1\n" * 13})
        lines = refusal(file).splitlines()
        assert [line.partition(": ")[0] for line in lines[:5]] == [
            *(f"{tmp_path}/labels/train/a.txt:{number}" for number in range(1, 5)),
            f"{tmp_path}/labels/val/b.txt:1",
        ]
        assert lines[5:] == ["... and 12 more like these"]

    def test_all_mistakes_of_a_data_set_are_named_at_once(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, names="cat", val="nowhere", labels={"train/a": "0.5 0 0 1 1\n"})
        assert refusal(file) == (
            f"{file}: names: got 'cat' (a list of names, or a mapping from 0 to n - 1)\n"
            f"{file}: val: no such folder or list: {tmp_path}/nowhere\n"
            f"{tmp_path}/labels/train/a.txt:1: class 0.5 (the classes are whole numbers from 0)"
        )

    def test_folder_with_many_files_that_are_no_images_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(image_files, "_MOST_OTHERS", 20)
        file = write_data(tmp_path, val="many")
        (tmp_path / "many").mkdir()
        for number in range(30):
            (tmp_path / "many" / f"{number}.json").touch()
        assert refusal(file) == (
            f"{file}: val: {tmp_path}/many holds more than 20 files that are no images, and 0 images so far "
            "(a folder that holds the data set's images is expected)"
        )

    def test_list_of_images_that_is_no_text_is_refused(self, tmp_path: Path) -> None:
        file = write_data(tmp_path, val="images/val/a.png")
        assert refusal(file) == (
            f"{file}: val: {tmp_path}/images/val/a.png is no text "
            "(a folder of images, or a .txt with one image a line, is expected)"
        )

    @pytest.mark.parametrize("line", ["a\0b.png", "a" * 5000 + ".png"])
    def test_impossible_file_name_in_a_list_of_images_is_refused(self, line: str, tmp_path: Path) -> None:
        file = write_data(tmp_path, train="train.txt")
        (tmp_path / "train.txt").write_text("./images/train/a.png\n" * 300 + line)
        assert refusal(file).startswith(f"{tmp_path}/train.txt: no such image: a")
        assert len(refusal(file)) < 500

    def test_too_long_name_of_a_data_set_is_refused(self) -> None:
        assert refusal("a" * 5000 + ".yaml").endswith(": File name too long")
        assert len(refusal("a" * 5000 + ".yaml")) < 300


class TestImageFolders:
    def test_image_folders_are_read_as_ultralytics_reads_them(self, tmp_path: Path) -> None:
        from ultralytics.data.base import BaseDataset

        linked = tmp_path / "linked"
        for file in ("set/a.png", "set/B.JPG", "set/deep/er/c.png", "set/.hidden/d.png", "set/.e.png", "linked/f.png"):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            write_image(tmp_path / file)
        (tmp_path / "set/notes.txt").touch()
        (tmp_path / "set/link").symlink_to(linked)
        theirs = SimpleNamespace(prefix="", fraction=1.0)
        expected = BaseDataset.get_img_files(theirs, str(tmp_path / "set"))
        assert len(expected) == 4
        assert image_files.find([tmp_path / "set"], tmp_path) == expected

    def test_circular_link_to_an_image_folder_is_read_once(self, tmp_path: Path) -> None:
        data = write_data(tmp_path)
        (tmp_path / "images/train/again").symlink_to(tmp_path / "images")
        assert datasets.load(data).train_images == 2


class TestUltralyticsDataSets:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return the folder of data sets, which Ultralytics has not filled yet."""
        monkeypatch.setattr(data_yaml, "_datasets_folder", lambda: tmp_path / "datasets")
        monkeypatch.chdir(tmp_path)
        return tmp_path / "datasets"

    @pytest.mark.parametrize("name", ["coco8", "coco8.yaml"])
    def test_ultralytics_data_sets_are_found_where_ultralytics_finds_them(self, name: str, folder: Path) -> None:
        write_data(folder / "coco8")
        data = datasets.load(name)
        assert (data.name, len(data.classes), data.train_images) == ("coco8", 80, 2)
        assert data.train == (str(folder / "coco8/images/train"),)

    def test_ultralytics_data_sets_are_never_downloaded(self, folder: Path) -> None:
        (line,) = refusal("coco8.yaml").splitlines()
        assert line.endswith(
            f"path: no such folder: {folder.parent}/coco8 nor {folder}/coco8 (nas downloads nothing; Ultralytics "
            'fetches it with: python -c "from ultralytics.data.utils import check_det_dataset as fetch; '
            "fetch('coco8.yaml')\")"
        )
        assert not folder.exists()

    def test_data_of_the_user_may_lie_in_the_datasets_folder(self, folder: Path, tmp_path: Path) -> None:
        write_data(folder / "cats")
        (tmp_path / "mine").mkdir()
        file = write_data(tmp_path / "other", path="cats").rename(tmp_path / "mine" / "cats.yaml")
        assert datasets.load(file).train == (str(folder / "cats/images/train"),)

    def test_datasets_folder_is_that_of_the_ultralytics_settings(self) -> None:
        from ultralytics.utils import DATASETS_DIR

        assert data_yaml._datasets_folder() == Path(DATASETS_DIR)


class TestAgreementWithUltralytics:
    """Its functions are the oracle; `trials.data.datasets` does not import them because that takes seconds."""

    def test_image_formats_are_those_of_ultralytics(self, theirs: Any) -> None:
        assert set(image_files.FORMATS) == theirs.IMG_FORMATS

    @pytest.mark.parametrize(
        "path",
        ["/d/images/a.png", "/d/images/images/x.y/a.b.jpg", "/d/pictures/a.png", "/images/train/a.JPG"],
    )
    def test_label_paths_are_those_of_ultralytics(self, path: str, theirs: Any) -> None:
        assert [splits.labeled_image(path, Path("/d")).label_path] == theirs.img2label_paths([path])

    @pytest.mark.parametrize(
        "label",
        [
            "",
            "0 0.5 0.5 1 1",
            "\ufeff1.0 0.5 0.5 1 1",
            "\n0 0.5 0.5 1 1\r\n\n1 1.005 0.5 0 0.1\n",
            "0 -0.005 0.5 1 1",
            "0 0.5 0.5 -0.005 1",
            "0 1.02 0.5 1 1",
            "0 -0.02 0.5 1 1",
            "0 0.5 0.5 1",
            "0 0.5 0.5 1 1 1",
            "0 0.5 0.5 1 one",
            "0 0.5 0.5 1 nan",
            "2 0.5 0.5 1 1",
            "-1 0.5 0.5 1 1",
            "0.5 0.5 0.5 1 1",
            "0 0 0 0 1 1 1",
            "0 0 0 0 1 1 1\n1 0 0 0 1 1 1 1 0",
            "0 0 0 0 1 1 1\n0 0.5 0.5 1 1",
            "0 0 0 0 1 1 1 1",
            "2 0 0 0 1 1 1",
        ],
    )
    def test_labels_that_ultralytics_drops_are_mistakes(self, label: str, theirs: Any, tmp_path: Path) -> None:
        image = digit_scenes.draw(tmp_path, train=1, val=0).parent / "images/train/0000.png"
        file = tmp_path / "label.txt"
        file.write_bytes(label.encode())
        *_, dropped, _ = theirs.verify_image_label((str(image), str(file), "", False, 2, 0, 0, False))
        assert bool(dropped) == any(labels.mistakes(label.encode(), 2))

    def test_resolved_data_yaml_is_read_alike_by_ultralytics(
        self, theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = datasets.load(write_data(tmp_path / "data", path=".", val=["images/val", "images/train"]))
        elsewhere = tmp_path / "trial"
        elsewhere.mkdir()
        (elsewhere / "data.yaml").write_text(datasets.resolved(data))
        monkeypatch.chdir(elsewhere)
        monkeypatch.setattr(theirs, "check_font", lambda _: None)  # it would download one
        found = theirs.check_det_dataset(elsewhere / "data.yaml", autodownload=False)
        assert json.loads(json.dumps({key: found[key] for key in ("train", "val", "nc")})) == {
            "train": str(tmp_path / "data/images/train"),
            "val": [str(tmp_path / "data/images/val"), str(tmp_path / "data/images/train")],
            "nc": 2,
        }
