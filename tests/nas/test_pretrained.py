"""Searches from released weights: `--weights pretrained`, where it is found, what is taken over, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.utils import downloads

from nas.cli import app, environment, initial_weights
from nas.settings import Pretrained, Settings
from nas.study import shared_definition
from nas.study.study import Study
from nas.workflows import relocation
from nas.workflows.begin import resume
from nas.workflows.plan import Plan
from nas.workflows.request import Request
from nas.workflows.running import train_stock_models
from search_spaces import files
from search_spaces.errors import SpecError, StudyError
from trials import recipes
from trials.scores import Coverage
from trials.training import released

Checkpoint = Callable[[str], bytes]
MODELS = Path(ultralytics.__file__).parent / "cfg" / "models"
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


REMEDY = "(put the released yolov8n.pt there, or remove this one: then it is fetched)"


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
        assert line == f"weights: {path}: not a checkpoint that Ultralytics loads: {reason} {REMEDY}"

    def test_another_family(self, places: dict[str, Path], checkpoint: Checkpoint, data: Path) -> None:
        path = places["working"] / "yolov8n.pt"
        path.write_bytes(checkpoint("yolo11n"))
        (line,) = self.lines("v8", data)
        assert line.startswith(f"weights: {path}: not yolov8n.pt, but yolo11n: it has ")
        remedy = f"put the released file there; a search of one space may start from this one: --weights {path}"
        assert line.endswith(f"({remedy})")

    def test_missing_offline(self, places: dict[str, Path], data: Path) -> None:
        (line,) = self.lines("v8", data)
        assert line.startswith("weights: yolov8n.pt is not here, and there is no network (put the file yolov8n.pt of ")
        assert line.endswith(f" into one of {', '.join(map(str, places.values()))})")

    def test_base_model_of_no_family(self, places: dict[str, Path], data: Path) -> None:
        (places["working"] / "mine.yaml").write_text(
            "name: mine\nbase: yolov6.yaml\nscale: n\nslots: [{at: {layers: [11]}, choices: {DySample: {}}}]\n"
        )
        (line,) = self.lines("mine.yaml", data)
        assert line == (
            "weights: Ultralytics has released no checkpoint for yolov6.yaml at scale n, by its name (name one with "
            "--weights FILE.pt, or leave --weights out)"
        )

    def test_from_scratch(self, places: dict[str, Path]) -> None:
        with pytest.raises(SpecError, match="from-scratch: candidates with random weights start from nothing"):
            Plan.of(Request(space="v8", weights="pretrained", from_scratch=True, runs=places["working"] / "runs"))


class TestSeveralMembers:
    @pytest.fixture
    def put(self, places: dict[str, Path], checkpoint: Checkpoint) -> dict[str, Path]:
        """Checkpoints of two families, in two places, by the member's name."""
        paths = {"v8n": places["working"] / "yolov8n.pt", "v11n": places["cache"] / "yolo11n.pt"}
        for path in paths.values():
            path.write_bytes(checkpoint(path.stem))
        return paths

    def request(self, data: Path, **more: Any) -> Request:
        runs = data.parent / "runs"
        return Request(space="v8n,v11n", data=data, weights="pretrained", device="cpu", runs=runs, **more)

    def test_each_starts_from_that_of_its_family_and_scale(self, put: dict[str, Path], data: Path) -> None:
        status, out, err = planned("v8n,v11n", data, "--weights", "pretrained")
        assert status == 0, err
        shares = {"v8n": 88, "v11n": 98}
        told = [
            f"{member}: {path} (trained on coco.yaml, 80 classes); {shares[member]} % of the stock model's weights are "
            f"in it; new: {WHOLE}"
            for member, path in put.items()
        ]
        assert json.loads(out)["weights"].endswith(f"for 60 epochs, itself from {' | '.join(told)}")
        assert json.loads(out)["advice"] == ""
        study = Plan.of(self.request(data)).begin()
        again = Study.open(study.folder)
        assert {one.member: one.budget.weights for one in again.stock_trainings} == put
        assert again.settings.inherits
        assert again.settings.budget.recipe == recipes.INHERITED

    def test_stock_models_alone_start_from_them(self, put: dict[str, Path], data: Path) -> None:
        study = Plan.of(self.request(data, stock_only=True)).begin()
        described = initial_weights.describe(study.settings)
        assert described.startswith(f"where layers and shapes agree, of v8n: {put['v8n']} (trained on coco.yaml, ")
        budgets = [study.scoring.budget(stock) for stock in study.space.stocks]
        assert [budget.weights for budget in budgets] == list(put.values())
        keys = [study.scoring._initial_weights(stock) for stock in study.space.stocks]
        assert keys == [files.digest(path) for path in put.values()]
        with pytest.raises(StudyError, match=f"its trials start from {put['v8n']}, {put['v11n']}, and no stock model"):
            train_stock_models(study)

    def test_they_may_lie_elsewhere_on_resume(self, put: dict[str, Path], data: Path, tmp_path: Path) -> None:
        study = Plan.of(self.request(data)).begin()
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        for path in put.values():
            path.rename(folder / path.name)
        with pytest.raises(StudyError, match=r"the checkpoints .*yolov8n\.pt, .*yolo11n\.pt, .* --weights FOLDER"):
            resume(study.name, runs=study.folder.parent)
        with pytest.raises(
            SpecError, match=r"weights: no such folder, got .* \(that of yolov8n\.pt, yolo11n\.pt, from"
        ):
            resume(study.name, runs=study.folder.parent, weights=folder / "yolov8n.pt")
        resumed = resume(study.name, runs=study.folder.parent, weights=folder)
        assert [one.budget.weights for one in resumed.stock_trainings] == [folder / path.name for path in put.values()]
        assert resumed.settings.differences(study.settings) == []  # the same files
        (folder / "yolo11n.pt").write_bytes(b"other")
        with pytest.raises(StudyError, match=r"yolo11n\.pt: another file than the yolo11n\.pt from which"):
            resume(study.name, runs=study.folder.parent, weights=folder)
        (folder / "yolo11n.pt").unlink()
        with pytest.raises(SpecError, match=r"yolo11n\.pt: no such file \(.* started from yolov8n\.pt, yolo11n\.pt\)"):
            resume(study.name, runs=study.folder.parent, weights=folder)

    def test_all_that_are_missing_are_named_at_once(self, places: dict[str, Path], data: Path) -> None:
        status, _, err = planned("v8n,v9t,v11n", data, "--weights", "pretrained")
        names = "yolov8n.pt, yolov9t.pt, yolo11n.pt"
        (line,) = err.splitlines()
        assert status == 2
        assert line.startswith(f"weights: {names} are not here, and there is no network (put the files {names} of ")
        assert line.endswith(f" into one of {', '.join(map(str, places.values()))})")

    def test_members_without_one_are_named_with_what_to_do(self, put: dict[str, Path], data: Path) -> None:
        """From random weights beside released ones they would be behind for that alone."""
        here = put["v8n"].parent
        p2 = (MODELS / "v8" / "yolov8-p2.yaml").read_text()
        for name in ("article", "other", "yolov8n-article"):
            (here / f"{name}.yaml").write_text(p2)
            slot = "{at: {layers: [2]}, choices: {UIB: {}}}"
            (here / f"of-{name}.yaml").write_text(f"name: {name}\nbase: {name}.yaml\nscale: n\nslots: [{slot}]\n")
        status, _, err = planned("v8n,of-article.yaml,of-other.yaml", data, "--weights", "pretrained")
        assert status == 2
        assert err == (
            f"weights: Ultralytics has released no checkpoint for {here}/article.yaml at scale n, {here}/other.yaml at "
            "scale n, by their names (called after what it is nearest to, such as yolov8n-article.yaml, a file takes "
            "what fits; or search without them, or all from random weights, without --weights)\n"
        )
        status, out, err = planned("v8n,of-yolov8n-article.yaml", data, "--weights", "pretrained")
        assert status == 0, err
        assert f": {put['v8n']} (trained on coco.yaml, 80 classes); 90 % of the stock" in json.loads(out)["weights"]

    def test_all_that_are_wrong_are_named_at_once(self, put: dict[str, Path], data: Path) -> None:
        put["v11n"].write_bytes(put["v8n"].read_bytes())
        put["v8n"].write_bytes(b"torn")
        status, _, err = planned("v8n,v11n", data, "--weights", "pretrained")
        torn, other = err.splitlines()
        assert status == 2
        assert torn.startswith(f"weights: {put['v8n']}: not a checkpoint that Ultralytics loads: ")
        assert torn.endswith(REMEDY)
        assert other.startswith(f"weights: {put['v11n']}: not yolo11n.pt, but yolov8n: it has ")

    def test_one_file_for_several_is_refused(self, data: Path) -> None:
        status, _, err = planned("v8n,v11n", data, "--weights", "mine.pt")
        assert status == 2
        assert err == (
            "weights: one file cannot start several members, got 'mine.pt' (--weights pretrained takes the released "
            "checkpoint of each of v8n,v11n; or search one space from this file)\n"
        )

    def test_they_are_recommended(self, places: dict[str, Path], data: Path) -> None:
        start = (
            "--weights pretrained starts the stock models from yolov8n.pt, yolo11n.pt, which Ultralytics has trained"
        )
        told = json.loads(planned("v8n,v11n", data)[1])["advice"]
        assert told == f"{start} on COCO (each is fetched once)"
        (places["cache"] / "yolov8n.pt").touch()
        told = json.loads(planned("v8n,v11n", data)[1])["advice"]
        assert told == f"{start} on COCO (to be fetched once: yolo11n.pt)"
        (places["cache"] / "yolo11n.pt").touch()
        assert json.loads(planned("v8n,v11n", data)[1])["advice"] == f"{start} on COCO (all of them are here)"

    def test_another_machine_gets_them_with_the_definition(self, put: dict[str, Path], data: Path) -> None:
        settings = Plan.of(self.request(data)).begin().settings
        moved = shared_definition.settings_in(Path("/there"), settings, None)
        assert [one.path for one in moved.member_weights] == [
            Path("/there/initial_weights") / path.name for path in put.values()
        ]
        assert all(shared_definition._NAME.fullmatch(f"initial_weights/{path.name}") for path in put.values())


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
