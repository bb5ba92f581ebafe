"""What a latency belongs to: a device, and how a model runs on it."""

import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from search_spaces.errors import LatencyError

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPU_INFO = Path("/proc/cpuinfo")
CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """Everything that two latencies must share to be compared, stored with each of them.

    Attributes:
        name: the user's, or one made of the rest; the name of the device's table.
        processor: the model of the CPU or GPU.
        version: of the runtime.
        governor: of the CPU's frequency, where the system tells.
    """

    name: str
    processor: str
    runtime: str
    version: str
    threads: int
    torch: str
    precision: str = "fp32"
    governor: str = ""

    @classmethod
    def here(cls, name: str | None, *, runtime: str, version: str, threads: int, device: str = CPU) -> Self:
        """The profile of this host.

        Args:
            name: one is made of host, processor, runtime and threads if it is None.
            device: `cpu`, or the number of a GPU.
        """
        model = processor(device)
        return cls(
            name=slug(name or f"{platform.node()} {model} {runtime} {threads}t"),
            processor=model,
            runtime=runtime,
            version=version,
            threads=threads,
            torch=torch.__version__,
            governor=_GOVERNOR.read_text(encoding="utf-8").strip() if _GOVERNOR.is_file() else "",
        )

    @classmethod
    def of(cls, written: dict[str, Any]) -> Self:
        """The profile that was written down: every value may be text."""
        return cls(**{**written, "threads": int(written["threads"])})

    def require(self, other: Self, place: str) -> None:
        """Refuse to mix what was measured under two profiles.

        Args:
            other: of what would be added to `place`, which is this profile's.

        Raises:
            LatencyError: they differ; the text says in what.
        """
        ours, theirs = asdict(self), asdict(other)
        differing = [f"{key} {theirs[key]!r}, not {ours[key]!r}" for key in ours if ours[key] != theirs[key]]
        if differing:
            raise LatencyError(
                f"{place} is of another device profile: this one has {', '.join(differing)} "
                "(latencies of two profiles are never mixed: give this one its own name with --device-name)"
            )


def torch_device(device: str) -> torch.device:
    """As PyTorch names `cpu`, or the number of a GPU."""
    return torch.device(CPU if device == CPU else f"cuda:{device}")


def computes_bf16(device: str) -> bool:
    """Whether a device computes in bfloat16, which costs time where it is only emulated.

    Of a CPU, an older PyTorch cannot tell it; then the answer is no.
    """
    if device != CPU:
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def processor(device: str = CPU) -> str:
    """The model of this host's CPU, or of one of its GPUs."""
    if device != CPU:
        return torch.cuda.get_device_name(int(device))
    if _CPU_INFO.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def slug(name: str) -> str:
    """A name that can be a file's: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.]+", "-", re.sub(r"\((R|TM)\)", "", name)).strip("-.")


def memory_format(device: torch.device) -> torch.memory_format:
    """Channels last on a CPU, for training and for latency; on a GPU Ultralytics chooses by itself.

    Ultralytics deploys a checkpoint so on a CPU (`nn/autobackend.py:262`), and a training step of v9t takes 0.19 s
    there instead of 0.25, with our operators in it 0.25 instead of 0.37 (128 px, batch 8).
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format
