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


class PostgresServer:
    """Running server.

    Args:
        binaries: folder of PostgreSQL's programs.
        port: on the loopback address.
    """

    def __init__(self, binaries: Path, port: int) -> None:
        self._binaries, self._port = binaries, port

    def create(self, name: str) -> str:
        """Create an empty database; return its address."""
        _run(self._binaries / "createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "nas", name)
        return f"postgresql+psycopg://nas@127.0.0.1:{self._port}/{name}"

    def dump(self) -> str:
        """Return the SQL that creates all databases again."""
        return _run(
            self._binaries / "pg_dumpall", "-h", "127.0.0.1", "-p", str(self._port), "-U", "nas", stdout=subprocess.PIPE
        )


@contextmanager
def running(*, connections: int = 100) -> Iterator[PostgresServer]:
    """Run a server without databases.

    Args:
        connections: `max_connections`; PostgreSQL's default is 100.

    Raises:
        RuntimeError: PostgreSQL is not installed, or one of its programs fails.
    """
    binaries = max(_INSTALLED.glob("*/bin"), key=lambda path: float(path.parent.name), default=None)
    if binaries is None:
        raise RuntimeError(f"{_INSTALLED}: PostgreSQL is not there (apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    port = free_port()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections={connections}"
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        _run(binaries / "initdb", "-D", folder / "data", "-A", "trust", "-U", "nas", "-E", "UTF8")
        _run(binaries / "pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start")
        try:
            yield PostgresServer(binaries, port)
        finally:
            _run(binaries / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server(*, connections: int = 100) -> Iterator[str]:
    """Run a server; yield the address of an empty database on it; see `running`."""
    with running(connections=connections) as postgres:
        yield postgres.create("nas")


def _run(*command: str | Path, stdout: int = subprocess.DEVNULL) -> str:
    """Run one of PostgreSQL's programs, which refuse to be root, as the user `postgres`.

    Args:
        stdout: as of `subprocess.run`; a pipe for a program that starts the server would stay open as long as that.

    Returns:
        What it prints, if that goes to a pipe.
    """
    user = ["runuser", "-u", pwd.getpwnam("postgres").pw_name, "--"] if os.geteuid() == 0 else []
    everything = [*user, *map(str, command)]
    done = subprocess.run(everything, check=False, text=True, stdout=stdout, stderr=subprocess.PIPE, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout or ""


def free_port() -> int:
    """Return a port of the loopback address on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
