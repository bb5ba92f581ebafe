"""Ray cluster on which a study's workers run, as a user names it."""

import re
from dataclasses import dataclass
from importlib.util import find_spec

from nas import addresses
from search_spaces.errors import EnvironmentProblem, SpecError

_ADDRESS = re.compile(r"auto|(ray://)?[^\s/@?#]+:\d+")
"""Ray knows neither users nor passwords in an address."""


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """Ray cluster, and what a worker needs of it.

    Attributes:
        address: `auto`, `host:port`, or `ray://host:10001`.
        gpus: of each worker; 0 trains on the CPU, on a core each.
    """

    address: str
    gpus: float = 0.0

    @classmethod
    def of(
        cls, address: str | None, gpus: float | None, storage: str | None, *, device: str | None = None
    ) -> "RayCluster | None":
        """Return the cluster that a user asks for; None if none.

        Args:
            address: as typed.
            gpus: of each worker; None for 0.
            storage: of the study; None for that of the environment.
            device: as typed; Ray chooses the devices.

        Raises:
            SpecError: GPUs of workers without a cluster; no address; a device; a storage that nodes cannot share.
            EnvironmentProblem: Ray is not installed.
        """
        if address is None:
            if gpus is not None:
                raise SpecError(f"gpus-per-worker: for workers on a Ray cluster, got {gpus:g} (add --ray ADDRESS)")
            return None
        mistakes = []
        if not _ADDRESS.fullmatch(address):
            got = addresses.redact(address)
            mistakes.append(f"ray: no address of a cluster, got {got!r} (auto, head:6379 or ray://head:10001)")
        if device is not None:
            mistakes.append(
                f"device: Ray chooses the devices of its workers, got {device!r} (leave it out; --gpus-per-worker 1 "
                "trains on GPUs)"
            )
        shared = storage or addresses.storage_given()
        if not addresses.is_postgresql(shared):
            got = repr(addresses.redact(shared)) if shared else "a file on this machine"
            mistakes.append(
                f"storage: the nodes of a Ray cluster share a PostgreSQL database, got {got} "
                "(such as --storage postgresql://me@host/name)"
            )
        if mistakes:
            raise SpecError(mistakes)
        if find_spec("ray") is None:
            raise EnvironmentProblem("ray: the package is not installed here (pip install 'nas-for-yolo[ray]')")
        return cls(address=address, gpus=gpus or 0.0)

    @property
    def device(self) -> str:
        """Device on which a worker trains, as it sees it."""
        return "0" if self.gpus else "cpu"

    @property
    def flags(self) -> str:
        """Options by which a command names it, with a blank before them."""
        return f" --ray {self.address}" + (f" --gpus-per-worker {self.gpus:g}" if self.gpus else "")
