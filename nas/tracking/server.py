"""MLflow's web server for all studies, as a child process that ends with this one."""

import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from contextlib import suppress

from nas import signals
from nas.addresses import redact, without_password
from nas.tracking.database import create_database
from nas.tracking.mlflow_runs import ui_command, ui_environment
from search_spaces.errors import EnvironmentProblem, SpecError, unwrapped

_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.3
_PORTS_TRIED = 100
_LAST_PORT = 65535
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "localhost"}  # noqa: S104 - addresses that the user chose, for a browser

_QUIET = {"PYTHONWARNINGS": "ignore"}
"""Environment of the server's processes: their deprecation warnings do not concern the user."""


class PagesServer:
    """MLflow's web server.

    Args:
        uri: of MLflow's database, which is created if it is missing.
        host: to listen on.
        port: to listen on.

    Raises:
        EnvironmentProblem: the address is that of a server, or of no database.
        SpecError: the port is in use, or the host is not an address of this machine.
    """

    def __init__(self, uri: str, host: str, port: int) -> None:
        self._command, self._environment = ui_command(uri, host, port), ui_environment(uri)
        require_free(host, port)
        try:
            create_database(uri)
        except Exception as problem:
            line = redact(unwrapped(problem), uri)
            raise EnvironmentProblem(f"MLflow cannot be used at {without_password(uri)}: {line}") from problem
        self._host = host
        self._root = f"http://{_bracketed(_EVERYWHERE.get(host, host))}:{port}"

    @property
    def is_open(self) -> bool:
        """Whether other machines reach the server, which asks for no password."""
        return not _is_loopback(self._host)

    @property
    def address(self) -> str:
        """Address of the pages; by default MLflow 3.17 would open an experiment in its view for language models."""
        return f"{self._root}/#/experiments?workflowType=machine_learning"

    def run(self, *, open_browser: bool) -> None:
        """Serve until Ctrl-C, SIGTERM or SIGHUP, then end the server with all its processes.

        Args:
            open_browser: open a browser as soon as the server answers, where there is a screen.

        Raises:
            EnvironmentProblem: the server has exited.
            KeyboardInterrupt: after the server was ended.
        """
        with signals.as_ctrl_c():
            environment = {**os.environ, **_QUIET, **self._environment}
            # Its stdout is meant for the administrator of a shared server.
            server = subprocess.Popen(self._command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
            try:
                if open_browser and _has_screen():
                    threading.Thread(target=self._open_when_ready, args=(server,), daemon=True).start()
                while (status := server.poll()) is None:
                    time.sleep(_POLL_SECONDS)  # not `wait`, which a Ctrl-C does not always interrupt
            finally:
                _end(server)
        raise EnvironmentProblem(f"MLflow's server ended by itself, with status {status}")

    def _open_when_ready(self, server: "subprocess.Popen[bytes]") -> None:
        asking = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine
        while server.poll() is None:
            with suppress(OSError), asking.open(f"{self._root}/health", timeout=5):
                webbrowser.open(self.address)
                return
            time.sleep(_POLL_SECONDS)


def require_free(host: str, port: int) -> None:
    """Raise if a port is in use.

    Raises:
        SpecError: the port is in use, with the next free one; or the host is not an address of this machine.
    """
    try:
        if _is_free(host, port):
            return
    except OSError as problem:
        raise SpecError(f"host: cannot listen on {host} ({problem.strerror or problem})") from None
    following = range(port + 1, min(port + _PORTS_TRIED, _LAST_PORT) + 1)
    another = next((other for other in following if _is_free(host, other)), None)
    advice = f"the next free one: --port {another}" if another else "name another with --port"
    raise SpecError(f"port: {port} is in use ({advice})")


def _is_free(host: str, port: int) -> bool:
    family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as problem:
            if problem.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def _is_loopback(host: str) -> bool:
    """Return whether all addresses of a host are of this machine alone; an empty host stands for all machines.

    Raises:
        EnvironmentProblem: the host has no address.
    """
    if not host:
        return False
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError) as error:
        raise EnvironmentProblem(
            f"--host {host}: no address of that name ({error}); 127.0.0.1 is this machine"
        ) from None
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _has_screen() -> bool:
    """Return whether a browser would open in a window, not as text in this terminal."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End a server and all its child processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(_GRACE_SECONDS)
