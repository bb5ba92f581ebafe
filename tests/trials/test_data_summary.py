"""Defects of real data sets: left out, warned of, or refused before anything is trained."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from search_spaces.errors import DataError
from trials import Recipe
from trials.data import datasets, image_cache, image_checks, image_files, labels, progress

Spoil = Callable[[Path, Path, int], object]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    image_cache.load.cache_clear()
    yield tmp_path / "cache"
    image_cache.load.cache_clear()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A data set of bright bars on grey; `spoil(image, label, index)` may change each pair, keys the data.yaml."""

    def written(spoil: Spoil = lambda *_: None, *, train: int = 12, val: int = 12, **keys: Any) -> Path:
        random = np.random.Generator(np.random.PCG64(0))
        for split, number in (("train", train), ("val", val)):
            for index in range(number):
                image = tmp_path / "set" / "images" / split / f"{index:03}.jpg"
                label = tmp_path / "set" / "labels" / split / f"{index:03}.txt"
                for file in (image, label):
                    file.parent.mkdir(parents=True, exist_ok=True)
                picture = Image.new("RGB", (96, 80), (70, 90, 110))
                rows = []
                for kind in (0, 1, 1):
                    x, y = random.uniform(0.11, 0.89, 2)
                    ImageDraw.Draw(picture).rectangle([96 * x - 9, 80 * y - 8, 96 * x + 9, 80 * y + 8], (230, 30, 30))
                    rows.append(f"{kind} {x:.4f} {y:.4f} 0.1875 0.2\n")
                picture.save(image)
                label.write_text("".join(rows))
                spoil(image, label, index)
        file = tmp_path / "set" / "data.yaml"
        description = {"train": "images/train", "val": "images/val", "names": ["dot", "bar"], **keys}
        file.write_text(yaml.safe_dump(description))
        return file

    return written


def rows(label: Path) -> list[list[float]]:
    return [[float(word) for word in line.split()] for line in label.read_text().splitlines()]


def every(step: int, spoil: Spoil) -> Spoil:
    return lambda image, label, index: index % step or spoil(image, label, index)


def refusal(file: Path) -> str:
    with pytest.raises(DataError) as caught:
        datasets.load(file)
    return str(caught.value).replace(f"{file.parent}/", "")


def remarks(file: Path) -> list[str]:
    found = datasets.load(file).summary
    return [*found.left_out(), *found.warnings()]


def cut_off(image: Path, *_: object) -> None:
    image.write_bytes(image.read_bytes()[:300])


def test_data_set_without_mistakes_has_no_remarks(write: Callable[..., Path]) -> None:
    file = write()
    assert datasets.load(file).summary.line(2) == "12 + 12 images, 36 + 36 boxes, 2 classes"
    assert remarks(file) == []


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda image, *_: image.write_bytes(b""), "an empty file"),
        (
            lambda image, *_: image.write_text("<html>404</html>"),
            "no image, but text that begins with '<html>404</html>'",
        ),
        (lambda image, *_: image.write_bytes(b"\xff\xd8\xff"), "cut off: its header cannot be read"),
        (lambda image, *_: image.write_bytes(bytes(range(128, 228))), "no image that is known"),
        (lambda image, *_: Image.new("RGB", (40, 8)).save(image), "40 x 8 pixels (10 x 10 are the least)"),
        (
            lambda image, *_: Image.new("RGB", (40, 40)).save(image, "GIF"),
            f"a GIF image (it must be one of {', '.join(image_files.FORMATS)})",
        ),
    ],
)
def test_images_that_cannot_be_read_are_named_and_left_out(
    spoil: Spoil, problem: str, write: Callable[..., Path]
) -> None:
    data = datasets.load(write(every(6, spoil)))
    assert (data.train_images, data.val_images) == (10, 10)
    assert list(data.summary.left_out()) == [
        f"train: 2 of 12 images, which cannot be read: images/train/000.jpg, images/train/006.jpg: {problem}",
        f"val: 2 of 12 images, which cannot be read: images/val/000.jpg, images/val/006.jpg: {problem}",
    ]


def test_pipe_in_the_place_of_an_image_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    found = image_checks._check(str(tmp_path / "0.png"))
    assert found.problem == "no plain file (a pipe or device may have no end)"


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "tif", "jp2", "avif"])
def test_images_that_are_cut_off_are_left_out(ending: str, write: Callable[..., Path]) -> None:
    def spoil(image: Path, *_: object) -> None:
        other = image.with_suffix(f".{ending}")
        Image.open(image).save(other)
        other.write_bytes(other.read_bytes()[: other.stat().st_size // 2])
        if other != image:
            image.unlink()

    data = datasets.load(write(every(12, spoil)))
    (line, _) = data.summary.left_out()
    assert f"images/train/000.{ending}: cut off" in line
    assert (
        image_cache.load(data.train, data.classes, 64, 2, Recipe(), stride=32, training=True).ni
        == data.train_images
        == 11
    )


def test_unreadable_images_are_left_out_of_training(write: Callable[..., Path]) -> None:
    data = datasets.load(write(every(4, cut_off)))
    for sources, counted in ((data.train, data.summary.train), (data.val, data.summary.val)):
        loaded = image_cache.load(sources, data.classes, 64, 2, Recipe(), stride=32, training=True, root=data.root)
        assert loaded.ni == counted.images == 9
        assert not {one.image for one in counted.left_out} & set(loaded.im_files)


@pytest.mark.parametrize("spoil", [cut_off, lambda image, *_: image.write_text("<html>404</html>")])
def test_split_without_a_readable_image_is_refused(spoil: Spoil, write: Callable[..., Path]) -> None:
    message = refusal(write(lambda image, *_: image.parent.name == "val" and spoil(image, image, 0)))
    assert message.startswith("data.yaml: val: no image can be read: images/val/000.jpg")
    assert "and 9 more" in message
    assert "\n" not in message


@pytest.mark.parametrize(("mode", "kind"), [("F", "floating-point numbers"), ("I", "whole numbers")])
def test_a_tiff_that_opencv_cannot_read_is_refused_with_its_kind(
    mode: str, kind: str, write: Callable[..., Path]
) -> None:
    def spoil(image: Path, *_: object) -> None:
        Image.open(image).convert(mode).save(image.with_suffix(".tif"))
        image.unlink()

    assert (
        "data.yaml: train: no image can be read: images/train/000.tif, images/train/001.tif, images/train/002.tif "
        f"and 9 more: a TIFF of 32-bit {kind} (8 or 16 bits a channel can be read)"
    ) in refusal(write(spoil)).splitlines()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK", "RGBA", "P"])
def test_a_tiff_of_bytes_is_read(mode: str, write: Callable[..., Path]) -> None:
    def spoil(image: Path, *_: object) -> None:
        Image.open(image).convert(mode).save(image.with_suffix(".tif"))
        image.unlink()

    assert datasets.load(write(spoil)).train_images == 12


def test_most_images_without_a_label_file_are_background_with_a_warning(write: Callable[..., Path]) -> None:
    file = write(lambda _, label, index: index % 6 and label.unlink())
    assert datasets.load(file).summary.line(2) == ("12 + 12 images, 10 + 10 of them background, 6 + 6 boxes, 2 classes")
    assert remarks(file)[0] == (
        "train: most images have no label file (10 of 12, such as images/train/001.jpg) and count as background: "
        "is that meant?"
    )


def test_background_is_counted_without_a_warning(write: Callable[..., Path]) -> None:
    file = write(every(4, lambda _, label, index: label.unlink() if index else label.write_text("\n")))
    found = datasets.load(file).summary
    assert (found.train.without_label, found.train.empty, found.train.background) == (2, 1, 3)
    assert remarks(file) == []


def test_boxes_without_area_are_left_out_of_training(write: Callable[..., Path]) -> None:
    def spoil(_: Path, label: Path, index: int) -> None:
        if index % 2:
            label.write_text("0 0.5 0.5 0 0.1\n1 0.5 0.5 0.2 0.1\n1 0.2 0.2 0.3 0\n")

    data = datasets.load(write(spoil))
    assert list(data.summary.left_out()) == [
        "train: boxes without area, 12, the first at labels/train/001.txt:1",
        "val: boxes without area, 12, the first at labels/val/001.txt:1",
    ]
    loaded = image_cache.load(data.train, data.classes, 64, 2, Recipe(), stride=32, training=True, root=data.root)
    assert sum(len(label["cls"]) for label in loaded.labels) == data.summary.train.boxes == 24
    assert all((label["bboxes"][:, 2:] > 0).all() for label in loaded.labels)


def test_polygons_without_area_are_left_out_of_training(write: Callable[..., Path]) -> None:
    data = datasets.load(write(lambda _, label, __: label.write_text("0 .1 .1 .2 .1 .3 .1\n1 .1 .1 .3 .1 .3 .4\n")))
    loaded = image_cache.load(data.train, data.classes, 64, 2, Recipe(), stride=32, training=True, root=data.root)
    assert sum(len(label["cls"]) for label in loaded.labels) == data.summary.train.boxes == 12
    assert {(len(label["cls"]), len(label["segments"])) for label in loaded.labels} == {(1, 1)}


def test_a_split_of_which_no_box_has_an_area_is_refused(write: Callable[..., Path]) -> None:
    def spoil(_: Path, label: Path, __: int) -> None:
        label.write_text("0 0.5 0.5 0 0\n")

    assert refusal(write(spoil)).splitlines() == [
        f"data.yaml: {split}: no box is left: none has an area, the first at labels/{split}/000.txt:1 "
        "(rows of class x_center y_center width height)"
        for split in ("train", "val")
    ]


def test_a_split_whose_boxes_lie_in_images_that_do_not_open_is_refused(write: Callable[..., Path]) -> None:
    def spoil(image: Path, label: Path, index: int) -> None:
        if index:
            label.unlink()
        else:
            cut_off(image)

    assert "data.yaml: train: no box is left: the images that have some cannot be read: images/train/000.jpg: " in (
        refusal(write(spoil))
    )


def test_duplicate_boxes_are_counted_once(write: Callable[..., Path]) -> None:
    data = datasets.load(write(lambda _, label, __: label.write_text(label.read_text() * 2)))
    assert list(data.summary.left_out()) == [
        "train: boxes that stand in their file twice, 36, the first at labels/train/000.txt:4",
        "val: boxes that stand in their file twice, 36, the first at labels/val/000.txt:4",
    ]
    loaded = image_cache.load(data.train, data.classes, 64, 2, Recipe(), stride=32, training=True, root=data.root)
    assert sum(len(label["cls"]) for label in loaded.labels) == data.summary.train.boxes == 36


def as_corners(_: Path, label: Path, __: int) -> None:
    label.write_text(
        "".join(
            f"{k:g} {x - w / 2:.4f} {y - h / 2:.4f} {x + w / 2:.4f} {y + h / 2:.4f}\n" for k, x, y, w, h in rows(label)
        )
    )


def as_left_and_top(_: Path, label: Path, __: int) -> None:
    label.write_text("".join(f"{k:g} {x - w / 2:.4f} {y - h / 2:.4f} {w} {h}\n" for k, x, y, w, h in rows(label)))


@pytest.mark.parametrize(
    ("spoil", "looks"),
    [(as_corners, "corners, x1 y1 x2 y2"), (as_left_and_top, "left top width height")],
)
def test_corners_in_the_place_of_centres_are_suspected(spoil: Spoil, looks: str, write: Callable[..., Path]) -> None:
    lines = list(datasets.load(write(spoil)).summary.warnings())
    assert [line.partition(":")[0] for line in lines] == ["train", "val"]
    expected = f"labels look like {looks}, where x_center y_center width height is expected: labels/train/0"
    assert expected in lines[0]


def test_large_boxes_are_no_corners(write: Callable[..., Path]) -> None:
    assert remarks(write(lambda _, label, __: label.write_text("0 0.5 0.5 1 1\n1 0.45 0.5 0.9 0.8\n"))) == []


def test_boxes_outside_of_their_image_cause_a_warning(write: Callable[..., Path]) -> None:
    (line, _) = remarks(write(lambda _, label, __: label.write_text("0 0.9 0.1 0.4 0.1\n1 0.5 0.5 0.2 0.2\n")))
    assert line == (
        "train: 12 of 24 boxes reach out of their image: labels/train/000.txt:1 is 0.9 0.1 0.4 0.1 "
        "(x_center y_center width height)"
    )


def test_a_class_without_boxes_is_named(write: Callable[..., Path]) -> None:
    assert remarks(write(names=["dot", "bar", "cat", "dog"]))[0] == "train: no box of 2 of 4 classes: 'cat', 'dog'"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, ["train: one image: too little to learn from", "val: one image: a score of one image means nothing"]),
        (4, ["val: 4 images: on so few, scores differ by chance"]),
        (10, []),
    ],
)
def test_few_images_cause_a_warning(number: int, expected: list[str], write: Callable[..., Path]) -> None:
    assert remarks(write(train=number, val=number)) == expected


def test_images_of_both_splits_cause_a_warning(write: Callable[..., Path]) -> None:
    file = write()
    file.write_text(file.read_text().replace("images/val", "images/train"))
    assert remarks(file)[0] == (
        "val: 12 of 12 images are trained on, too, such as images/train/000.jpg: scores say little of new images"
    )


def test_label_files_without_an_image_are_reported(write: Callable[..., Path]) -> None:
    def spoil(image: Path, _: Path, index: int) -> None:
        if index % 4 == 0:
            image.rename(image.with_suffix(".gif"))  # which Ultralytics does not look for

    file = write(spoil)
    (file.parent / "labels/train/classes.txt").write_text("square\nbar\n")
    assert list(datasets.load(file).summary.left_out()) == [
        "train: label files without an image, 3, the first labels/train/000.txt",
        "val: label files without an image, 3, the first labels/val/000.txt",
    ]


def test_duplicate_images_of_a_list_cause_a_warning(write: Callable[..., Path]) -> None:
    file = write()
    file.write_text(file.read_text().replace("images/train", "train.txt"))
    names = [f"images/train/{index:03d}.jpg" for index in range(12)]
    (file.parent / "train.txt").write_text("\n".join([*names, *names[:3]]))
    assert remarks(file) == ["train: 3 of 15 images are named more than once, such as images/train/000.jpg"]


class TestKeyPoints:
    @pytest.mark.parametrize("values", [2, 3])
    def test_key_points_beside_a_box_are_ignored(self, values: int, write: Callable[..., Path]) -> None:
        def spoil(_: Path, label: Path, __: int) -> None:
            points = " ".join(["0.4 0.4 2"[: 3 * values + 2 - (values == 3)]] * 4)
            label.write_text("".join(f"{line} {points}\n" for line in label.read_text().splitlines()))

        plain = datasets.load(write())
        of_plain = image_cache.load(
            plain.train, plain.classes, 64, 2, Recipe(), stride=32, training=True, root=plain.root
        )
        boxes = [label["bboxes"].tolist() for label in of_plain.labels]
        image_cache.load.cache_clear()
        data = datasets.load(write(spoil, kpt_shape=[4, values]))
        assert list(data.summary.left_out()) == ["key points: of each row the box alone is taken, as kpt_shape says"]
        loaded = image_cache.load(
            data.train, data.classes, 64, 2, Recipe(), stride=32, training=True, root=data.root, key_points=(4, values)
        )
        assert [label["bboxes"].tolist() for label in loaded.labels] == boxes

    def test_wrong_number_of_key_points_is_refused(self, write: Callable[..., Path]) -> None:
        def spoil(_: Path, label: Path, __: int) -> None:
            label.write_text("0 0.5 0.5 0.1 0.1 0.4 0.4 0.5 0.5\n")

        assert refusal(write(spoil, kpt_shape=[4, 2])).splitlines()[0] == (
            "labels/train/000.txt:1: 9 values (a box has 5: class x_center y_center width height; "
            "with its kpt_shape [4, 2] 13)"
        )

    @pytest.mark.parametrize("shape", [[4], "17", [4, 5], [0, 2]])
    def test_invalid_kpt_shape_is_refused(self, shape: Any, write: Callable[..., Path]) -> None:
        assert refusal(write(kpt_shape=shape)) == (
            f"data.yaml: kpt_shape: got {shape!r} (the number of key points, and 2 or 3 values for each: [17, 3])"
        )


class TestStoredChecks:
    def test_an_unchanged_image_is_not_opened_again(
        self, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write(every(6, cut_off))
        before = datasets.load(file)
        opened: list[str] = []
        check = image_checks._check

        def checking(path: str) -> image_checks.ImageCheck:
            opened.append(path)
            return check(path)

        monkeypatch.setattr(image_checks, "_check", checking)
        assert datasets.load(file) == before
        assert opened == []
        changed = file.parent / "images/train/000.jpg"
        Image.new("RGB", (40, 40)).save(changed)
        assert datasets.load(file).train_images == before.train_images + 1
        assert opened == [str(changed)]

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"rules": 1, "files": {"000.jpg": 3}}', '{"files": {}}'])
    def test_torn_file_of_image_checks_is_rebuilt(self, text: str, cache: Path, write: Callable[..., Path]) -> None:
        file = write(every(6, cut_off))
        before = datasets.load(file)
        stored = list((cache / "image_checks").iterdir())
        assert len(stored) == 2
        for one in stored:
            one.write_text(text)
        assert datasets.load(file) == before

    def test_summary_is_the_same_without_a_cache_folder(
        self, tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write(every(6, cut_off))
        before = datasets.load(file)
        (tmp_path / "a file").touch()
        monkeypatch.setenv("NAS_CACHE", str(tmp_path / "a file" / "cache"))
        assert datasets.load(file) == before
        assert image_cache.load(before.train, before.classes, 64, 2, Recipe(), stride=32, training=True).ni == 10

    def test_progress_of_image_checks_is_reported_after_two_seconds(
        self, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reports: list[tuple[int, int]] = []
        datasets.load(file := write(), progress=lambda *numbers: reports.append(numbers))
        assert reports == []
        monkeypatch.setattr(progress, "_SILENT_SECONDS", -1.0)
        monkeypatch.setenv("NAS_CACHE", str(file.parent.parent / "another"))
        datasets.load(file, progress=lambda *numbers: reports.append(numbers))
        assert reports
        assert all(done <= total for done, total in reports)


class TestLabelRows:
    """Against what Ultralytics reads, which is the oracle."""

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2",
            "0 0.5 0.5 0.2 0.2\n0 0.50000000001 0.5 0.2 0.2\n",
            "0 .1 .1 .2 .2 .3 .1\n0 .1 .1 .2 .2 .3 .1\n0 .1 .1 .25 .2 .3 .1\n",
        ],
    )
    def test_boxes_of_label_rows_are_those_of_ultralytics(self, text: str, tmp_path: Path) -> None:
        from ultralytics.data.utils import verify_image_label

        image, label = tmp_path / "a.png", tmp_path / "a.txt"
        Image.new("RGB", (32, 32)).save(image)
        label.write_text(text)
        _, read, *_ = verify_image_label((str(image), str(label), "", False, 2, 0, 0, False))
        counted = labels.read(text, "a.txt").boxes
        assert sorted(map(tuple, counted.tolist())) == sorted(map(tuple, read.tolist()))
