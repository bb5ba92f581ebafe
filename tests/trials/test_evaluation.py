"""Endings and outcomes of trials. Most tests replace the training; some measure and train."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from search_spaces import Architecture, build
from search_spaces.errors import (
    CostError,
    DataError,
    EnvironmentProblem,
    GpuError,
    LatencyError,
    NasError,
    ScoreError,
    SpecError,
)
from trials import Budget, Costs, Ending, Epoch, Limits, Outcome, evaluate, evaluation
from trials.costing import cost
from trials.latency import measurement
from trials.scores import Coverage
from trials.training import short_training
from trials.training.double_buffer import DoubleBufferedFile
from trials.training.short_training import DivergedError, TimedOutError, TrainingResult

TinyBudget = Callable[..., Budget]

COSTS = Costs(params=2_000_000, gflops=8.3, latency_ms=12.5, latency_spread_ms=0.5, latency_steady=True)
HALF = Coverage(share=0.5, layers=(("8", 0.5),), new=frozenset({"model.8.conv.weight"}))
LAST = Epoch(epoch=1, losses={"box_loss": 1.0}, map50_95=0.25, map50=0.5, seconds=1.0)


def forward(_number: int, _epoch: Epoch) -> bool:
    return True


def unmeasured(_document: dict[str, Any], _budget: Budget, _classes: int) -> Costs:
    return COSTS


class Ended:
    """Evaluation of the stock model with a replaced training."""

    def __init__(self, stock: Architecture, budget: Budget, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stock, self.budget, self.folder, self.monkeypatch = stock, budget, folder, monkeypatch
        monkeypatch.setattr(evaluation, "measure_costs", unmeasured)

    def by(self, error: BaseException) -> Outcome:
        def failing(*_: object, **__: object) -> NoReturn:
            raise error

        self.monkeypatch.setattr(short_training, "train", failing)
        return evaluate(self.stock, self.budget, self.folder, forward)

    def after(self, trained: TrainingResult, **more: Any) -> Outcome:
        self.monkeypatch.setattr(short_training, "train", lambda *_, **__: trained)
        return evaluate(self.stock, self.budget, self.folder, forward, **more)


@pytest.fixture
def ended(stock: Architecture, tiny: TinyBudget, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Ended:
    return Ended(stock, tiny(), folder, monkeypatch)


def out_of_memory() -> RuntimeError:
    """Return the error that PyTorch raises on this machine."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


class TestEndings:
    @pytest.mark.parametrize(
        ("error", "ending", "detail"),
        [
            (DivergedError("the loss is nan in epoch 2"), Ending.DIVERGED, "DivergedError: the loss is nan in epoch 2"),
            (TimedOutError("3 s were over"), Ending.TIMED_OUT, "TimedOutError: 3 s were over"),
            (MemoryError("no room"), Ending.OUT_OF_MEMORY, "on the host: MemoryError: no room"),
            (torch.OutOfMemoryError("CUDA"), Ending.OUT_OF_MEMORY, "on the GPU: OutOfMemoryError: CUDA"),
            (
                RuntimeError("CUDA out of memory. Tried to allocate\n  2.00 GiB"),
                Ending.OUT_OF_MEMORY,
                "on the GPU: RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
            ),
            (RuntimeError("x"), Ending.BROKEN, "RuntimeError: x"),
            (KeyError("UIB"), Ending.BROKEN, "KeyError: 'UIB'"),
            (CostError("Conv: cannot be counted"), Ending.BROKEN, "CostError: Conv: cannot be counted"),
            (ScoreError("map50: got nan"), Ending.BROKEN, "ScoreError: map50: got nan"),
        ],
    )
    def test_error_of_the_candidate_is_an_ending(
        self, *, error: Exception, ending: Ending, detail: str, ended: Ended, stock: Architecture, folder: Path
    ) -> None:
        outcome = ended.by(error)
        assert outcome == Outcome(
            architecture=stock, ending=ending, costs=COSTS, seconds=outcome.seconds, detail=detail
        )
        assert outcome.seconds > 0
        traceback = (folder / "error.txt").read_text()
        assert traceback.startswith("Traceback (most recent call last):")
        assert str(error.args[0]) in traceback
        assert {path.name for path in folder.iterdir()} == {"model.yaml", "error.txt"}

    @pytest.mark.parametrize(
        ("text", "is_lost"),
        [
            ("CUDA error: an illegal memory access was encountered", False),
            ("CUDA error: no CUDA-capable device is detected", True),
        ],
    )
    def test_gpu_that_computes_no_more_is_no_ending(
        self, *, text: str, is_lost: bool, ended: Ended, folder: Path
    ) -> None:
        advice = "\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
        with pytest.raises(GpuError) as raised:
            ended.by(RuntimeError(text + advice))
        assert str(raised.value) == f"on the GPU: RuntimeError: {text}"
        assert raised.value.is_lost is is_lost
        assert text in (folder / "error.txt").read_text()

    def test_lack_of_host_memory_is_out_of_memory(self, ended: Ended) -> None:
        outcome = ended.by(out_of_memory())
        assert outcome.ending is Ending.OUT_OF_MEMORY
        assert outcome.detail.startswith("on the host: RuntimeError: ")

    def test_out_of_memory_frees_what_the_failed_calls_allocated(
        self, stock: Architecture, tiny: TinyBudget, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A traceback refers to its frames, and they to what they allocated."""
        held: list[weakref.ref[torch.Tensor]] = []

        def failing(_model: nn.Module, _image_size: int) -> NoReturn:
            hoard = torch.empty(8)
            held.append(weakref.ref(hoard))
            try:
                raise out_of_memory()
            except RuntimeError as error:
                raise LatencyError("a pass failed") from error

        monkeypatch.setattr(measurement, "measure", failing)
        monkeypatch.setattr("traceback.format_exc", lambda: str(held[0]()))
        evaluate(stock, tiny(), folder, forward)
        assert (folder / "error.txt").read_text() == "None"

    def test_detail_of_an_ending_is_one_short_line(self, ended: Ended) -> None:
        detail = ended.by(ValueError("a\nb " * 1000)).detail
        assert detail.startswith("ValueError: a b a b")
        assert len(detail) == 500

    @pytest.mark.parametrize(
        "error",
        [DataError("weights.pt: no such file"), EnvironmentProblem("no device"), SpecError("layer 3: no such row")],
    )
    def test_error_that_is_not_the_fault_of_the_candidate_is_raised(
        self, error: NasError, ended: Ended, folder: Path
    ) -> None:
        with pytest.raises(type(error)) as caught:
            ended.by(error)
        assert caught.value is error
        assert not (folder / "error.txt").exists()

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
    def test_interruption_of_a_trial_is_raised(self, error: BaseException, ended: Ended, folder: Path) -> None:
        with pytest.raises(type(error)):
            ended.by(error)
        assert not (folder / "error.txt").exists()

    def test_missing_data_of_a_trial_is_an_error(self, tiny: TinyBudget, stock: Architecture, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nowhere\.yaml: no such file"):
            evaluate(stock, tiny(data=tmp_path / "nowhere.yaml"), tmp_path / "trial", forward)
        assert not (tmp_path / "trial").exists()


class TestOutcomes:
    def test_outcome_of_a_finished_training(self, ended: Ended, folder: Path, stock: Architecture) -> None:
        outcome = ended.after(TrainingResult(epochs=(LAST,), stopped=False, coverage=HALF))
        assert outcome.ending is Ending.FINISHED
        assert outcome.scores is not None
        assert (outcome.scores.map50_95, outcome.scores.map50, outcome.scores.costs) == (0.25, 0.5, COSTS)
        assert (outcome.costs, outcome.epochs, outcome.coverage) == (COSTS, (LAST,), HALF)
        assert outcome.weights == folder / "weights.pt"
        assert Architecture.read(folder / "model.yaml") == stock

    def test_outcome_of_a_stopped_training(self, ended: Ended) -> None:
        outcome = ended.after(TrainingResult(epochs=(LAST,), stopped=True, coverage=HALF))
        assert outcome.ending is Ending.STOPPED
        assert (outcome.scores, outcome.weights) == (None, None)
        assert (outcome.costs, outcome.epochs, outcome.coverage) == (COSTS, (LAST,), HALF)

    def test_an_unvalidated_last_epoch_is_broken(self, ended: Ended) -> None:
        blind = Epoch(epoch=1, losses={}, map50_95=None, map50=None, seconds=1.0)
        assert ended.after(TrainingResult(epochs=(blind,), stopped=False, coverage=Coverage())).ending is Ending.BROKEN

    @pytest.mark.parametrize("accuracy", [float("nan"), 1.5, -1.0])
    def test_an_invalid_accuracy_is_broken(self, accuracy: float, ended: Ended) -> None:
        odd = Epoch(epoch=1, losses={}, map50_95=accuracy, map50=0.5, seconds=1.0)
        outcome = ended.after(TrainingResult(epochs=(odd,), stopped=False, coverage=Coverage()))
        assert outcome.ending is Ending.BROKEN
        assert outcome.scores is None


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "detail"),
        [
            (Limits(gflops=8.0), "gflops 8.3 is over 8"),
            (Limits(params=1_000_000, latency_ms=12.0), "params 2e+06 is over 1e+06, latency_ms 12.5 is over 12"),
        ],
    )
    def test_nothing_is_trained_over_a_limit(self, limits: Limits, detail: str, ended: Ended, folder: Path) -> None:
        outcome = ended.after(TrainingResult(epochs=(LAST,), stopped=False, coverage=Coverage()), limits=limits)
        assert outcome.ending is Ending.OVER_LIMIT
        assert outcome.detail == detail
        assert (outcome.costs, outcome.scores, outcome.epochs) == (COSTS, None, ())
        assert {path.name for path in folder.iterdir()} == {"model.yaml"}

    @pytest.mark.parametrize("limits", [None, Limits(), Limits(gflops=8.3, params=2_000_000, latency_ms=12.5)])
    def test_cost_equal_to_its_limit_is_allowed(self, limits: Limits | None, ended: Ended) -> None:
        outcome = ended.after(TrainingResult(epochs=(LAST,), stopped=False, coverage=Coverage()), limits=limits)
        assert outcome.ending is Ending.FINISHED


class TestMeasuredCosts:
    def test_measured_costs_are_those_of_the_deployed_model(self, motley: Architecture, tiny: TinyBudget) -> None:
        document = motley.document(10)
        costs = evaluation.measure_costs(document, tiny(image_size=96), 10)
        counted = cost.measure(document, 10, 64)
        assert (costs.params, costs.gflops) == (counted.params, counted.gflops)
        assert costs.latency_ms is not None
        assert costs.latency_ms > 0

    def test_latency_is_that_of_the_fused_model_in_eval_mode(
        self, motley: Architecture, tiny: TinyBudget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        timed: list[tuple[nn.Module, int]] = []

        def noting(model: nn.Module, image_size: int) -> measurement.Latency:
            timed.append((model, image_size))
            return measurement.Latency(median_ms=1.0, spread_ms=0.2, p90_ms=1.1, iterations=20)

        monkeypatch.setattr(measurement, "measure", noting)
        costs = evaluation.measure_costs(motley.document(10), tiny(deploy_size=96), 10)
        ((model, size),) = timed
        assert isinstance(model, DetectionModel)
        assert size == 96
        assert model.is_fused()
        assert not model.training
        assert (costs.latency_ms, costs.latency_spread_ms, costs.latency_steady) == (1.0, 0.2, False)

    def test_the_fused_model_has_as_many_parameters_as_counted(self, motley: Architecture) -> None:
        model = build.model(motley.document(10), 10).eval()
        model.fuse(verbose=False)
        counted = cost.measure(motley.document(10), 10, 64)
        assert sum(parameter.numel() for parameter in model.parameters()) == counted.params

    @pytest.mark.parametrize(
        ("error", "ending"),
        [
            (RuntimeError("CUDA out of memory."), Ending.OUT_OF_MEMORY),
            (RuntimeError("Sizes of tensors must match"), Ending.BROKEN),
        ],
    )
    def test_a_failing_forward_pass_is_an_ending(
        self,
        *,
        error: RuntimeError,
        ending: Ending,
        stock: Architecture,
        tiny: TinyBudget,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def failing(_model: nn.Module, _image_size: int) -> NoReturn:
            raise LatencyError(f"inference of one 64 px image failed: {error}") from error

        monkeypatch.setattr(measurement, "measure", failing)
        outcome = evaluate(stock, tiny(), folder, forward)
        assert outcome.ending is ending
        assert outcome.costs is None
        whose = "on the GPU: " if ending is Ending.OUT_OF_MEMORY else ""
        assert outcome.detail == f"{whose}LatencyError: inference of one 64 px image failed: {error}"

    def test_an_image_size_that_the_model_cannot_take_is_an_ending(self, tiny: TinyBudget, folder: Path) -> None:
        """A base model of stride 64 at 96 px."""
        architecture = Architecture(base="yolov8{scale}-p6.yaml", scale="n", picks=())
        outcome = evaluate(architecture, tiny(deploy_size=96), folder, forward)
        assert outcome.ending is Ending.BROKEN
        assert outcome.detail.startswith("CostError: the model does not take images of 96 px")


class TestRealTrials:
    def test_trial_finishes_with_scores_and_weights(
        self, motley: Architecture, tiny: TinyBudget, tmp_path: Path
    ) -> None:
        folder = tmp_path / "not" / "there" / "yet"
        outcome = evaluate(motley, tiny(rungs=(1,)), folder, forward, limits=Limits(gflops=1.0))
        assert outcome.ending is Ending.FINISHED
        assert outcome.detail == ""
        assert outcome.scores is not None
        assert outcome.costs == outcome.scores.costs
        assert [epoch.map50_95 is not None for epoch in outcome.epochs] == [True, True]
        assert outcome.scores.map50_95 == outcome.epochs[-1].map50_95
        assert outcome.seconds > sum(epoch.seconds for epoch in outcome.epochs)
        assert {path.name for path in folder.iterdir()} == {"model.yaml", "weights.pt", "checkpoint.bin", "ultralytics"}
        assert Architecture.read(folder / "model.yaml") == motley

    def test_trial_is_stopped_at_the_first_rung(self, stock: Architecture, tiny: TinyBudget, folder: Path) -> None:
        outcome = evaluate(stock, tiny(rungs=(1,)), folder, lambda *_: False)
        assert outcome.ending is Ending.STOPPED
        assert len(outcome.epochs) == 1
        assert not (folder / "weights.pt").exists()

    def test_trial_over_a_limit_is_not_trained(self, stock: Architecture, tiny: TinyBudget, folder: Path) -> None:
        outcome = evaluate(stock, tiny(), folder, forward, limits=Limits(gflops=0.01))
        assert outcome.ending is Ending.OVER_LIMIT
        assert outcome.detail == "gflops 0.07073 is over 0.01"
        assert not (folder / "ultralytics").exists()

    def test_given_costs_are_not_measured(
        self, stock: Architecture, tiny: TinyBudget, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> NoReturn:
            raise AssertionError("the costs are given")

        monkeypatch.setattr(evaluation, "measure_costs", refuse)
        given = Costs(params=2_000_000, gflops=8.3)
        outcome = evaluate(stock, tiny(epochs=1), folder, forward, costs=given, limits=Limits(latency_ms=1.0))
        assert outcome.ending is Ending.FINISHED  # its latency is unknown
        assert outcome.costs == given
        assert outcome.scores is not None
        assert outcome.scores.costs == given
        over = evaluate(stock, tiny(epochs=1), folder, forward, costs=given, limits=Limits(gflops=8.0))
        assert (over.ending, over.detail, over.costs) == (Ending.OVER_LIMIT, "gflops 8.3 is over 8", given)

    def test_stopped_trial_is_resumed(self, stock: Architecture, tiny: TinyBudget, tmp_path: Path) -> None:
        whole = evaluate(stock, tiny(rungs=(1,)), tmp_path / "whole", forward, costs=COSTS)
        stopped = evaluate(stock, tiny(rungs=(1,)), tmp_path / "parts", lambda *_: False, costs=COSTS)
        assert stopped.ending is Ending.STOPPED
        assert_same_but_for_time(stopped.epochs, whole.epochs[:1])
        resumed = evaluate(stock, tiny(rungs=(1,)), tmp_path / "parts", forward, costs=COSTS)
        assert (resumed.ending, resumed.scores, resumed.costs) == (Ending.FINISHED, whole.scores, COSTS)
        assert resumed.epochs[0] == stopped.epochs[0]
        assert_same_but_for_time(resumed.epochs, whole.epochs)

    def test_interrupted_trial_is_resumed(self, stock: Architecture, tiny: TinyBudget, tmp_path: Path) -> None:
        whole = evaluate(stock, tiny(), tmp_path / "whole", forward, costs=COSTS)

        def interrupted(_number: int, _epoch: Epoch) -> NoReturn:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            evaluate(stock, tiny(), tmp_path / "parts", interrupted, costs=COSTS)
        assert {path.name for path in (tmp_path / "parts").iterdir()} == {"model.yaml", "checkpoint.bin", "ultralytics"}
        checkpoint = DoubleBufferedFile(tmp_path / "parts" / "checkpoint.bin")
        state, tensors = checkpoint.read() or pytest.fail("no epoch was stored")
        state["epochs"][0]["seconds"] = 1000.0  # as if the first process had been slow
        checkpoint.write(state, tensors)
        resumed = evaluate(stock, tiny(), tmp_path / "parts", forward, costs=COSTS)
        assert (resumed.ending, resumed.scores) == (Ending.FINISHED, whole.scores)
        assert_same_but_for_time(resumed.epochs, whole.epochs)
        assert 1000.0 < resumed.seconds < 1060.0


def assert_same_but_for_time(these: Sequence[Epoch], those: Sequence[Epoch]) -> None:
    assert [replace(epoch, seconds=0.0) for epoch in these] == [replace(epoch, seconds=0.0) for epoch in those]
