"""Chromium without a window, driven over its debugging pipe: no driver and no library is needed."""

import base64
import itertools
import json
import os
import select
import shutil
import struct
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
         "--remote-debugging-pipe", "--hide-scrollbars", "--disable-background-networking")  # fmt: skip
PATIENCE = 120.0  # seconds


class Page:
    """A page in a browser of its own."""

    def __init__(self, folder: Path) -> None:
        inner_read, self._write = os.pipe()
        self._read, inner_write = os.pipe()
        # The browser reads from file descriptor 3 and writes to 4.
        launch = f'exec "$0" "$@" 3<&{inner_read} 4>&{inner_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", launch, str(PROGRAM), *FLAGS, f"--user-data-dir={folder}"],
            pass_fds=(inner_read, inner_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(inner_read)
        os.close(inner_write)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", ""
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)

    def open(self, path: Path) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=path.as_uri())
        until = time.monotonic() + PATIENCE
        while self.run("document.readyState") != "complete" or self.run("location.href") == "about:blank":
            assert time.monotonic() < until
            time.sleep(0.1)

    def run(self, code: str) -> Any:
        """Evaluate JavaScript; what it gives comes back."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        at = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **at)
        self.send("Input.dispatchKeyEvent", type="keyUp", **at)

    def picture(self, where: str) -> float:
        """Photograph an element. Returns the share of its pixels' bytes that differ from what is left or above."""
        box = self.run(
            f"(() => {{const b = document.querySelector({json.dumps(where)}).getBoundingClientRect();"
            "return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: Math.min(b.height, 4000), "
            "scale: 1}})()"
        )
        shot = self.send("Page.captureScreenshot", clip=box, captureBeyondViewport=True)
        return busy(base64.b64decode(shot["data"]))

    def send(self, method: str, **given: Any) -> Any:
        """Send a command and wait for what comes of it; what the page complains of meanwhile is kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": given}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            answer = self._next(until)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)
        raise TimeoutError(method)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(until - time.monotonic(), 0))
            if not ready:
                raise TimeoutError("the browser does not answer")
            got = os.read(self._read, 1 << 20)
            if not got:
                raise OSError("the browser has ended")
            self._buffer += got
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        what, given = event.get("method", ""), event.get("params", {})
        if what == "Runtime.exceptionThrown" or (
            what == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning")
        ):
            self.problems.append(json.dumps(given))
        if what == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])


def busy(png: bytes) -> float:
    """Share of the filtered bytes of a PNG that are not 0: none of an even surface."""
    at, data = 8, b""
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += size + 12
    raw = zlib.decompress(data)
    return 1 - raw.count(0) / len(raw)
