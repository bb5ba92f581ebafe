"""Short trainings on sixteen digit scenes of 64 px: a second each, nothing learned, everything observable.

Not tested here, since it needs a GPU: a scaled loss in fp16. The loader of a GPU has a test of its own.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.data import base as their_data
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import events, torch_utils

import search_spaces
from search_spaces import Architecture, build
from search_spaces.operators import modules
from search_spaces.operators.dynamic_conv import DynamicConv
from trials import Budget, Epoch, Recipe, evaluation, scores
from trials.budget import Precision
from trials.data import datasets, digit_scenes, image_cache, validation_batches
from trials.scores import Coverage
from trials.training import short_training
from trials.training.ema import decay
from trials.training.short_training import DivergedError, ShortTraining, TimedOutError, TrainingResult
from trials.weights import save

CLASSES = 10
TinyBudget = Callable[..., Budget]
Train = Callable[..., TrainingResult]


def forward(_number: int, _epoch: Epoch) -> bool:
    return True


@pytest.fixture
def train(tiny: TinyBudget, scenes: datasets.DataSet, folder: Path) -> Train:
    """Train an architecture for the tiny budget, with some fields of it changed."""

    def run(
        architecture: Architecture, *, go_on: scores.GoOn = forward, weights: str = "weights.pt", **changes: object
    ) -> TrainingResult:
        document = architecture.document(CLASSES)
        given = {"weights": changes.pop("start")} if "start" in changes else {}
        budget = tiny(**given, **changes)
        return short_training.train(document, budget, scenes, folder, go_on, weights=folder / weights)

    return run


def tensors(file: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(file)[0].state_dict()


def same(these: Mapping[str, torch.Tensor], those: Mapping[str, torch.Tensor]) -> bool:
    return these.keys() == those.keys() and all(torch.equal(these[name], those[name]) for name in these)


def losses(trained: TrainingResult) -> list[dict[str, float]]:
    return [epoch.losses for epoch in trained.epochs]


def forget() -> None:
    """Clear this process' cached images; the machine's cache folder stays."""
    image_cache.load.cache_clear()
    validation_batches.in_memory.cache_clear()


class Recorder:
    """Recorder of the files and images of every training batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[list[str]] = []
        self.images: list[torch.Tensor] = []
        preprocess = ShortTraining.preprocess_batch

        def recording(trainer: ShortTraining, batch: dict[str, Any]) -> dict[str, Any]:
            ready = preprocess(trainer, batch)
            self.files.append([Path(file).stem for file in ready["im_file"]])
            self.images.append(ready["img"].clone())
            return ready

        monkeypatch.setattr(ShortTraining, "preprocess_batch", recording)

    def take(self) -> tuple[list[list[str]], list[torch.Tensor]]:
        """Return what was recorded since the last call."""
        files, images = self.files, self.images
        self.files, self.images = [], []
        return files, images


class TestGoOn:
    def test_go_on_is_called_after_every_epoch(self, train: Train, stock: Architecture) -> None:
        asked: list[tuple[int, Epoch]] = []

        def go_on(number: int, epoch: Epoch) -> bool:
            asked.append((number, epoch))
            return True

        trained = train(stock, go_on=go_on, epochs=4, rungs=(1, 3))
        assert [number for number, _ in asked] == [1, 2, 3, 4]
        assert tuple(epoch for _, epoch in asked) == trained.epochs
        assert [epoch.epoch for epoch in trained.epochs] == [1, 2, 3, 4]
        assert [epoch.map50_95 is not None for epoch in trained.epochs] == [True, False, True, True]
        assert [epoch.map50 is not None for epoch in trained.epochs] == [True, False, True, True]
        assert all(epoch.seconds > 0 for epoch in trained.epochs)
        assert [set(epoch.losses) for epoch in trained.epochs] == [{"box_loss", "cls_loss", "dfl_loss"}] * 4
        assert not trained.stopped
        assert trained.coverage == Coverage()

    def test_false_of_go_on_stops_the_training(self, train: Train, stock: Architecture, folder: Path) -> None:
        trained = train(stock, go_on=lambda number, _: number < 2, epochs=4)
        assert [epoch.epoch for epoch in trained.epochs] == [1, 2]
        assert trained.stopped
        assert not (folder / "weights.pt").exists()

    def test_false_of_go_on_after_the_last_epoch_stops_nothing(
        self, train: Train, stock: Architecture, folder: Path
    ) -> None:
        trained = train(stock, go_on=lambda *_: False, epochs=1)
        assert not trained.stopped
        assert trained.epochs[-1].map50_95 is not None
        assert (folder / "weights.pt").is_file()

    def test_error_raised_by_go_on_ends_the_training(self, train: Train, stock: Architecture) -> None:
        def interrupted(_number: int, _epoch: Epoch) -> NoReturn:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(stock, go_on=interrupted)


class TestCommonRandomNumbers:
    def test_equal_seeds_give_equal_scores(self, train: Train, motley: Architecture, folder: Path) -> None:
        forget()  # the first training reads the images, the second has them
        first = train(motley, weights="first.pt")
        torch.rand(1)
        assert losses(train(motley, weights="second.pt")) == losses(first)
        assert same(tensors(folder / "second.pt"), tensors(folder / "first.pt"))
        assert losses(train(motley, epochs=1, seed=1))[0] != losses(first)[0]

    def test_validation_at_rungs_changes_no_score(self, train: Train, stock: Architecture, folder: Path) -> None:
        first = train(stock, weights="first.pt")
        assert losses(train(stock, weights="second.pt", rungs=(1,))) == losses(first)
        assert same(tensors(folder / "second.pt"), tensors(folder / "first.pt"))

    def test_all_architectures_see_the_same_images(
        self, train: Train, stock: Architecture, motley: Architecture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorder = Recorder(monkeypatch)
        train(stock)
        files, images = recorder.take()
        train(motley)
        again, images_again = recorder.take()
        assert again == files
        assert all(torch.equal(a, b) for a, b in zip(images, images_again, strict=True))
        assert [len(batch) for batch in files] == [8] * 4  # two batches an epoch
        epochs = [[*files[0], *files[1]], [*files[2], *files[3]]]
        assert sorted(epochs[0]) == sorted(epochs[1]) == [f"{number:04}" for number in range(16)]
        assert epochs[0] != epochs[1]
        train(stock, epochs=1, recipe=Recipe(fliplr=0.0, mosaic=1.0))
        again, others = recorder.take()
        assert again == files[:2]
        assert not any(torch.equal(a, b) for a, b in zip(images, others, strict=False))
        train(stock, epochs=1, seed=1)
        assert recorder.take()[0] != files[:2]


class TestOmissions:
    def test_training_writes_only_listed_files(
        self, train: Train, stock: Architecture, folder: Path, scenes: datasets.DataSet
    ) -> None:
        for cache in scenes.path.parent.rglob("*.cache"):
            cache.unlink()  # of another test, in which Ultralytics' trainer reads the same images
        train(stock, rungs=(1,))
        assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == {
            "ultralytics",
            "ultralytics/args.yaml",
            "ultralytics/weights",
            "weights.pt",
        }
        beside = {path.name for path in scenes.path.parent.rglob("*") if path.suffix not in {".png", ".txt"}}
        assert beside == {"images", "labels", "train", "val", "data.yaml"}

    def test_training_calls_no_registered_callbacks(
        self,
        tiny: TinyBudget,
        scenes: datasets.DataSet,
        folder: Path,
        stock: Architecture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        calls: list[object] = []
        monkeypatch.setattr(events, "events", lambda *about: calls.append(about))
        trainer = ShortTraining(stock.document(CLASSES), tiny(epochs=1), scenes, folder, forward)
        trainer.add_callback("on_train_start", calls.append)
        trainer.add_callback("on_fit_epoch_end", calls.append)
        trainer.train()
        assert calls == []
        modules = {callback.__module__ for callbacks in trainer.callbacks.values() for callback in callbacks}
        assert modules - {"builtins", None} == {"ultralytics.utils.callbacks.base", "ultralytics.utils.events"}

    def test_training_never_uses_the_network(
        self, train: Train, motley: Architecture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[object] = []

        def refuse(*about: object, **_: object) -> NoReturn:
            asked.append(about)
            raise OSError("no network here")

        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket.socket, "connect_ex", refuse)
        forget()
        train(motley, epochs=1)
        assert asked == []

    def test_images_are_decoded_once_per_machine(
        self, train: Train, stock: Architecture, motley: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        imread = their_data.imread

        def reading(file: str, *flags: Any, **more: Any) -> Any:
            read.append(file)
            return imread(file, *flags, **more)

        monkeypatch.setattr(their_data, "imread", reading)
        monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
        forget()
        train(stock, epochs=1)
        assert len(read) == len(set(read)) == 16 + 8
        read.clear()
        forget()  # as another process
        train(motley, epochs=2, rungs=(1,), seed=3)
        assert read == []  # independent of architecture, epochs and seed
        forget()


def test_a_base_model_of_stride_64_trains_on_images_of_any_shape(tiny: TinyBudget, folder: Path) -> None:
    """Validation pads to the stride, and a narrow image of 128 px to 96 would not do."""
    for split in ("train", "val"):
        for number in range(4):
            image = folder / "images" / split / f"{number}.png"
            label = folder / "labels" / split / f"{number}.txt"
            for file in (image, label):
                file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), np.full((100, 160, 3), 60 * number, np.uint8))
            label.write_text("0 0.5 0.5 0.2 0.2\n")
    file = folder / "data.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [spot]\n")
    document = Architecture(base="yolov8{scale}-p6.yaml", scale="n", picks=()).document(1)
    budget = tiny(data=file, epochs=1, image_size=128, batch=2)
    trained = short_training.train(
        document, budget, datasets.load(file), folder, forward, weights=folder / "weights.pt"
    )
    assert trained.epochs[-1].map50_95 is not None


DEEP = """
from torch import nn

class Deep(nn.Module):
    def __init__(self, c1):
        super().__init__()
        self.mixed = nn.Conv3d(c1, c1, 1)

    def forward(self, x):
        return self.mixed(x.unsqueeze(2)).squeeze(2)
"""


def test_model_with_weights_of_five_dimensions_trains_and_is_costed(
    tiny: TinyBudget, scenes: datasets.DataSet, folder: Path
) -> None:
    """PyTorch converts such weights to no channels_last."""
    (folder / "fork.py").write_text(DEEP)
    modules.load(folder / "fork.py")
    rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Deep", []], [-1, 1, "Conv", [8, 3, 2]]]
    document = {"nc": CLASSES, "backbone": rows, "head": [[[1, 2], 1, "Detect", ["nc"]]]}
    trained = short_training.train(document, tiny(epochs=1), scenes, folder, forward, weights=folder / "weights.pt")
    assert trained.epochs[-1].map50_95 is not None
    assert evaluation.measure_costs(document, tiny(), CLASSES).latency_ms


class TestFailures:
    @pytest.mark.parametrize("batch", [0, 3])
    def test_a_nan_loss_ends_the_training_at_its_batch(
        self, batch: int, train: Train, stock: Architecture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loss, calls = DetectionModel.loss, []

        def broken(model: DetectionModel, *arguments: Any) -> Any:
            total, items = loss(model, *arguments)
            calls.append(model.training)
            if len(calls) - 1 < batch or not model.training:
                return total, items
            return total * float("nan"), {name: value * float("nan") for name, value in items.items()}

        monkeypatch.setattr(DetectionModel, "loss", broken)
        with pytest.raises(DivergedError) as caught:
            train(stock, epochs=3)
        assert str(caught.value) == f"the loss is nan in epoch {batch // 2 + 1}"
        assert calls == [True] * (batch + 1)  # at the batch, not at the epoch's end

    def test_nan_weights_end_the_training(self, train: Train, stock: Architecture, tmp_path: Path) -> None:
        """NaN weights go through the whole network and its loss, as in a training that really diverged."""
        model, path = build.model(stock.document(CLASSES), CLASSES), tmp_path / "nan.pt"
        nn.init.constant_(model.model[0].conv.weight, float("nan"))
        save(model, {}, path)
        with pytest.raises(DivergedError, match=r"^the loss is nan in epoch 1$"):
            train(stock, start=path)

    def test_the_time_limit_ends_the_training(self, train: Train, stock: Architecture) -> None:
        with pytest.raises(TimedOutError) as caught:
            train(stock, timeout=1e-3)
        assert str(caught.value) == "0.001 s were over in epoch 1"

    @pytest.mark.parametrize("batch", [0, 2])
    def test_out_of_memory_does_not_halve_the_batch(
        self, batch: int, train: Train, stock: Architecture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loss, sizes = DetectionModel.loss, []

        def hungry(model: DetectionModel, data: dict[str, Any], *preds: Any) -> Any:
            sizes.append(len(data["img"]))
            if len(sizes) > batch:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return loss(model, data, *preds)

        monkeypatch.setattr(DetectionModel, "loss", hungry)
        with pytest.raises(RuntimeError, match="out of memory"):
            train(stock, epochs=3)
        assert sizes == [8] * (batch + 1)

    def test_thread_counts_are_restored(self, train: Train, stock: Architecture) -> None:
        theirs, threads = torch_utils.NUM_THREADS, torch.get_num_threads()
        torch_utils.NUM_THREADS = 3
        torch.set_num_threads(2)
        counts: list[int] = []

        def go_on(_number: int, _epoch: Epoch) -> bool:
            counts.append(torch.get_num_threads())
            return True

        try:
            train(stock, go_on=go_on, epochs=1)
            assert counts == [1]
            assert (torch_utils.NUM_THREADS, torch.get_num_threads()) == (3, 2)
            with pytest.raises(TimedOutError):
                train(stock, timeout=1e-3)
            assert (torch_utils.NUM_THREADS, torch.get_num_threads()) == (3, 2)
            assert not torch.are_deterministic_algorithms_enabled()
        finally:
            torch_utils.NUM_THREADS = theirs
            torch.set_num_threads(threads)


class TestRecipe:
    @pytest.mark.parametrize(("anneal", "steps", "tolerance"), [(0.5, 2, 1e-3), (1.0, 4, 0.02), (0.01, 1, 1e-5)])
    def test_temperature_reaches_1_in_a_short_training(
        self,
        *,
        anneal: float,
        steps: int,
        tolerance: float,
        tiny: TinyBudget,
        scenes: datasets.DataSet,
        folder: Path,
        motley: Architecture,
    ) -> None:
        """The temperature is compared after four steps, in the live model and in the EMA, which is scored and saved."""
        budget = tiny(recipe=Recipe(anneal=anneal))
        trainer = ShortTraining(motley.document(CLASSES), budget, scenes, folder, forward)
        trainer.train()
        live = [module for module in trainer.model.modules() if isinstance(module, DynamicConv)]
        assert [module.anneal_steps for module in live] == [steps]
        assert [float(module.temperature) for module in live] == [1.0]
        with trainer.ema.applied():
            assert [float(module.temperature) for module in live] == pytest.approx([1.0], abs=tolerance)

    def test_recipe_sets_the_hyperparameters_of_the_trainer(
        self, tiny: TinyBudget, scenes: datasets.DataSet, folder: Path, stock: Architecture
    ) -> None:
        recipe = Recipe(
            learning_rate=3e-3,
            final_learning_rate=0.1,
            weight_decay=1e-3,
            warmup_epochs=1.0,
            bn_momentum=0.3,
            mosaic=0.5,
            scale=0.1,
            fliplr=0.0,
        )
        document, rates_by_epoch = stock.document(CLASSES), []

        def go_on(_number: int, _epoch: Epoch) -> bool:
            rates_by_epoch.append([group["lr"] for group in trainer.optimizer.param_groups])
            return True

        trainer = ShortTraining(document, tiny(epochs=4, recipe=recipe, seed=7, timeout=600.0), scenes, folder, go_on)
        trainer.train()
        assert type(trainer.optimizer).__name__ == "AdamW"
        assert {group["weight_decay"] for group in trainer.optimizer.param_groups} == {0.0, 1e-3}
        # Warm-up over the first epoch, then on the line from 3e-3 to a tenth of it in four epochs.
        line = [3e-3 * (1 - 0.9 * epoch / 4) for epoch in range(4)]
        assert [rates[0] for rates in rates_by_epoch[1:]] == pytest.approx(line[1:])
        assert all(rate < line[0] for rate in rates_by_epoch[0])
        momenta = {module.momentum for module in trainer.model.modules() if isinstance(module, nn.BatchNorm2d)}
        assert momenta == {0.3}
        assert trainer.accumulate == 1
        names = ("mosaic", "scale", "fliplr", "close_mosaic", "seed", "batch", "nbs", "imgsz", "epochs", "amp")
        assert {name: getattr(trainer.args, name) for name in names} == {
            "mosaic": 0.5,
            "scale": 0.1,
            "fliplr": 0.0,
            "close_mosaic": 0,
            "seed": 7,
            "batch": 8,
            "nbs": 8,
            "imgsz": 64,
            "epochs": 4,
            "amp": False,
        }


class TestPrecision:
    @pytest.mark.filterwarnings("ignore:.*GradScaler is enabled, but CUDA is not available")
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_precision_applies_to_training_steps_only(
        self, precision: Precision, tiny: TinyBudget, scenes: datasets.DataSet, folder: Path
    ) -> None:
        stock = Architecture(base="yolov5{scale}.yaml", scale="n", picks=())
        trainer = ShortTraining(stock.document(CLASSES), tiny(precision=precision), scenes, folder, forward)
        dtypes: dict[bool, set[torch.dtype]] = {}

        def watch(layer: nn.Module, _image: object, maps: torch.Tensor) -> None:
            dtypes.setdefault(layer.training, set()).add(maps.dtype)

        original = trainer.get_model

        def watched(*given: Any, **further: Any) -> DetectionModel:
            model = original(*given, **further)
            model.model[1].conv.register_forward_hook(watch)
            return model

        trainer.get_model = watched  # type: ignore[method-assign]
        trainer.train()
        assert dtypes == {
            True: {getattr(torch, {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[precision])},
            False: {torch.float32},
        }
        assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}
        assert {row.dtype for row in trainer.ema.shadow} == {torch.float32, torch.int64}


def test_validators_compute_in_fp32_what_was_trained_under_autocast() -> None:
    """On a GPU Ultralytics' validator would compute in float16 where the trainer says that it uses autocast."""
    average = nn.Identity()
    trainer: Any = SimpleNamespace(amp=True, ema=SimpleNamespace(applied=lambda: nullcontext(average)))
    with ShortTraining.averaged(trainer) as model:
        assert model is average
        assert not trainer.amp
    assert trainer.amp


class TestInherit:
    @pytest.fixture
    def trained(self, stock: Architecture, tmp_path: Path) -> Path:
        """Return a checkpoint of the stock model."""
        torch.manual_seed(1)
        path = tmp_path / "stock.pt"
        save(build.model(stock.document(CLASSES), CLASSES), {}, path)
        return path

    def test_training_starts_from_a_checkpoint(self, train: Train, motley: Architecture, trained: Path) -> None:
        coverage = train(motley, epochs=1, start=trained).coverage
        assert 0.5 < coverage.share < 1
        assert [layer for layer, _ in coverage.layers] == ["2", "3", "4", "6", "11"]


READ = """
import json, sys
import search_spaces
from ultralytics import YOLO
model = YOLO(sys.argv[1]).model
print(json.dumps({
    "params": sum(p.numel() for p in model.parameters()),
    "types": sorted({str(t.dtype) for t in model.state_dict().values()}),
    "operators": sorted({type(m).__name__ for m in model.modules() if type(m).__module__.startswith("search_spaces")}),
    "training": model.training,
    "mlflow": "mlflow" in sys.modules,
}))
"""

VALIDATE = """
import sys
import search_spaces
from ultralytics import YOLO
metrics = YOLO(sys.argv[1]).val(
    data=sys.argv[2], imgsz=96, batch=8, device="cpu", workers=0, rect=True, plots=False, project=sys.argv[3]
)
print(metrics.box.map, metrics.box.map50)
"""


@pytest.fixture
def their_folder(tmp_path: Path) -> Path:
    """Return a configuration folder of Ultralytics, with the font that it would download."""
    folder = tmp_path / "config" / "Ultralytics"
    folder.mkdir(parents=True)
    (folder / "Arial.ttf").touch()
    return folder.parent


@pytest.fixture
def fresh(their_folder: Path) -> Callable[..., str]:
    """Return a function that runs a program in another process, and returns the last line that it prints."""
    ours = Path(search_spaces.__file__).parents[1]

    def run(program: str, *arguments: object) -> str:
        finished = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=their_folder,
            env={**os.environ, "PYTHONPATH": str(ours), "YOLO_CONFIG_DIR": str(their_folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr[-2000:]
        return finished.stdout.splitlines()[-1]

    return run


def values_of(trainer: ShortTraining) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


class TestWeights:
    def test_weights_load_where_search_spaces_is_imported(
        self, train: Train, motley: Architecture, folder: Path, fresh: Callable[..., str]
    ) -> None:
        train(motley, epochs=1)
        loaded = json.loads(fresh(READ, folder / "weights.pt"))
        model = build.model(motley.document(CLASSES), CLASSES)
        assert loaded == {
            "params": sum(parameter.numel() for parameter in model.parameters()),
            "types": ["torch.float32", "torch.int64"],
            "operators": ["DCNv4", "DCNv4Block", "DySample", "DynamicConv", "MMQA", "UIB"],
            "training": False,
            "mlflow": False,
        }

    def test_weights_are_the_ema_in_full_precision(
        self, tiny: TinyBudget, scenes: datasets.DataSet, folder: Path, stock: Architecture
    ) -> None:
        trainer = ShortTraining(stock.document(CLASSES), tiny(epochs=1), scenes, folder, forward)
        trainer.train()
        live = values_of(trainer)
        with trainer.ema.applied() as averaged:
            average = values_of(trainer)
            save(averaged, vars(trainer.args), folder / "average.pt")
        assert same(tensors(folder / "average.pt"), average)
        assert not same(average, live)
        checkpoint = torch.load(folder / "average.pt", weights_only=False)
        assert checkpoint["train_args"]["imgsz"] == 64
        assert checkpoint["model"].criterion is None
        assert checkpoint["model"].names == {number: str(number) for number in range(CLASSES)}

    def test_weights_are_averaged_over_the_epochs_of_the_recipe(
        self, tiny: TinyBudget, scenes: datasets.DataSet, folder: Path, stock: Architecture
    ) -> None:
        def trained(average_epochs: float | None) -> ShortTraining:
            recipe = Recipe(fliplr=0.0, average_epochs=average_epochs)
            trainer = ShortTraining(stock.document(CLASSES), tiny(recipe=recipe), scenes, folder, forward)
            trainer.train()
            return trainer

        def distance(trainer: ShortTraining) -> float:
            pairs = zip(trainer.ema.live, trainer.ema.shadow, strict=True)
            return sum(float((live - shadow).abs().sum()) for live, shadow in pairs if shadow.is_floating_point())

        last, one, all_epochs = trained(None), trained(0.5), trained(2.0)
        assert same(last.model.state_dict(), all_epochs.model.state_dict())
        assert distance(one) == 0.0  # two steps an epoch: half of one reaches back to the last step alone
        assert 0.0 < distance(last) < distance(all_epochs)

    @pytest.mark.slow
    def test_weights_validate_to_the_score_of_the_trial(
        self, tmp_path: Path, folder: Path, motley: Architecture, fresh: Callable[..., str]
    ) -> None:
        """Validate on the training images, where a second of overfitting gives a score above 0."""
        file = digit_scenes.draw(tmp_path, train=16, val=8)
        overfitted = file.with_name("overfitted.yaml")
        overfitted.write_text(file.read_text().replace("images/val", "images/train"))
        data = datasets.load(overfitted)
        recipe = Recipe(fliplr=0.0, scale=0.0, learning_rate=4e-3, bn_momentum=0.3)
        budget = Budget(data=data.path, epochs=30, image_size=96, deploy_size=64, batch=4, recipe=recipe)
        document = motley.document(CLASSES)
        trained = short_training.train(document, budget, data, folder, forward, weights=folder / "weights.pt")
        resolved = tmp_path / "resolved.yaml"
        resolved.write_text(datasets.resolved(data))
        scored = [float(score) for score in fresh(VALIDATE, folder / "weights.pt", resolved, tmp_path).split()]
        last = trained.epochs[-1]
        assert last.map50_95 is not None
        assert last.map50_95 > 0.02
        assert scored == pytest.approx([last.map50_95, last.map50], abs=0.005)


ALONE = """
import socket, sys
from pathlib import Path

def refuse(*about, **_):
    print("asked for", about, flush=True)
    raise OSError("no network here")

socket.getaddrinfo = socket.socket.connect = refuse
from search_spaces import Architecture
from trials import Budget, evaluate
from ultralytics.utils import SETTINGS

assert SETTINGS["mlflow"] is True  # Ultralytics' default
budget = Budget(data=Path(sys.argv[1]), epochs=1, image_size=64, deploy_size=64)
stock = Architecture(base="yolov5{scale}.yaml", scale="n", picks=())
outcome = evaluate(stock, budget, Path(sys.argv[2]), lambda number, epoch: True)
print(outcome.ending, "mlflow" in sys.modules)
"""


@pytest.mark.slow
def test_no_integration_runs_outside_of_pytest(
    scenes: datasets.DataSet, folder: Path, their_folder: Path, fresh: Callable[..., str]
) -> None:
    """Ultralytics disables its integrations under pytest; here it does not."""
    assert fresh(ALONE, scenes.path, folder) == "finished False"
    assert {path.name for path in their_folder.iterdir()} == {"Ultralytics"}


@pytest.mark.parametrize(("updates", "expected"), [(0, 0.1), (80, 0.9), (10**6, 0.95)])
def test_the_decay_of_an_ema_rises_to_its_horizon(updates: int, expected: float) -> None:
    assert decay(20, updates) == pytest.approx(expected)
