"""Checkpoints that Ultralytics has released: their names, where they are found, what is read from them."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils import downloads

from search_spaces import build, model_reader
from search_spaces.errors import DataError, EnvironmentProblem
from trials import weights
from trials.training import released
from trials.training.alignment import align
from trials.training.inheritance import transfer

FAMILIES = {
    "yolov5": "nsmlx",
    "yolov8": "nsmlx",
    "yolov9": "tsmce",
    "yolov10": "nsmblx",
    "yolo11": "nsmlx",
    "yolo12": "nsmlx",
    "yolo26": "nsmlx",
}


class TestNames:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_scale_of_every_family_is_released(self, family: str) -> None:
        for scale in FAMILIES[family]:
            name = released.checkpoint_name(f"{family}{{scale}}.yaml", scale)
            assert name == f"{family}{scale}{'u' if family == 'yolov5' else ''}.pt"
            assert name in downloads.GITHUB_ASSETS_NAMES

    @pytest.mark.parametrize(
        ("base", "scale", "name"),
        [
            ("yolov8-p2.yaml", "n", "yolov8n.pt"),
            ("yolov8s-p6", "s", "yolov8s.pt"),
            ("yolov5{scale}-p6.yaml", "m", "yolov5m6u.pt"),
            ("yolo26n-p2.yaml", "n", "yolo26n.pt"),
            ("/home/me/yolov8n-wide.yaml", "", "yolov8n.pt"),
            ("yolov9c-dcnv4", "c", "yolov9c.pt"),
            ("yolov3-tiny.yaml", "", "yolov3-tinyu.pt"),
            ("yolov3.yaml", "", "yolov3u.pt"),
            ("mine.yaml", "n", None),
            ("yolov6.yaml", "n", None),
            ("yolov8.yaml", "", None),
            ("yolov8.yaml", "q", None),
        ],
    )
    def test_name_follows_from_base_and_scale(self, base: str, scale: str, name: str | None) -> None:
        assert released.checkpoint_name(base, scale) == name

    def test_model_of_every_released_name_exists(self) -> None:
        names = {
            released.checkpoint_name(f"{family}{scale}", scale) for family in FAMILIES for scale in FAMILIES[family]
        }
        for name in (*names, "yolov5n6u.pt", "yolov3u.pt", "yolov3-tinyu.pt"):
            assert name
            document = released._document_name(name)
            assert model_reader.model_document(f"{document}.yaml")["backbone"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, ...]:
    """Three empty places, in the order in which they are searched."""
    folders = tmp_path / "working", tmp_path / "settings", tmp_path / "cache" / "weights"
    for folder in folders:
        folder.mkdir(parents=True)
    monkeypatch.chdir(folders[0])
    monkeypatch.setattr(released, "SETTINGS", {"weights_dir": str(folders[1])})
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    return folders


class TestPlaces:
    def test_first_place_counts(self, places: tuple[Path, ...]) -> None:
        assert released.places() == places
        assert released.find("yolov8n.pt") is None
        for place in reversed(places):
            (place / "yolov8n.pt").touch()
            assert released.find("yolov8n.pt") == place / "yolov8n.pt"

    def test_all_detection_checkpoints_are_listed(self, places: tuple[Path, ...]) -> None:
        found = [places[0] / "yolov8n.pt", places[1] / "yolo11x.pt", places[2] / "yolov5nu.pt"]
        for path in (*found, places[0] / "yolov8n-cls.pt", places[1] / "best.pt"):
            path.touch()
        assert released.find_all() == found


class TestFetching:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """What Ultralytics' downloader is asked for, from now on; it writes an empty file."""
        asked: list[Path] = []

        def download(path: Path) -> str:
            asked.append(path)
            sys.stdout.write("a progress bar\n")
            path.touch()
            return str(path)

        monkeypatch.setattr(downloads, "attempt_download_asset", download)
        return asked

    def test_offline_it_is_said_which_file_to_put_where(self, places: tuple[Path, ...], asked: list[Path]) -> None:
        with pytest.raises(EnvironmentProblem) as refused:
            released.fetch("yolov8n.pt")
        assert str(refused.value) == (
            "weights: yolov8n.pt is not here, and there is no network (put the file yolov8n.pt of "
            f"{released.ADDRESS} into one of {', '.join(map(str, places))})"
        )
        assert asked == []

    def test_file_goes_into_the_cache_and_progress_to_stderr(
        self,
        places: tuple[Path, ...],
        asked: list[Path],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(downloads, "is_online", lambda: True)
        places[2].rmdir()
        assert released.fetch("yolov8n.pt") == places[2] / "yolov8n.pt"
        assert asked == [released.find("yolov8n.pt")]
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == ("", "a progress bar\n")

    @pytest.mark.parametrize("error", [ConnectionError("no such host"), MemoryError("disk full")])
    def test_failed_download_is_one_line(
        self, places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fails(_: Path) -> str:
            raise error

        monkeypatch.setattr(downloads, "is_online", lambda: True)
        monkeypatch.setattr(downloads, "attempt_download_asset", fails)
        with pytest.raises(EnvironmentProblem, match=rf"^weights: yolov8n\.pt cannot be fetched: {error} \(put .*\)$"):
            released.fetch("yolov8n.pt")
        assert not any(place.joinpath("yolov8n.pt").exists() for place in places)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that saves a model of Ultralytics with random weights, as it does itself."""
    folder = tmp_path_factory.mktemp("released")

    def save(model: str) -> Path:
        path = folder / f"{model}.pt"
        if not path.is_file():
            YOLO(f"{model}.yaml").save(path)
        return path

    return save


class TestContent:
    def test_classes_and_data_are_read(self, saved: Callable[[str], Path], tmp_path: Path) -> None:
        content = torch.load(saved("yolov8n"), weights_only=False)
        path = tmp_path / "yolov8n.pt"
        torch.save({**content, "train_args": {"data": "/usr/src/\x1b[2Jcoco.yaml", "epochs": 500}}, path)
        found = released.describe(path, "yolov8n.pt")
        assert (found.name, found.path, found.classes) == ("yolov8n.pt", path, 80)
        assert found.trained_on == r"\x1b[2Jcoco.yaml"
        assert len(found.digest) == 64

    def test_file_without_settings_of_its_training(self, saved: Callable[[str], Path]) -> None:
        assert released.describe(saved("yolov8n"), "yolov8n.pt").trained_on == ""

    @pytest.mark.parametrize("name", ["yolo11n.pt", "yolov8s.pt", "yolov5nu.pt"])
    def test_another_model_is_refused_by_its_tensors(self, saved: Callable[[str], Path], name: str) -> None:
        with pytest.raises(DataError, match=rf"yolov8n\.pt: not {name}, but yolov8n: it has \d+% of that model's"):
            released.describe(saved("yolov8n"), name)

    def test_torn_file_is_refused(self, saved: Callable[[str], Path], tmp_path: Path) -> None:
        path = tmp_path / "yolov8n.pt"
        path.write_bytes(saved("yolov8n").read_bytes()[:100_000])
        with pytest.raises(DataError, match=r"yolov8n\.pt: not a checkpoint that Ultralytics loads: it is empty, torn"):
            released.describe(path, "yolov8n.pt")


class TestOtherHeads:
    def test_layers_are_aligned_by_type_and_stride(self) -> None:
        up, cat, conv, head = torch.nn.Upsample, torch.nn.Identity, torch.nn.Conv2d, torch.nn.Linear
        plain = [(conv, 8), (conv, 16), (up, 8), (cat, 8), (conv, 16), (head, 0)]
        p2 = [(conv, 8), (conv, 16), (up, 8), (cat, 8), (up, 4), (cat, 4), (conv, 8), (conv, 16), (head, 0)]
        assert align(p2, plain) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 7, 5: 8}
        assert align(plain, p2) == {0: 0, 1: 1, 2: 2, 3: 3, 7: 4, 8: 5}

    def test_model_with_p2_takes_over_the_layers_of_one_without(self, saved: Callable[[str], Path]) -> None:
        source = weights.read(saved("yolov8n"))
        torch.manual_seed(1)
        model = build.model(model_reader.model_document("yolov8n-p2.yaml"), 80)
        coverage = transfer(model, source)
        assert [label for label, share in coverage.layers if not share] == ["18", "19", "21"]
        ours, theirs = model.state_dict(), source.float().state_dict()
        for here, there in {"22.conv": "16.conv", "24.cv1.conv": "18.cv1.conv", "27.cv2.conv": "21.cv2.conv"}.items():
            assert torch.equal(ours[f"model.{here}.weight"], theirs[f"model.{there}.weight"])
        assert torch.equal(ours["model.28.cv2.2.1.conv.weight"], theirs["model.22.cv2.1.1.conv.weight"])  # stride 16
        assert 0.85 < coverage.share < 0.95
