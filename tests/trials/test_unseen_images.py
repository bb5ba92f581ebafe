"""Images that judge: the `test` split of a data.yaml, without what the search reads."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from search_spaces.errors import DataError
from trials.data import datasets
from trials.data.unseen_images import JudgingImages, judging_images

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a data set with two images in each split; `test` is the value of that key."""

    def made(test: str | None = "images/test") -> Path:
        for split in ("train", "val", "test"):
            for folder in ("images", "labels"):
                (tmp_path / folder / split).mkdir(parents=True, exist_ok=True)
            for number in range(2):
                image = np.full((32, 32, 3), 40 * number, np.uint8)
                cv2.imwrite(str(tmp_path / "images" / split / f"{split}{number}.png"), image)
                (tmp_path / "labels" / split / f"{split}{number}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        line = "" if test is None else f"test: {test}\n"
        (tmp_path / "data.yaml").write_text(f"path: ''\ntrain: images/train\nval: images/val\n{line}names: [a, b]\n")
        return tmp_path / "data.yaml"

    return made


def found(file: Path) -> JudgingImages:
    judging = judging_images(file)
    assert judging is not None
    return judging


def test_test_split_judges(write: Write) -> None:
    file = write()
    judging = found(file)
    assert judging.source == "test"
    assert judging.images == tuple(str(file.parent / "images/test" / f"test{number}.png") for number in range(2))


@pytest.mark.parametrize("test", [None, "", "images/val", "[images/train, images/val]"])
def test_images_that_the_search_reads_do_not_judge(test: str | None, write: Write) -> None:
    assert judging_images(write(test)) is None


def test_images_in_val_are_left_out(write: Write) -> None:
    file = write("[images/test, images/val]")
    assert [Path(image).name for image in found(file).images] == ["test0.png", "test1.png"]
    assert found(file).fingerprint == found(write()).fingerprint


def test_digits_have_none() -> None:
    assert judging_images(datasets.DIGITS) is None


@pytest.mark.parametrize("change", ["label", "image", "name", "one less", "class"])
def test_fingerprint_depends_on_files_and_labels(change: str, write: Write) -> None:
    file = write()
    before, folder = found(file).fingerprint, file.parent
    image, label = folder / "images/test/test1.png", folder / "labels/test/test1.txt"
    match change:
        case "label":
            label.write_text("1 0.5 0.5 0.5 0.5\n")
        case "image":
            cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
        case "name":
            image.rename(image.with_name("other.png"))
            label.rename(label.with_name("other.txt"))
        case "one less":
            image.unlink()
        case _:
            file.write_text(file.read_text().replace("[a, b]", "[a, c]"))
    assert found(file).fingerprint != before


def test_fingerprint_does_not_depend_on_train_and_val(write: Write) -> None:
    file = write()
    before, data = found(file).fingerprint, datasets.load(file).fingerprint
    (file.parent / "labels/val/val0.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    assert found(file).fingerprint == before
    assert datasets.load(file).fingerprint != data


def test_mistakes_come_at_once_with_the_remedy(write: Write) -> None:
    file = write()
    for number in range(2):
        (file.parent / f"labels/test/test{number}.txt").write_text("7 0.5 0.5 0.5 0.5\n")
    with pytest.raises(DataError) as error:
        judging_images(file)
    first, second, last = str(error.value).splitlines()
    assert "test0.txt:1: class 7 (the classes are 0 to 1)" in first
    assert "test1.txt:1: class 7" in second
    assert last.endswith("remove `test` from the data.yaml: the verdict is then on the images that the search reads")


@pytest.mark.parametrize(
    ("broken", "line"),
    [("folder", "test: no such folder or list"), ("labels", "test: no labels found"), ("pixels", "test1.png: ")],
)
def test_test_split_that_cannot_be_used_is_an_error(broken: str, line: str, write: Write) -> None:
    file = write("images/elsewhere" if broken == "folder" else "images/test")
    if broken == "labels":
        for label in (file.parent / "labels/test").iterdir():
            label.unlink()
    if broken == "pixels":
        (file.parent / "images/test/test1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=line):
        judging_images(file)
