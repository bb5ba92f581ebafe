"""Searches from released weights: `--weights pretrained`, where it is found, what is taken over, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.utils import downloads

from nas.cli import app, environment, initial_weights
from nas.settings import Pretrained, Settings
from nas.study.study import Study
from nas.workflows import relocation
from nas.workflows.plan import Plan
from nas.workflows.request import Request
from search_spaces import files
from search_spaces.errors import SpecError, StudyError
from trials.scores import Coverage
from trials.training import released

Checkpoint = Callable[[str], bytes]
SPACES = {
    "v5": ("yolov5n", "yolov5nu.pt"),
    "v8": ("yolov8n", "yolov8n.pt"),
    "v9": ("yolov9t", "yolov9t.pt"),
    "v10": ("yolov10n", "yolov10n.pt"),
    "v11": ("yolo11n", "yolo11n.pt"),
    "v12": ("yolo12n", "yolo12n.pt"),
    "v26": ("yolo26n", "yolo26n.pt"),
}
WHOLE = "the branch of the head that finds classes"
SHARES = {"v5": 85, "v8": 88, "v9": 86, "v10": 97, "v11": 98, "v12": 98, "v26": 96}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Return a function that makes a checkpoint of 80 classes, as Ultralytics saves one of random weights."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(model: str) -> bytes:
        path = folder / f"{model}.pt"
        if not path.is_file():
            YOLO(f"{model}.yaml").save(path)
            content = torch.load(path, weights_only=False)
            torch.save({**content, "train_args": {"data": "coco.yaml", "epochs": 500}}, path)
        return path.read_bytes()

    return make


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The three places, empty."""
    folders = {"working": tmp_path / "here", "settings": tmp_path / "settings", "cache": tmp_path / "cache" / "weights"}
    for folder in folders.values():
        folder.mkdir(parents=True)
    monkeypatch.chdir(folders["working"])
    monkeypatch.setattr(released, "SETTINGS", {"weights_dir": str(folders["settings"])})
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    return folders


@pytest.fixture
def data(tmp_path: Path, write_scenes: Callable[..., Path]) -> Path:
    """A data set of three classes."""
    file = write_scenes(tmp_path / "scenes", train=4, val=2)
    file.write_text("train: images/train\nval: images/val\nnames: [square, bar, none]\n")
    return file


def planned(space: str, data: Path, *more: str) -> tuple[int, str, str]:
    words = ["search", "--space", space, "--data", str(data), "--device", "cpu", "--runs", str(data.parent / "runs")]
    result = CliRunner().invoke(app, [*words, "--dry-run", "--format", "json", *more])
    return result.exit_code, result.stdout, result.stderr


def require_taken_over(space: str, place: Path, made: bytes, data: Path) -> None:
    """Check that a search finds a checkpoint in a place, and says what it takes over into three classes."""
    path = place / SPACES[space][1]
    path.write_bytes(made)
    status, out, err = planned(space, data, "--weights", "pretrained")
    assert status == 0, err
    plan = json.loads(out)
    assert plan["advice"] == ""
    assert plan["weights"].startswith(
        f"of the stock model, which is trained first, once, for 60 epochs, itself from {path} (trained on coco.yaml, "
        f"80 classes); {SHARES[space]} % of the stock model's weights are in it; new: {WHOLE}"
    )


class TestFound:
    @pytest.mark.parametrize(("space", "place"), [("v8", "working"), ("v8", "settings"), ("v11", "cache")])
    def test_in_each_place(
        self, space: str, place: str, places: dict[str, Path], checkpoint: Checkpoint, data: Path
    ) -> None:
        require_taken_over(space, places[place], checkpoint(SPACES[space][0]), data)

    @pytest.mark.slow
    @pytest.mark.parametrize("place", ["working", "settings", "cache"])
    @pytest.mark.parametrize("space", SPACES)
    def test_for_each_family_in_each_place(
        self, space: str, place: str, places: dict[str, Path], checkpoint: Checkpoint, data: Path
    ) -> None:
        require_taken_over(space, places[place], checkpoint(SPACES[space][0]), data)

    def test_it_is_fetched_once_and_recorded(
        self, places: dict[str, Path], checkpoint: Checkpoint, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, asked = checkpoint("yolov8n"), []

        def download(path: Path) -> str:
            if not path.is_file():
                asked.append(path)
                path.write_bytes(made)
            return str(path)

        monkeypatch.setattr(downloads, "is_online", lambda: True)
        monkeypatch.setattr(downloads, "attempt_download_asset", download)
        request = Request(space="v8", data=data, weights="pretrained", device="cpu", runs=data.parent / "runs")
        study = Plan.of(request).begin()
        fetched = places["cache"] / "yolov8n.pt"
        assert asked == [fetched]
        stored = json.loads((study.folder / "study.json").read_text())["settings"]
        assert stored["base"]["weights"] == str(fetched)
        digest = stored["pretrained"].pop("digest")
        assert stored["pretrained"] == {"name": "yolov8n.pt", "classes": 80, "trained_on": "coco.yaml"}
        assert len(digest) == 64

        (places["working"] / "yolov8n.pt").write_bytes(fetched.read_bytes())
        again = Plan.of(request)  # the same file in another place: the same study
        assert (again.folder, len(asked)) == (study.folder, 1)


class TestRefused:
    def lines(self, space: str, data: Path, *more: str) -> list[str]:
        """Return what a search prints that ends with status 2."""
        status, out, err = planned(space, data, "--weights", "pretrained", *more)
        assert (status, out) == (2, "")
        return err.splitlines()

    def test_torn_file(self, places: dict[str, Path], checkpoint: Checkpoint, data: Path) -> None:
        path = places["settings"] / "yolov8n.pt"
        path.write_bytes(checkpoint("yolov8n")[:200_000])
        (line,) = self.lines("v8", data)
        reason = "it is empty, torn, or a file of another kind"
        assert line == f"weights: {path}: not a checkpoint that Ultralytics loads: {reason}"

    def test_another_family(self, places: dict[str, Path], checkpoint: Checkpoint, data: Path) -> None:
        path = places["working"] / "yolov8n.pt"
        path.write_bytes(checkpoint("yolo11n"))
        (line,) = self.lines("v8", data)
        assert line.startswith(f"weights: {path}: not yolov8n.pt, but yolo11n: it has ")
        assert line.endswith(f"(put the released file there, or start from this one: --weights {path})")

    def test_missing_offline(self, places: dict[str, Path], data: Path) -> None:
        (line,) = self.lines("v8", data)
        assert line.startswith("weights: yolov8n.pt is not here, and there is no network (put the file yolov8n.pt of ")
        assert line.endswith(f" into one of {', '.join(map(str, places.values()))})")

    def test_base_model_of_no_family(self, places: dict[str, Path], data: Path) -> None:
        (places["working"] / "mine.yaml").write_text(
            "name: mine\nbase: yolov6.yaml\nscale: n\nslots: [{at: {layers: [11]}, choices: {DySample: {}}}]\n"
        )
        (line,) = self.lines("mine.yaml", data)
        assert line.startswith("weights: Ultralytics has released no checkpoint for yolov6.yaml at scale n, by its")

    def test_from_scratch(self, places: dict[str, Path]) -> None:
        with pytest.raises(SpecError, match="from-scratch: candidates with random weights start from nothing"):
            Plan.of(Request(space="v8", weights="pretrained", from_scratch=True, runs=places["working"] / "runs"))


class TestPlan:
    def test_released_weights_are_recommended_for_data_of_the_user(self, places: dict[str, Path], data: Path) -> None:
        start = "--weights pretrained starts the stock model from yolov8n.pt, which Ultralytics has trained on COCO"
        assert json.loads(planned("v8", data)[1])["advice"] == f"{start} (it is fetched once)"
        path = places["cache"] / "yolov8n.pt"
        path.touch()
        assert json.loads(planned("v8", data)[1])["advice"] == f"{start} (it is here: {path})"
        assert json.loads(planned("v8", data, "--from-scratch")[1])["advice"] == ""

    @pytest.mark.parametrize(
        ("layers", "new", "words"),
        [
            ((("22", 0.9),), ("22.cv3.0.2.weight", "22.cv3.1.2.bias"), "the last layer of classes"),
            (
                (("22", 0.5),),
                ("22.cv3.0.0.conv.weight", "22.cv3.0.2.bias"),
                WHOLE,
            ),
            ((("23", 0.5),), ("23.one2one_cv3.0.2.weight",), "the last layer of classes"),
            (
                (("18", 0.0), ("19", 0.0), ("21", 0.4), ("28", 0.6)),
                ("18.conv.weight", "28.cv2.0.0.conv.weight", "28.cv3.0.2.weight"),
                "layers 18, 19, parts of layer 21, parts of the head",
            ),
            ((("after-8", 0.0),), ("9.conv.weight",), "layer after-8"),
            ((("3", 0.5), ("4", 0.5)), ("3.conv.weight", "4.cv1.conv.weight"), "parts of layers 3, 4"),
        ],
    )
    def test_new_layers_are_named(
        self, layers: tuple[tuple[str, float], ...], new: tuple[str, ...], words: str
    ) -> None:
        coverage = Coverage(share=0.876, layers=layers, new=frozenset(f"model.{name}" for name in new))
        assert initial_weights.coverage_in_words(coverage) == (
            f"88 % of the stock model's weights are in it; new: {words}"
        )

    def test_complete_and_nearly_complete_coverage(self) -> None:
        assert initial_weights.coverage_in_words(Coverage(share=1.0)) == "all of the stock model's weights are in it"
        nearly = Coverage(share=0.99985, layers=(("22", 0.99),), new=frozenset({"model.22.cv3.0.2.weight"}))
        assert initial_weights.coverage_in_words(nearly).startswith("99.9 % of the stock model's weights are in it")


def test_released_checkpoint_is_the_same_setting_in_another_folder(make_study: Callable[..., Study]) -> None:
    settings = make_study().settings
    what = Pretrained(name="yolov9t.pt", digest="0" * 64, classes=80, trained_on="coco.yaml")

    def at(path: str, pretrained: Pretrained | None) -> Settings:
        budget = settings.budget.model_copy(update={"weights": Path(path)})
        return settings.model_copy(update={"budget": budget, "pretrained": pretrained})

    assert at("/a/yolov9t.pt", what).differences(at("/b/yolov9t.pt", what)) == []
    other = what.model_copy(update={"digest": "1" * 64})
    assert len(at("/a/yolov9t.pt", what).differences(at("/a/yolov9t.pt", other))) == 1
    assert len(at("/a/yolov9t.pt", None).differences(at("/b/yolov9t.pt", None))) == 1


def test_another_file_under_the_name_of_a_released_checkpoint_is_refused_on_resume(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    path = tmp_path / "yolov9t.pt"
    path.write_bytes(b"one")
    what = Pretrained(name=path.name, digest=files.digest(path), classes=80)
    before = make_study().settings
    budget = before.budget.model_copy(update={"weights": Path("/elsewhere/yolov9t.pt")})
    settings = before.model_copy(update={"budget": budget, "pretrained": what})
    assert relocation._with_weights("small", settings, path).budget.weights == path
    path.write_bytes(b"other")
    with pytest.raises(StudyError, match=r"yolov9t\.pt: another file than the yolov9t\.pt from which small started"):
        relocation._with_weights("small", settings, path)


def test_doctor_lists_released_checkpoints(places: dict[str, Path]) -> None:
    assert environment._weights()[1] == f"none here; nas search --weights pretrained fetches one into {places['cache']}"
    (places["settings"] / "yolo11n.pt").touch()
    assert environment._weights() == (True, str(places["settings"] / "yolo11n.pt"))
