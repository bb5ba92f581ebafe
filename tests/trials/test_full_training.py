"""Training with YOLOv9's auxiliary branch, in a trial and by Ultralytics' command."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial, partialmethod
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.engine.model import Model
from ultralytics.models import yolo
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.modules import Detect
from ultralytics.nn.tasks import DetectionModel, load_checkpoint
from ultralytics.utils import LOGGER, SETTINGS, callbacks

from search_spaces import Architecture, Choice, auxiliary, build, model_reader, pgi, yaml_text
from search_spaces.architecture import Insertion
from search_spaces.errors import SpecError
from search_spaces.operators import modules
from search_spaces.operators.dynamic_conv import DynamicConv
from search_spaces.pgi_setting import LEAD_GUIDED, Pgi
from trials import Budget, Ending, Outcome, Recipe, evaluate, weights
from trials.data import datasets, digit_scenes
from trials.training.full_training import FullTrainer, LeadGuidedTrainer, PGITrainer, PlainTrainer, prepare_command
from trials.training.inheritance import transfer
from trials.weights import keep, save

CLASSES = 10
V9T = Architecture(base="yolov9{scale}.yaml", scale="t", picks=())


BRANCHES = (False, True, LEAD_GUIDED)


@dataclass(frozen=True)
class Observed:
    """A trial's outcome, and what its model computed.

    Attributes:
        predicted: by the EMA before it was saved.
        passes: pairs of whether auxiliary layers were in train mode, and whether they computed something.
    """

    outcome: Outcome
    folder: Path
    predicted: torch.Tensor
    passes: set[tuple[bool, bool]]


class AnyTrainer:
    """Trainer of any task, with callbacks alone."""

    def __init__(self) -> None:
        self.callbacks: dict[str, list[object]] = defaultdict(list)


def _logs_to_mlflow() -> bool:
    trainer = AnyTrainer()
    callbacks.add_integration_callbacks(trainer)
    return any(str(getattr(each, "__module__", "")).endswith(".mlflow") for each in trainer.callbacks["on_train_end"])


@pytest.fixture(autouse=True)
def _ultralytics(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore Ultralytics' classes after each test."""
    for name in ("_load", "_new"):
        monkeypatch.setattr(Model, name, getattr(Model, name))  # as it is now, after the test as well
    before = yolo.detect.DetectionTrainer, yolo.detect.DetectionValidator
    yield
    yolo.detect.DetectionTrainer, yolo.detect.DetectionValidator = before


@pytest.mark.parametrize(
    ("arguments", "environment", "logs"),
    [
        ([], {}, False),
        (["mlflow=True"], {}, True),
        (["mlflow=False"], {"NAS_YOLO_MLFLOW": "True"}, False),
        ([], {"MLFLOW_RUN": "mine"}, True),
        ([], {"MLFLOW_EXPERIMENT_NAME": "mine"}, True),
    ],
)
def test_ultralytics_logs_to_mlflow_only_if_asked_to(
    arguments: list[str], environment: dict[str, str], logs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NAS_YOLO_MLFLOW", "MLFLOW_RUN", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NAS_YOLO_MLFLOW", environment.get("NAS_YOLO_MLFLOW", ""))  # so that it is put back
    monkeypatch.setattr(callbacks, "add_integration_callbacks", callbacks.add_integration_callbacks)
    wanted = SETTINGS["mlflow"]
    assert prepare_command(["yolo", "train", *arguments]) == ["yolo", "train"]
    assert wanted is True
    assert _logs_to_mlflow() == logs
    assert SETTINGS["mlflow"] is wanted


@pytest.fixture
def inserted(stock: Architecture) -> Architecture:
    new = Insertion(after=4, feeds="next", choice=Choice.of("UIB", {}))
    return Architecture.of(stock.base, stock.scale, {}, inserted=[new])


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that the trainer logs."""
    lines: list[str] = []
    monkeypatch.setattr(LOGGER, "info", lines.append)
    monkeypatch.setattr(LOGGER, "warning", lines.append)
    return lines


@pytest.fixture(scope="module")
def trials(scenes: datasets.DataSet, tmp_path_factory: pytest.TempPathFactory) -> dict[Pgi, Observed]:
    """Return trials of one epoch without the auxiliary branch, with it, and lead-guided."""
    observed: dict[Pgi, Observed] = {}
    for branch in BRANCHES:
        folder = tmp_path_factory.mktemp("trial")
        fields = {"data": scenes.path, "epochs": 1, "image_size": 64, "deploy_size": 64}
        budget = Budget.model_validate({**fields, "recipe": Recipe(fliplr=0.0, pgi=branch)})
        predictions: list[torch.Tensor] = []
        passes: set[tuple[bool, bool]] = set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trials.training.short_training.keep", partial(note_prediction, predictions, keep))
            patch.setattr(pgi.AuxiliaryLayer, "forward", partialmethod(note_pass, passes, pgi.AuxiliaryLayer.forward))
            outcome = evaluate(V9T, budget, folder, lambda *_: True)
        observed[branch] = Observed(outcome, folder, predictions[0], passes)
    return observed


def note_prediction(
    predictions: list[torch.Tensor], save: Callable[..., None], model: nn.Module, *rest: object
) -> None:
    predictions.append(prediction(model))
    save(model, *rest)


def note_pass(
    layer: pgi.AuxiliaryLayer, passes: set[tuple[bool, bool]], forward: Callable[..., object], x: object
) -> object:
    out = forward(layer, x)
    passes.add((layer.training, out is not None))
    return out


@torch.no_grad()
def prediction(model: nn.Module) -> torch.Tensor:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return deepcopy(model).float().eval().to(memory_format=torch.contiguous_format)(images)[0]


class TestTrialWithBranch:
    @pytest.mark.parametrize("branch", BRANCHES)
    def test_trial_with_branch_leaves_a_plain_model_of_the_deployed_rows(
        self, branch: Pgi, trials: dict[Pgi, Observed]
    ) -> None:
        one = trials[branch]
        assert one.outcome.ending is Ending.FINISHED, one.outcome.detail
        assert one.outcome.weights is not None
        model = load_checkpoint(one.outcome.weights)[0]
        assert (type(model), type(model.model[-1])) == (DetectionModel, Detect)
        assert list(model.state_dict()) == list(build.model(V9T.document(CLASSES), CLASSES).state_dict())
        assert yaml_text.read_yaml(one.folder / "model.yaml").get("pgi", False) == branch

    @pytest.mark.parametrize("branch", BRANCHES)
    def test_trial_with_branch_saves_a_model_with_the_same_predictions(
        self, branch: Pgi, trials: dict[Pgi, Observed]
    ) -> None:
        saved = load_checkpoint(trials[branch].folder / "weights.pt")[0]
        assert torch.equal(prediction(saved), trials[branch].predicted)

    def test_costs_are_equal_with_and_without_the_branch(self, trials: dict[Pgi, Observed]) -> None:
        costs = [one.outcome.costs for one in trials.values()]
        assert len({(one.params, one.gflops) for one in costs if one is not None}) == 1

    def test_branch_changes_weights_and_adds_to_the_loss(self, trials: dict[Pgi, Observed]) -> None:
        plain, dual, _ = (one.outcome.epochs[0].losses["box_loss"] for one in trials.values())
        assert dual > plain
        predicted = [one.predicted for one in trials.values()]
        assert not any(torch.equal(one, other) for one, other in combinations(predicted, 2))

    def test_trial_is_validated_without_the_branch(self, trials: dict[Pgi, Observed]) -> None:
        assert [one.passes for one in trials.values()] == [set(), *[{(True, True), (False, False)}] * 2]


class TestFullTrainer:
    @pytest.fixture
    def get(self) -> Callable[..., DetectionModel]:
        """Return a function that builds the model of a trainer that cannot train."""

        def build_by(trainer: type[FullTrainer], document: object, weights: nn.Module | None = None) -> DetectionModel:
            bare = trainer.__new__(trainer)
            bare.data = {"nc": CLASSES, "channels": 3}
            bare.args = None
            return bare.get_model(document, weights, verbose=False)

        return build_by

    def test_full_trainer_uses_the_branch_if_the_model_file_has_pgi(self, get: Callable[..., DetectionModel]) -> None:
        plain = model_reader.model_document("yolov9t.yaml")
        assert type(get(FullTrainer, plain)) is DetectionModel
        model = get(FullTrainer, {**plain, "pgi": LEAD_GUIDED})
        assert isinstance(model, pgi.PGIModel)
        assert model.yaml["pgi"] == LEAD_GUIDED

    def test_a_teacher_and_the_branch_do_not_go_together(self) -> None:
        bare = PGITrainer.__new__(PGITrainer)
        bare.data, bare.args = {"nc": CLASSES, "channels": 3}, SimpleNamespace(distill_model="teacher.pt")
        with pytest.raises(SpecError, match=r"^distill_model: .*auxiliary branch.*\(pgi=False\)$"):
            bare.get_model(model_reader.model_document("yolov9t.yaml"), None, verbose=False)

    def test_subclasses_of_the_full_trainer_select_the_branch(self, get: Callable[..., DetectionModel]) -> None:
        plain = model_reader.model_document("yolov9t.yaml")
        whole = auxiliary.with_branch(plain)
        assert isinstance(get(PGITrainer, plain), pgi.PGIModel)
        assert get(LeadGuidedTrainer, plain).yaml["pgi"] == LEAD_GUIDED
        assert isinstance(get(FullTrainer, whole), pgi.PGIModel)
        assert type(get(PlainTrainer, whole)) is DetectionModel

    def test_full_trainer_transfers_weights_of_a_deployed_model(self, get: Callable[..., DetectionModel]) -> None:
        plain = model_reader.model_document("yolov9t.yaml")
        trained = build.model(plain, CLASSES)
        model = get(PGITrainer, trained.yaml, trained)
        assert torch.equal(
            model.state_dict()["model.29.cv2.0.2.weight"], trained.state_dict()["model.22.cv2.0.2.weight"]
        )

    def test_full_trainer_transfers_weights_of_a_model_with_the_branch(
        self, get: Callable[..., DetectionModel]
    ) -> None:
        whole = build.model(auxiliary.with_branch(model_reader.model_document("yolov9t.yaml")), CLASSES)
        model = get(FullTrainer, whole.yaml, whole)
        assert all(torch.equal(one, whole.state_dict()[name]) for name, one in model.state_dict().items())

    @pytest.mark.parametrize("name", ["stock", "motley", "inserted"])
    def test_full_trainer_transfers_weights_by_role_and_logs_the_share(
        self, name: str, get: Callable[..., DetectionModel], request: pytest.FixtureRequest, lines: list[str]
    ) -> None:
        source = build.model(request.getfixturevalue("stock").document(CLASSES), CLASSES)
        target = request.getfixturevalue(name)
        expected = build.model(target.document(CLASSES), CLASSES)
        share = transfer(expected, source).share
        model = get(FullTrainer, target.document(CLASSES), source)
        assert lines[-1:] == [
            f"{share:.1%} inherited: that share of the deployed model's parameters comes from the given weights"
        ]
        assert share == 1 if name == "stock" else 0.5 < share < 1
        theirs, ours = expected.state_dict(), model.state_dict()
        last = [each for each in ours if each.startswith(f"model.{len(model.model) - 1}.")]
        assert last
        assert all(torch.equal(ours[each], theirs[each]) for each in last)

    def test_full_trainer_warns_if_next_to_nothing_is_transferred(
        self, get: Callable[..., DetectionModel], stock: Architecture, lines: list[str]
    ) -> None:
        rows = {"backbone": [[-1, 1, "Conv", [24, 3, 2]]] * 2, "head": [[[1], 1, "Detect", ["nc"]]]}
        get(FullTrainer, stock.document(CLASSES), build.model({"nc": CLASSES, **rows}, CLASSES))
        assert lines[-1].startswith("the given weights hold next to nothing of this model")

    def test_resumed_full_training_logs_no_share(self, stock: Architecture, lines: list[str]) -> None:
        model = build.model(stock.document(CLASSES), CLASSES)
        bare = FullTrainer.__new__(FullTrainer)
        bare.data, bare.args, bare.resume = {"nc": CLASSES, "channels": 3}, None, True
        again = bare.get_model(model.yaml, model, verbose=False)
        assert all(torch.equal(one, model.state_dict()[name]) for name, one in again.state_dict().items())
        assert [line for line in lines if "inherited" in line] == []

    def test_full_trainer_reads_a_model_file_of_the_original_repository(
        self, get: Callable[..., DetectionModel]
    ) -> None:
        document = auxiliary.with_branch(model_reader.model_document("yolov9t.yaml"))
        document["head"][-1][2] = "DualDDetect"
        assert isinstance(get(FullTrainer, document | {"anchors": 3}), pgi.PGIModel)

    @pytest.mark.parametrize(("layer", "expected"), [("Conv1d", None), ("Conv3d", False)])
    def test_full_trainer_forbids_channels_last_for_weights_that_it_does_not_take(
        self, layer: str, expected: bool | None, tmp_path: Path
    ) -> None:
        (tmp_path / "fork.py").write_text(
            f"from torch import nn\n\nclass Own(nn.Identity):\n    def __init__(self):\n        super().__init__()\n"
            f"        self.of = nn.{layer}(1, 1, 1)\n"
        )
        modules.load(tmp_path / "fork.py")
        bare = FullTrainer.__new__(FullTrainer)
        bare.data, bare.args = {"nc": CLASSES, "channels": 3}, SimpleNamespace(channels_last=None)
        rows = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Own", []]]
        bare.get_model({"nc": CLASSES, "backbone": rows, "head": [[[0, 1], 1, "Detect", ["nc"]]]}, None, verbose=False)
        assert bare.args.channels_last is expected

    def test_full_trainer_refuses_the_branch_for_other_models(self, get: Callable[..., DetectionModel]) -> None:
        with pytest.raises(SpecError, match=r"^pgi: only YOLOv9's models"):
            get(PGITrainer, model_reader.model_document("yolov5n.yaml"))


class TestTemperature:
    """Temperature of dynamic convolutions in full training."""

    EPOCHS, BATCHES = 10, 7

    @pytest.fixture
    def trainer(self, monkeypatch: pytest.MonkeyPatch) -> FullTrainer:
        monkeypatch.setattr(DetectionTrainer, "resume_training", lambda *_: None)
        monkeypatch.setattr(DetectionTrainer, "_model_train", lambda *_: None)
        bare = FullTrainer.__new__(FullTrainer)
        bare.model = nn.Sequential(DynamicConv(8, 8, kernel=1), DynamicConv(8, 8, kernel=1, temperature=10.0))
        bare.train_loader, bare.epochs, bare.start_epoch = range(self.BATCHES), self.EPOCHS, 0
        return bare

    @staticmethod
    def temperatures(trainer: FullTrainer) -> list[float]:
        return [float(layer.temperature) for layer in trainer.model]

    def train(self, trainer: FullTrainer, epochs: int) -> None:
        trainer._model_train()
        trainer.model.train()
        for _ in range(epochs * self.BATCHES):
            trainer.model(torch.rand(2, 8, 4, 4))

    def test_temperature_falls_over_the_same_share_of_steps_as_in_a_trial(self, trainer: FullTrainer) -> None:
        self.train(trainer, 2)
        assert self.temperatures(trainer) == pytest.approx([30 - 29 * 14 / 21, 10 - 9 * 14 / 21], rel=1e-4)
        self.train(trainer, 1)
        assert Recipe().anneal == 3 / self.EPOCHS
        assert self.temperatures(trainer) == pytest.approx([1, 1], rel=1e-4)

    def test_temperature_follows_the_schedule_after_resuming(self, trainer: FullTrainer) -> None:
        trainer.start_epoch = 2  # from an EMA, which lags behind
        trainer.resume_training(None)
        assert self.temperatures(trainer) == pytest.approx([30 - 29 * 14 / 21, 10 - 9 * 14 / 21], rel=1e-4)
        self.train(trainer, 1)
        assert self.temperatures(trainer) == pytest.approx([1, 1], rel=1e-4)

    def test_temperature_is_never_raised(self, trainer: FullTrainer) -> None:
        for layer in trainer.model:
            layer.temperature.fill_(1)  # of weights that a search has trained
        trainer.start_epoch = 1
        trainer.resume_training(None)
        assert self.temperatures(trainer) == [1, 1]

    def test_temperature_follows_a_training_whose_length_changes(self, trainer: FullTrainer) -> None:
        trainer._model_train()
        trainer.epochs = 20
        trainer._model_train()
        assert [layer.anneal_steps for layer in trainer.model] == [42, 42]


class TestCommand:
    @pytest.mark.parametrize("name", ["yolov10n.yaml", "yolo26n.yaml"])
    def test_yolo_command_uses_the_head_that_a_search_scores(self, name: str, tmp_path: Path) -> None:
        prepare_command(["yolo", "val"])
        assert YOLO(name).overrides["nms"] is False
        save(build.model(model_reader.model_document(name), CLASSES), {"imgsz": 64}, tmp_path / "weights.pt")
        keep(build.model(model_reader.model_document(name), CLASSES), {"imgsz": 64}, tmp_path / "numbers.pt")
        for file in ("weights.pt", "numbers.pt"):
            assert YOLO(tmp_path / file).overrides["nms"] is False
        assert "nms" not in YOLO("yolov8n.yaml").overrides

    @pytest.mark.parametrize("argument", ["nms=True", "nms=None", "--nms=False"])
    def test_yolo_command_uses_the_head_that_nms_selects(self, argument: str) -> None:
        prepare_command(["yolo", "val", argument])
        assert "nms" not in YOLO("yolov10n.yaml").overrides

    def test_yolo_command_trains_with_the_full_trainer(self) -> None:
        assert prepare_command(["yolo", "train", "model=x.yaml"]) == ["yolo", "train", "model=x.yaml"]
        assert YOLO("yolov5n.yaml").task_map["detect"]["trainer"] is FullTrainer

    @pytest.mark.parametrize(
        ("value", "trainer"), [("True", PGITrainer), ("lead-guided", LeadGuidedTrainer), ("False", PlainTrainer)]
    )
    def test_pgi_selects_the_trainer(self, value: str, trainer: type) -> None:
        assert prepare_command(["yolo", "train", f"pgi={value}"]) == ["yolo", "train"]
        assert yolo.detect.DetectionTrainer is trainer

    def test_yolo_command_refuses_other_values_of_pgi(self) -> None:
        with pytest.raises(SpecError, match=r"^pgi: True, False or lead-guided is expected, got 'maybe'$"):
            prepare_command(["yolo", "pgi=maybe"])

    def test_yolo_command_finds_models_of_the_catalog(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        path = model_reader.catalog()["yolov9c-mmqa"]
        assert prepare_command(["yolo", "model=yolov9c-mmqa"]) == ["yolo", f"model={path}"]
        assert prepare_command(["yolo", "model=yolov9c-mmqa.yaml"]) == ["yolo", f"model={path}"]
        Path("yolov9c-mmqa.yaml").write_text("a file of the user")
        assert prepare_command(["yolo", "model=yolov9c-mmqa.yaml"]) == ["yolo", "model=yolov9c-mmqa.yaml"]


@pytest.mark.slow
def test_a_model_with_operators_learns_from_a_teacher_with_operators(
    stock: Architecture, motley: Architecture, tmp_path: Path
) -> None:
    models, classes = {"student": stock, "teacher": motley}, digit_scenes.CLASSES
    built = {name: build.model(one.document(classes), classes) for name, one in models.items()}
    for name, model in built.items():
        weights.keep(model, {}, tmp_path / f"{name}.pt")
    data = digit_scenes.draw(tmp_path / "scenes", train=8, val=4)
    sizes = {"epochs": 2, "imgsz": 64, "batch": 4, "workers": 0, "device": "cpu", "plots": False}
    places = {"data": data, "distill_model": tmp_path / "teacher.pt", "project": tmp_path, "name": "run"}
    YOLO(tmp_path / "student.pt").train(trainer=FullTrainer, **places, **sizes)
    assert "train/dis_loss" in (tmp_path / "run/results.csv").read_text().splitlines()[0].split(",")
    trained = YOLO(tmp_path / "run/weights/last.pt").model
    assert trained.state_dict().keys() == built["student"].state_dict().keys()
