"""Headless Chromium, driven over a pipe with the DevTools protocol."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """A page, all messages of which are kept in `events`."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb")
        self._num_sent = 0
        self._session: dict[str, str] = {}
        self.events: list[dict] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: object) -> dict:
        self._num_sent += 1
        command = {"id": self._num_sent, "method": method, "params": params, **self._session}
        self._commands.write(json.dumps(command).encode() + b"\0")
        while (message := self._receive()).get("id") != self._num_sent:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, path: Path, width: int, scheme: str) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression: str) -> object:
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def found(self, method: str) -> list[dict]:
        return [event["params"] for event in self.events if event["method"] == method]

    def _receive(self) -> dict:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium ended"
            message += byte
        return json.loads(message)


@contextmanager
def open_chromium(profile_dir: Path) -> Iterator[Page]:
    (their_commands, commands), (answers, their_answers) = os.pipe(), os.pipe()
    flags = f'--headless --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir="{profile_dir}"'
    process = subprocess.Popen(
        ["bash", "-c", f'exec "{PROGRAM}" {flags} 3<&{their_commands} 4>&{their_answers}'],
        pass_fds=(their_commands, their_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_commands)
    os.close(their_answers)
    try:
        page = Page(commands, answers)
        yield page
        page._commands.close()
        page._answers.close()
    finally:
        process.terminate()
        process.wait(20)
