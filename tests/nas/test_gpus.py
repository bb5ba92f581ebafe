"""GPUs by the names of CUDA, which need no GPU."""

import pytest

from nas.execution import gpus
from nas.execution.gpus import CardMemory
from search_spaces.errors import EnvironmentProblem

GPU_A, GPU_B = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "GPU-0a1b2c3d-0000-4106-c12f-20bd9faed9f6"
MIG_A, MIG_B = "MIG-89c850dc-38e3-57df-85c7-690c186b68e9", "MIG-f2b5fbbd-850e-51bb-8ffa-ac9fb48126da"
OLD_MIG = "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/0"
"""From the CUDA Programming Guide, 5.2.1.1, and pytorch/pytorch pull request 92315."""


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, None),
        ("", ()),
        ("-1", ()),
        ("none", ()),
        ("NoDevFiles", ()),  # Slurm, for a job without GPUs
        ("0", ("0",)),
        ("2,1", ("2", "1")),
        ("0,2,-1,1", ("0", "2")),
        (" 4, 6", ("4", "6")),
        ("+1,03", ("1", "3")),
        ("1gpu2,2ampere", ("1", "2")),
        ("1,1", ()),
        (f"{GPU_A},{GPU_B}", (GPU_A, GPU_B)),
        ("GPU-8932f937", ("GPU-8932f937",)),
        (f"{GPU_A},0", (GPU_A,)),
        (f"{GPU_A},{GPU_A}", ()),
        (f"{MIG_A},{MIG_B}", (MIG_A, MIG_B)),
        (OLD_MIG, (OLD_MIG,)),
        (f"{MIG_A},{GPU_A}", (MIG_A,)),
        (f"0,{GPU_A}", ("0",)),
    ],
)
def test_visible_gpus(value: str | None, names: tuple[str, ...] | None) -> None:
    assert gpus.visible(value) == names


def test_worker_gets_the_name_at_its_index() -> None:
    assert gpus.name_of("1", None) == "1"
    assert gpus.name_of("1", "4,6") == "6"
    assert gpus.name_of("0", "GPU-8f1a") == "GPU-8f1a"
    assert gpus.name_of("1", f"{MIG_A},{MIG_B}") == MIG_B


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        ("2", "4,6", "device: no GPU 2 here, CUDA_VISIBLE_DEVICES='4,6' shows 2 (unset it, or give --device 0,1)"),
        ("0", "", "device: no GPU 0 here, CUDA_VISIBLE_DEVICES='' shows none (unset it, or give --device cpu)"),
        ("0", "-1", "device: no GPU 0 here, CUDA_VISIBLE_DEVICES='-1' shows none (unset it, or give --device cpu)"),
    ],
)
def test_index_beyond_the_visible_gpus_is_refused(index: str, value: str, message: str) -> None:
    with pytest.raises(EnvironmentProblem) as raised:
        gpus.name_of(index, value)
    assert str(raised.value) == message


def test_each_listed_mig_instance_counts_though_a_process_sees_one() -> None:
    assert gpus.count(1, f"{MIG_A},{MIG_B}") == 2
    assert gpus.count(0, f"{MIG_A},{MIG_B}") == 0
    assert gpus.count(2, "0,1") == 2
    assert gpus.count(8, None) == 8


PRINTED = f"""\
0, {GPU_A}, NVIDIA RTX A5000, 20582, 24564
1, {GPU_B}, NVIDIA RTX A5000, 4, 24564
2, GPU-77777777, NVIDIA GB10, [N/A], [N/A]
"""


@pytest.mark.parametrize("name", ["0", GPU_A, "GPU-8932"])
def test_gpu_that_others_use_is_named_in_one_line(name: str) -> None:
    cards = CardMemory.read(PRINTED)
    (line,) = gpus.lines_on_use([name, name, "1", "2", MIG_A], cards)
    assert line == (
        f"GPU {name} (NVIDIA RTX A5000): other processes hold 20.1 of 24.0 GiB; a trial that needs more than the rest "
        "ends as out_of_memory (nvidia-smi shows them)"
    )


def test_no_line_without_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert gpus.memory_of_cards() == ()
