"""PostgreSQL server for tests, in a temporary folder on a free port; skipped where none is installed."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/bin", "/usr/bin", "/opt/homebrew/bin")


def folder_of_programs() -> Path | None:
    """Return the folder with `initdb` and `postgres`; None if there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += [folder for place in _PLACES for folder in sorted(Path("/").glob(place.lstrip("/")), reverse=True)]
    complete = (each for each in folders if (each / "initdb").is_file() and (each / "postgres").is_file())
    return next(complete, None)


class Server:
    """Server of a data folder; started, stopped and started again.

    Args:
        folder: that it may create its data folder in; the user `postgres` must be able to reach it.
    """

    def __init__(self, folder: Path, *, listen: str = "127.0.0.1") -> None:
        programs = folder_of_programs()
        assert programs is not None
        self._programs, self._data, self._listen = programs, folder / "data", listen
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
            folder.chmod(0o755)
        self._run("initdb", "-D", str(self._data), "-U", "nas", "-A", "trust", "--no-sync", "-E", "UTF8")

    def url(self, database: str = "postgres", host: str = "127.0.0.1") -> str:
        """Return the address of a database."""
        return f"postgresql://nas@{host}:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Create a database; return its address."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "nas", database)
        return self.url(database)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses={self._listen} -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._data / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once; its clients lose their connections."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "fast", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, str(self._programs / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd="/")
