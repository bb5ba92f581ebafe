"""What is written for a GPU, on one that is pretended: devices, precisions and the whole way of a trial."""

import math
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.gpu_operators import passes
from benchmarks.noise_data import make_data
from benchmarks.pretended_gpu import GPU, GpuTensor, pretended_gpu
from search_spaces import OPERATORS, Architecture
from search_spaces import load as load_space
from trials import Budget, Costs, Ending, Outcome, evaluate
from trials.contracts import cases
from trials.recipes import DIGITS_SCRATCH
from trials.training.epoch_loader import EpochLoader
from trials.training.short_training import ShortTraining
from trials.training.trainer_patches import make_repeatable


class TestPretendedGpu:
    """It raises where a GPU would; so nothing that follows passes because it does not look."""

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda x: x + torch.ones(2),
            lambda x: torch.ones(2).add_(x),
            lambda x: torch.cat([x, torch.ones(2)]),
            lambda x: torch.ones(2)[x.long()],
            nn.Linear(2, 1),
        ],
    )
    def test_tensors_of_two_devices_are_refused(self, wrong: Callable[[Tensor], Tensor]) -> None:
        with pretended_gpu(), pytest.raises(RuntimeError, match="on the same device"):
            wrong(torch.zeros(2, device="cuda"))

    def test_numbers_and_indices_of_the_cpu_are_taken(self) -> None:
        with pretended_gpu():
            x = torch.arange(3.0, device="cuda:0")
            found = (x * torch.tensor(2.0))[torch.tensor([2])]
            assert (found.device, found.cpu().tolist()) == (GPU, [4.0])

    def test_a_generator_of_the_cpu_is_refused(self) -> None:
        with pretended_gpu(), pytest.raises(RuntimeError, match="generator"):
            torch.rand(2, device="cuda", generator=torch.Generator())

    def test_numpy_needs_a_copy(self) -> None:
        with pretended_gpu():
            x = torch.ones(2, device="cuda")
            with pytest.raises(TypeError, match="cpu"):
                x.numpy()
            assert x.cpu().numpy().sum() == 2

    def test_autocast_of_the_cpu_is_refused(self) -> None:
        with pretended_gpu(), pytest.raises(RuntimeError, match="does nothing on a GPU"):
            torch.autocast("cpu", dtype=torch.bfloat16)

    def test_a_module_moves_and_trains(self) -> None:
        with pretended_gpu():
            module = nn.Linear(2, 1).to("cuda")
            assert all(isinstance(each, nn.Parameter) and isinstance(each, GpuTensor) for each in module.parameters())
            with torch.autocast("cuda", dtype=torch.bfloat16):
                out = module(torch.ones(3, 2, device="cuda"))
            assert (out.dtype, out.device) == (torch.bfloat16, GPU)
            out.float().sum().backward()
            assert module.bias.grad is not None
            assert (module.bias.grad.device, module.bias.grad.item()) == (GPU, 3.0)

    def test_copies_are_independent(self) -> None:
        with pretended_gpu():
            norm = nn.BatchNorm2d(3).to(GPU)
            copied = deepcopy(norm)
            copied.get_buffer("running_mean").add_(1)
            assert isinstance(copied.weight, nn.Parameter)
            assert [each.running_mean.tolist() for each in (norm, copied)] == [[0.0] * 3, [1.0] * 3]  # type: ignore[union-attr]  # it has some

    def test_nothing_is_left_behind(self) -> None:
        with pretended_gpu():
            pass
        assert not torch.cuda.is_available()
        assert torch.zeros(1).device.type == "cpu"


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_computes_the_same_on_a_gpu(name: str) -> None:
    case = cases.of_operator(OPERATORS[name])[0]
    module, x = case.build().train(), case.image()
    expected = passes(module, x, "fp32")
    with pretended_gpu():
        for precision in ("fp32", "bf16"):
            found = passes(case.build().train().to(GPU), x.to(GPU), precision)
            assert found.keys() == expected.keys()
            for what, value in found.items():
                if precision == "fp32":
                    torch.testing.assert_close(value, expected[what], rtol=1e-3, atol=1e-4 * value.abs().max().item())
                assert value.isfinite().all()


@pytest.mark.parametrize("name", ["DCNv4", "DySample", "MMQA"])
def test_repeatable_operator_computes_the_same_on_a_gpu(name: str) -> None:
    case = cases.of_operator(OPERATORS[name])[0]
    expected = passes(case.build().train(), case.image(), "fp32")
    with pretended_gpu():
        module = case.build().train().to(GPU)
        make_repeatable(module)
        found = passes(module, case.image().to(GPU), "fp32")
    for what, value in found.items():
        torch.testing.assert_close(value, expected[what], rtol=1e-3, atol=1e-4 * value.abs().max().item())


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    make_data(tmp_path / "data", images=16)

    def train(architecture: Architecture, device: str, **more: object) -> Outcome:
        sizes = {"epochs": 2, "image_size": 64, "deploy_size": 64, "batch": 8}
        settings = {
            "data": tmp_path / "data" / "data.yaml",
            "device": device,
            "recipe": DIGITS_SCRATCH,
            **sizes,
            **more,
        }
        budget = Budget.model_validate(settings)
        folder = tmp_path / f"{device}-{len(list(tmp_path.iterdir()))}"
        outcome = evaluate(architecture, budget, folder, lambda *_: True, costs=Costs(params=1, gflops=1.0))
        assert outcome.ending is Ending.FINISHED, (folder / "error.txt").read_text()
        return outcome

    return train


def test_trial_runs_on_a_gpu(score: Callable[..., Outcome]) -> None:
    """Loader, autocast, loss, optimizer, EMA, checkpoint, validation and weights, with tensors on the GPU alone."""
    with pretended_gpu():
        outcome = score(load_space("v5").stock, "0", epochs=1, batch=16, precision="bf16")
    assert all(math.isfinite(loss) for loss in outcome.epochs[0].losses.values())


@pytest.mark.slow
def test_losses_in_bf16_are_nearly_those_in_fp32(score: Callable[..., Outcome]) -> None:
    with pretended_gpu():
        exact, rounded = (
            score(load_space("v5").stock, "0", epochs=1, precision=precision).epochs[0].losses
            for precision in ("fp32", "bf16")
        )
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.01)


@pytest.mark.slow
def test_trial_on_a_gpu_is_that_of_the_cpu_with_the_same_loader(
    score: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pretended GPU computes as the CPU does, so whatever differs would be another way of training."""
    usual = ShortTraining.get_dataloader

    def load(self: ShortTraining, path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        if mode == "val":
            return usual(self, path, batch_size, rank, mode)
        return EpochLoader(self.build_dataset(path, mode, batch_size), batch_size, processes=0, pinned=False)

    with pretended_gpu():
        on_gpu = score(load_space("v5").stock, "0")
    monkeypatch.setattr(ShortTraining, "get_dataloader", load)
    on_cpu = score(load_space("v5").stock, "cpu")
    assert [epoch.losses for epoch in on_gpu.epochs] == [epoch.losses for epoch in on_cpu.epochs]
    assert on_gpu.scores == on_cpu.scores


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"precision": "fp32"}, {"precision": "fp16"}, {"deterministic": True}], ids=str)
def test_trial_runs_on_a_gpu_in_other_ways(score: Callable[..., Outcome], more: dict[str, object]) -> None:
    with pretended_gpu():
        score(load_space("v5").stock, "0", **more)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["v5-plus", "v8-plus", "v9-plus", "v10-plus", "v11-plus", "v12-plus", "v26-plus"])
def test_architecture_with_operators_is_trained_on_a_gpu(score: Callable[..., Outcome], space: str) -> None:
    """From the weights of its stock model, in which other modules stood in the operators' places."""
    found = load_space(space)
    architecture = found.sample(random.Random(0))
    with pretended_gpu():
        stock = score(found.stock, "0", epochs=1, precision="bf16")
        trained = score(architecture, "0", epochs=1, precision="bf16", weights=stock.weights)
    assert 0 < trained.coverage.share < 1


@pytest.mark.slow
def test_training_with_the_auxiliary_branch_runs_on_a_gpu(score: Callable[..., Outcome]) -> None:
    recipe = DIGITS_SCRATCH.model_copy(update={"pgi": True})
    with pretended_gpu():
        score(load_space("v9").stock, "0", epochs=1, precision="bf16", recipe=recipe)
