"""Chromium or Chrome without a window, for pictures of pages: driven through two pipes, without further packages.

`chromium --screenshot` takes its picture after the first load, or after a budget of virtual time, which stands still
while a request is open: the pages of MLflow always have one. Here a condition on the page decides.
"""

import base64
import fcntl
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")
_READS, _WRITES = 3, 4
"""File descriptors from which the browser reads commands, and to which it writes answers."""
_SECONDS = 60.0
_POLL_SECONDS = 0.3


class BrowserError(Exception):
    """The browser has not done what it was asked to; the text says what."""


class Browser:
    """A page of a browser, in Chrome's DevTools protocol."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing, self._rest, self._number, self._session = reading, writing, b"", 0, ""

    def attach(self) -> None:
        """Open an empty page, to which the commands go."""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Page.enable")

    def open(
        self, address: str, size: tuple[int, int], *, until: str, dark: bool = False, stored: Mapping[str, str] = {}
    ) -> None:
        """Open a page and wait for it.

        Args:
            address: of the page.
            size: width and height of the window, in pixels.
            until: expression in JavaScript that is true when the page is complete.
            dark: whether the page is asked for its dark colours.
            stored: values that the page finds in its local storage.

        Raises:
            BrowserError: the page is not complete after a minute.
        """
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        store = "".join(f"localStorage.setItem({json.dumps(key)}, {json.dumps(text)});" for key, text in stored.items())
        self._ask("Page.addScriptToEvaluateOnNewDocument", source=store)
        self._ask("Page.navigate", url=address)
        deadline = time.monotonic() + _SECONDS
        while not self.evaluate(until):
            if time.monotonic() > deadline:
                raise BrowserError(f"{address} is not complete after {_SECONDS:.0f} seconds: not {until}")
            time.sleep(_POLL_SECONDS)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in JavaScript; None if it raises."""
        return self._ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        """Return a picture of the window as PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._writing, json.dumps({**command, **session}).encode() + b"\0")
        for answer in self._answers(method):
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                return dict(answer["result"])
        raise BrowserError(f"{method}: the browser has ended")

    def _answers(self, method: str) -> Iterator[dict[str, Any]]:
        """Yield what the browser writes, until it ends."""
        deadline = time.monotonic() + _SECONDS
        while True:
            while b"\0" in self._rest:
                text, _, self._rest = self._rest.partition(b"\0")
                yield json.loads(text)
            if not select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise BrowserError(f"{method}: no answer after {_SECONDS:.0f} seconds")
            if not (part := os.read(self._reading, 1 << 20)):
                return
            self._rest += part


@contextmanager
def browser(command: str, options: Sequence[str] = ()) -> Iterator[Browser]:
    """Start a browser with a profile of its own; end it with all its processes.

    Args:
        command: of Chromium or Chrome.
        options: further ones of its command line.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        commands, answers = os.pipe(), os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _WRITES + 1) for end in (commands[0], answers[1])]
        process = subprocess.Popen(
            [command, *_OPTIONS, f"--user-data-dir={profile}", *options],
            close_fds=False,  # the others are not inherited; `pass_fds` needs an ordinary file at these two numbers
            preexec_fn=lambda: [os.dup2(*pair) for pair in zip(ends, (_READS, _WRITES), strict=True)],  # noqa: PLW1509 - no threads yet
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        for end in ends:
            os.close(end)
        os.close(commands[0])
        os.close(answers[1])
        try:
            opened = Browser(answers[0], commands[1])
            opened.attach()
            yield opened
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(commands[1])
            os.close(answers[0])
