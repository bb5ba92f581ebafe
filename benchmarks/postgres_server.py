"""PostgreSQL server in a temporary folder, on a free port, by Debian's binaries."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_INSTALLED = Path("/usr/lib/postgresql")


@contextmanager
def server(*, connections: int = 100) -> Iterator[str]:
    """Run a server; yield the address of an empty database on it.

    Args:
        connections: `max_connections`; PostgreSQL's default is 100.
    """
    binaries = max(_INSTALLED.glob("*/bin"), key=lambda path: int(path.parent.name))
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    port = _free_port()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections={connections}"
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        _run(binaries / "initdb", "-D", folder / "data", "-A", "trust", "-U", "nas", "-E", "UTF8")
        _run(binaries / "pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start")
        try:
            _run(binaries / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "nas", "nas")
            yield f"postgresql+psycopg://nas@127.0.0.1:{port}/nas"
        finally:
            _run(binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str | Path) -> None:
    """Run one of PostgreSQL's programs, which refuse to be root, as the user `postgres`."""
    user = ["runuser", "-u", pwd.getpwnam("postgres").pw_name, "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*user, *map(str, command)], check=False, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/"
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
