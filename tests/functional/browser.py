# Copyright (c) 2026, fleetvpn.routing contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium with one page, driven by the DevTools protocol over a pipe: no driver and no port."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import shutil
import subprocess
import typing as t

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# A test may run as root, where Chromium has no sandbox; the page is the test's own.
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")

Message = dict[str, t.Any]


def find() -> str:
    """The program. `make setup` installs one, so that a test without it fails."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, f"needs one of {', '.join(NAMES)} (bindep.txt)"
    return found


class Browser:
    """As a context manager; it ends with the context."""

    def __init__(self, program: str, directory: pathlib.Path) -> None:
        self.complaints: list[Message] = []  # exceptions, and all that went to the console
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        command = [program, *OPTIONS, f"--user-data-dir={directory}"]
        # The browser reads from descriptor 3 and writes to 4.
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{requests} 4>&{answers}', "browser", *command],
            pass_fds=(requests, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(requests)
        os.close(answers)
        self._reader = os.fdopen(self._answers, "rb")
        self._number, self._buffer = 0, b""
        self._session: str | None = None

    def __enter__(self) -> Browser:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._reader.close()
        os.close(self._requests)

    def open(self, path: pathlib.Path) -> None:
        """Load a file, and wait until it is there."""
        self.call("Page.navigate", url=path.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def ask(self, expression: str) -> t.Any:
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: pathlib.Path) -> None:
        """What is seen, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **params: t.Any) -> Message:
        """One command of the protocol, and its result."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        request = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._requests, json.dumps(request).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return t.cast("Message", message["result"])

    def _next(self) -> Message:
        """The next message, which may be an event."""
        while b"\0" not in self._buffer:
            read = self._reader.read1(1 << 16)
            assert read, "the browser has ended"
            self._buffer += read
        text, _zero, self._buffer = self._buffer.partition(b"\0")
        message: Message = json.loads(text)
        if message.get("method") in COMPLAINTS:
            self.complaints.append(message)
        return message
