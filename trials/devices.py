"""Profile of a device: its processor and how a model runs on it, which all latencies of one table share."""

import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from search_spaces.errors import LatencyError

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPU_INFO = Path("/proc/cpuinfo")
CPU = "cpu"
MOST_THREADS = 1024
"""Most threads of a runtime, as of `--threads`: a table from elsewhere may ask for any number."""


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """Properties that two latencies must share to be comparable; stored with each table.

    Attributes:
        name: name of the device's table: the user's, or made of the other properties.
        processor: model name of the CPU or GPU.
        version: version of the runtime.
        torch: version of PyTorch.
        precision: of the deployed model: `fp32`, `fp16` or `int8`.
        governor: Linux' CPU frequency governor; empty where the system has none.
        calibration: how an int8 model's ranges are found, such as `64 images, seed 0`; empty for others.
    """

    name: str
    processor: str
    runtime: str
    version: str
    threads: int
    torch: str
    precision: str = "fp32"
    governor: str = ""
    calibration: str = ""

    @classmethod
    def of_this_machine(
        cls,
        name: str | None,
        *,
        runtime: str,
        version: str,
        threads: int,
        device: str = CPU,
        precision: str = "fp32",
        calibration: str = "",
    ) -> Self:
        """Return the profile of this machine.

        Args:
            name: None for a name made of hostname, processor, runtime, threads, and a precision that is not fp32.
            version: of the runtime.
            device: `cpu`, or the number of a GPU.
        """
        import torch  # noqa: PLC0415 - tables of latencies are read without PyTorch

        model = processor(device)
        suffix = "" if precision == "fp32" else f" {precision}"
        return cls(
            name=slug(name or f"{platform.node()} {model} {runtime} {threads}t{suffix}"),
            processor=model,
            runtime=runtime,
            version=version,
            threads=threads,
            torch=torch.__version__,
            precision=precision,
            calibration=calibration,
            governor=_GOVERNOR.read_text(encoding="utf-8").strip() if _GOVERNOR.is_file() else "",
        )

    @classmethod
    def from_text(cls, values: dict[str, Any]) -> Self:
        """Return the profile of values that may all be text.

        Raises:
            ValueError: the number of threads is none.
        """
        threads = int(values["threads"])
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError("threads")
        return cls(**{**values, "threads": threads})

    def require(self, other: Self, place: str) -> None:
        """Check that two profiles are equal: latencies of two profiles are never mixed.

        Args:
            place: whatever has this profile, in words, for the error; `other` would be added to it.

        Raises:
            LatencyError: they differ; lists the differences.
        """
        ours, theirs = asdict(self), asdict(other)
        differing = [f"{key} {theirs[key]!r}, not {ours[key]!r}" for key in ours if ours[key] != theirs[key]]
        if differing:
            raise LatencyError(
                f"{place} is of another device profile: this one has {', '.join(differing)} "
                "(latencies of two profiles are never mixed: give this one its own name with --device-name)"
            )


def processor(device: str = CPU) -> str:
    """Return the model name of this machine's CPU, or of one of its GPUs."""
    if device != CPU:
        import torch  # noqa: PLC0415 - as above

        return torch.cuda.get_device_name(int(device))
    if _CPU_INFO.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", _CPU_INFO.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def slug(name: str) -> str:
    """Convert a name to one that can be a file's: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.]+", "-", re.sub(r"\((R|TM)\)", "", name)).strip("-.")
