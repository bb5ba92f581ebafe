"""Images that a study seals: in its settings and files, and never opened by its processes."""

import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import nas
from nas.settings import SealedImages
from nas.study.study import Study
from nas.study.study_file import StudyFile
from nas.workflows.begin import require_same_data, resume
from nas.workflows.derived import derived_study
from nas.workflows.plan import Plan
from nas.workflows.request import Request
from search_spaces.errors import DataError, SpecError, StudyError
from trials.data import datasets, holdout, sealing

TINY = """\
nc: 2
reg_max: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, C2f, [8, True]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, SPPF, [16, 5]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 1, C2f, [16]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [[-1, 7], 1, Concat, [1]]
  - [-1, 1, C2f, [16]]
  - [[10, 13], 1, Detect, [nc]]
"""
SPACE = "{name: small, base: tiny.yaml, slots: [{at: {layers: [2, 4, 6]}, choices: {UIB: {expansion: [1, 2]}}}]}"
SMALL = {"epochs": 1, "base_epochs": 1, "image_size": 32, "deploy_size": 32, "batch": 8, "workers": 2, "device": "cpu"}

Ask = Callable[..., Plan]


@pytest.fixture
def data(tmp_path: Path, write_scenes: Callable[..., Path]) -> Path:
    return write_scenes(tmp_path / "scenes")


@pytest.fixture
def request_of(tmp_path: Path, data: Path) -> Callable[..., Request]:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "small.yaml").write_text(SPACE)

    def make(**options: Any) -> Request:
        fields: dict[str, Any] = {"space": tmp_path / "small.yaml", "data": data, "runs": tmp_path / "runs"}
        return Request.of(**{**fields, "trials": 3, **SMALL, **options})

    return make


@pytest.fixture
def ask(request_of: Callable[..., Request]) -> Ask:
    return lambda **options: Plan.of(request_of(**options))


def refusal(ask: Ask, **options: Any) -> str:
    with pytest.raises((SpecError, StudyError)) as caught:
        ask(**options)
    return str(caught.value)


def change(data: Path, **keys: Any) -> None:
    data.write_text(yaml.safe_dump(yaml.safe_load(data.read_text()) | keys))


class TestStudy:
    def test_sealed_images_are_listed_in_the_folder_and_left_out_of_the_data(self, ask: Ask, data: Path) -> None:
        plan = ask(holdout=0.15)
        assert not plan.folder.exists()
        study = plan.begin()
        stored = holdout.read(study.folder / "holdout.json")
        assert stored == plan.sealed == sealing.seal(data, 0.15, 0)
        assert study.settings.holdout == SealedImages(share=0.15, images=9, fingerprint=stored.fingerprint)
        rest = datasets.load(data, sealed=stored)
        assert (plan.data.train_images, plan.data.val_images) == (34, 17)
        assert study.settings.data_fingerprint == rest.fingerprint == study.data_set().fingerprint

    def test_every_training_leaves_them_out(self, ask: Ask) -> None:
        sealing_one, other = ask(holdout=0.15).begin(), ask().begin()
        assert sealing_one.stock_training is not None
        assert other.stock_training is not None
        file = sealing_one.folder / "holdout.json"
        assert (
            sealing_one.stock_training.budget.sealed
            == sealing_one.scoring.budget(sealing_one.space.stock, 3).sealed
            == file
        )
        assert other.stock_training.budget.sealed is other.scoring.budget(other.space.stock).sealed is None

    def test_score_of_a_training_with_them_is_not_reused(self, ask: Ask) -> None:
        studies = [ask(**options).begin() for options in ({}, {"holdout": 0.15}, {"holdout": 0.2})]
        trainings = [study.stock_training for study in studies]
        assert len({training.key for training in trainings if training is not None}) == 3
        keys = {study.scoring._key(study.space.stock, study.scoring.budget(study.space.stock)) for study in studies}
        assert len(keys) == 3
        again = ask(holdout=0.15, study="again").begin().stock_training
        assert again is not None
        assert again.key == getattr(trainings[1], "key", None)

    def test_budgets_are_stored_as_before(self, ask: Ask) -> None:
        study = ask(holdout=0.15).begin()
        settings = json.loads((study.folder / "study.json").read_text())["settings"]
        assert "sealed" not in settings["budget"]
        assert "sealed" not in study.scoring.budget(study.space.stock).model_dump()
        stored = {name: value for name, value in settings.items() if name != "holdout"}
        without = study.settings.model_validate_json(json.dumps(stored))
        assert without == study.settings.model_copy(update={"holdout": None})

    def test_mlflow_gets_share_number_and_fingerprint(self, ask: Ask) -> None:
        flat = ask(holdout=0.15).begin().settings.flat()
        assert (flat["holdout.share"], flat["holdout.images"]) == ("0.15", "9")


class TestResumed:
    def test_stored_list_is_used_whatever_is_drawn_by_then(self, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
        study = ask(holdout=0.15, study="mine").begin()
        monkeypatch.setattr(sealing, "seal", lambda *_, **__: pytest.fail("drawn again"))
        plan = ask(holdout=0.15, study="mine", trials=5)
        assert plan.sealed == holdout.read(study.folder / "holdout.json")
        assert plan.begin().file.run.trials == 5
        assert resume("mine", runs=study.folder.parent, trials=6).settings == study.settings

    def test_default_name_finds_the_study_again(self, ask: Ask) -> None:
        assert [ask(holdout=share).begin().name for share in (0.15, 0.2, 0.15)] == [
            "small-scenes",
            "small-scenes2",
            "small-scenes",
        ]

    def test_another_share_needs_another_study(self, ask: Ask) -> None:
        ask(holdout=0.15, study="mine").begin()
        assert "holdout.share: 0.15 there, 0.2 here" in refusal(ask, holdout=0.2, study="mine")
        assert "holdout.share: 0.15 there, None here" in refusal(ask, study="mine")

    def test_changed_images_are_noticed_and_sealed_ones_are_not_read(self, ask: Ask, data: Path) -> None:
        study = ask(holdout=0.15, study="mine").begin()
        sealed = [data.parent / image for image in holdout.read(study.folder / "holdout.json").images]
        for image in sealed:
            image.unlink()
        require_same_data(study)
        rest = next(image for image in sorted((data.parent / "images" / "train").iterdir()))
        rest.unlink()
        with pytest.raises(StudyError, match="the data set has changed"):
            require_same_data(study)

    def test_missing_list_ends_in_one_line(self, ask: Ask) -> None:
        study = ask(holdout=0.15, study="mine").begin()
        (study.folder / "holdout.json").unlink()
        with pytest.raises(DataError) as caught:
            resume("mine", runs=study.folder.parent)
        assert str(caught.value) == (
            f"{study.folder}/holdout.json: missing; it lists the images that the study has sealed (put it back)"
        )

    def test_study_and_data_can_be_moved_together(self, ask: Ask, tmp_path: Path) -> None:
        study = ask(holdout=0.15, study="mine", runs=tmp_path / "all" / "runs").begin()
        shutil.copytree(tmp_path / "scenes", tmp_path / "all" / "runs" / "scenes")
        moved = ask(
            holdout=0.15, study="beside", runs=tmp_path / "all" / "runs", data=tmp_path / "all/runs/scenes/data.yaml"
        ).begin()
        assert moved.settings.data_fingerprint == study.settings.data_fingerprint
        shutil.move(tmp_path / "all", tmp_path / "there")
        opened = Study.open(tmp_path / "there" / "runs" / "beside")
        data_set = opened.data_set()
        assert data_set.fingerprint == study.settings.data_fingerprint
        assert all(image.startswith(f"{tmp_path}/there/runs/scenes/") for image in data_set.sealed)


class TestDerived:
    def test_derived_study_has_the_same_list(self, ask: Ask) -> None:
        study = ask(holdout=0.15).begin()
        settings = study.settings.model_copy(update={"confirms": study.name})
        after = derived_study(study, "after", settings, trials=1, changes={})
        assert after.sealed == after.folder / "holdout.json"
        assert holdout.read(after.folder / "holdout.json") == holdout.read(study.folder / "holdout.json")
        assert after.data_set().fingerprint == study.data_set().fingerprint

    def test_refining_search_keeps_them_sealed(self, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        space = SPACE.replace("tiny.yaml", f"{tmp_path}/tiny.yaml")
        monkeypatch.setattr("nas.workflows.refinement.refined_space", lambda _: space)
        coarse = ask(holdout=0.15, study="coarse").begin()
        ask(study="whole").begin()
        of_space = {"space": Request.space, "data": None, "seed": 7}
        fine = ask(refine="coarse", **of_space)
        assert fine.sealed == holdout.read(coarse.folder / "holdout.json")
        assert fine.data.sealed
        assert refusal(ask, refine="coarse", holdout=0.3, **of_space) == (
            "holdout: coarse has sealed 9 images, and they stay sealed, got 30% (leave --holdout out)"
        )
        assert refusal(ask, refine="whole", holdout=0.3, **of_space) == (
            "holdout: the front of whole was chosen by all images, so that none is left to be sealed (leave --holdout "
            "out; or name images that were never used as test: in the data.yaml)"
        )


class TestTestSplit:
    def test_search_with_a_test_split_seals_nothing(self, ask: Ask, data: Path) -> None:
        for kind in ("images", "labels"):
            shutil.copytree(data.parent / kind / "val", data.parent / kind / "test")
        change(data, test="images/test")
        assert ask().judging == 20
        assert refusal(ask, holdout=0.15) == (
            "holdout: the data set has a test split of 20 images, which no search reads and by which nas confirm "
            "judges (leave --holdout out)"
        )

    @pytest.mark.parametrize("test", ["", None, "images/nothing", "images/val", "images/unlabeled"])
    def test_split_without_labelled_images_of_its_own_does_not_count(
        self, ask: Ask, data: Path, test: str | None
    ) -> None:
        shutil.copytree(data.parent / "images" / "val", data.parent / "images" / "unlabeled")
        change(data, test=test)
        plan = ask(holdout=0.15)
        assert plan.judging == 0
        assert plan.sealed is not None


@pytest.mark.parametrize(
    ("share", "problem"),
    [
        (0.6, "input should be at most 50%, got 0.6 (from 5% to 50%)"),
        (0.04, "input should be at least 5%, got 0.04 (from 5% to 50%)"),
        ("15%", "input should be a number, got '15%' (from 5% to 50%)"),
    ],
)
def test_share_out_of_range_is_refused(share: Any, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        nas.search(holdout=share)
    assert str(caught.value) == f"holdout: {problem}"


_IN_OPEN, _IN_Q_OVERFLOW = 0x20, 0x4000


@contextmanager
def opened_files(*folders: Path) -> Iterator[Callable[[], set[str]]]:
    """Yield a function that returns the names of the files that any process has opened in the folders (inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_NONBLOCK)
    assert queue >= 0, os.strerror(ctypes.get_errno())
    watched: dict[int, Path] = {}
    for folder in folders:
        watched[libc.inotify_add_watch(queue, os.fsencode(folder), _IN_OPEN)] = folder
    assert -1 not in watched

    def read() -> set[str]:
        found = set[str]()
        while True:
            try:
                events = os.read(queue, 2**16)
            except BlockingIOError:
                return found
            while events:
                watch, mask, _, length = struct.unpack_from("iIII", events)
                assert not mask & _IN_Q_OVERFLOW
                name = events[16 : 16 + length].rstrip(b"\0").decode()
                if name:
                    found.add(str(watched[watch] / name))
                events = events[16 + length :]

    try:
        yield read
    finally:
        os.close(queue)


def scored(folder: Path) -> list[dict[str, Any]]:
    study = Study(folder, StudyFile.read(folder))
    return [
        {name: getattr(record, name) for name in ("fingerprint", "ending", "map50_95", "map50", "gflops")}
        for record in study.records()
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="inotify counts the opened files")
def test_only_a_confirmation_opens_sealed_files_and_a_search_needs_none(ask: Ask, data: Path, tmp_path: Path) -> None:
    folders = [data.parent / kind / split for kind in ("images", "labels") for split in ("train", "val")]
    studies = [
        ask(holdout=0.2, study=name, trials=2, image_size=64, base_epochs=30).begin() for name in ("there", "gone")
    ]
    sealed = {str(data.parent / image) for image in holdout.read(studies[0].folder / "holdout.json").images}
    labels = {image.replace("/images/", "/labels/").replace(".png", ".txt") for image in sealed}
    assert len(sealed) == len(labels & set(map(str, data.parent.rglob("*.txt")))) == 12
    environment = {**os.environ, "NAS_CACHE": str(tmp_path / "cache"), "NAS_NO_CACHE": "1"}

    def run(*words: str) -> str:
        command = [sys.executable, "-c", "from nas.cli import main; main()", *words, "--runs", str(tmp_path / "runs")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    with opened_files(*folders) as opened:
        run("resume", "there")
        of_search = opened()
        run("export", "there", "--out", str(tmp_path / "export"))
        run("reproduce", "there", "--trial", "0")
        of_others = opened()
        run("confirm", "there", "--seeds", "2", "--top", "1")
        of_confirmation = opened()
    assert of_confirmation >= sealed | labels
    assert len(of_search) == 2 * (60 - 12)
    assert not (of_search | of_others) & (sealed | labels)
    for file in sealed | labels:
        Path(file).rename(f"{file}.hidden")
    shutil.rmtree(tmp_path / "cache")
    run("resume", "gone")
    assert scored(studies[1].folder) == scored(studies[0].folder)
    assert {row["ending"] for row in scored(studies[0].folder)} == {"finished"}
    written = yaml.safe_load((tmp_path / "export" / "data.yaml").read_text())
    assert set(Path(written["test"]).read_text().split()) == sealed
    assert not set(Path(written["train"]).read_text().split()) & sealed
