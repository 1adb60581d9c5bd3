"""A browser without a window, driven over pipes by the Chrome DevTools Protocol: it needs no WebSocket and no port.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SECONDS = 60.0
_PAGES = 5
_READS, _WRITES = 3, 4  # file descriptors of the browser's end, by its own rule


class CallError(Exception):
    """The browser has refused a command, or could not end it: its page went away meanwhile."""


class Browser:
    """A browser with one page, and cookies of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        assert CHROMIUM is not None
        to_browser, self._commands = os.pipe()
        self._answers, from_browser = os.pipe()

        def arrange() -> None:
            """Put the ends where the browser looks, by way of numbers that are neither."""
            read, write = os.dup2(to_browser, 20), os.dup2(from_browser, 21)
            os.dup2(read, _READS)
            os.dup2(write, _WRITES)

        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--remote-debugging-pipe", f"--user-data-dir={folder}", *options, "about:blank"]
        self._process = subprocess.Popen(
            command,
            preexec_fn=arrange,  # noqa: PLW1509 - no threads yet
            close_fds=False,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._number = 0
        self._read = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the answer to a command; events that come before it are kept."""
        number = self._send(method, parameters)
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise CallError(answer["error"]["message"])
                return dict(answer["result"])
            self.events.append(answer)
            if answer.get("method") == "Page.javascriptDialogOpening":  # the page asks whether it may be left
                self._send("Page.handleJavaScriptDialog", {"accept": True})

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        """Send a command and return its number."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        return self._number

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], SECONDS + 10)
            assert ready, "the browser does not answer"
            more = os.read(self._answers, 2**16)
            assert more, "the browser has ended"
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        return dict(json.loads(message))

    def open(self, link: str) -> None:
        self.call("Page.navigate", url=link)

    def value(self, expression: str) -> Any:
        """Return what JavaScript says, once it is there if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait in the page until a condition of JavaScript holds, at each of its animation frames."""
        wait = f"""new Promise((resolve, reject) => {{
            const end = performance.now() + {1000 * SECONDS};
            const look = () => {{
                let holds = false;
                try {{ holds = {condition}; }} catch {{ }}
                if (holds) resolve(true);
                else if (performance.now() > end) reject(new Error("waited in vain"));
                else setTimeout(look, 10);
            }};
            look();
        }})"""
        for _ in range(_PAGES):
            with suppress(CallError):  # another page is loaded meanwhile: what is waited for may be there
                self.value(wait)
                return
        raise AssertionError(condition)

    def press(self, key: str, *, control: bool = False) -> None:
        """Press a key, as a keyboard does."""
        codes = {" ": "Space", "ArrowLeft": "ArrowLeft", "ArrowRight": "ArrowRight", "Tab": "Tab", "Enter": "Enter"}
        code = codes.get(key, f"Digit{key}" if key.isdigit() else f"Key{key.upper()}")
        virtual = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39}.get(key, ord(key.upper()[0]))
        pressed: dict[str, Any] = {"key": key, "code": code, "windowsVirtualKeyCode": virtual}
        pressed["modifiers"] = 2 if control else 0
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 and not control else "")
        down = "keyDown" if text else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=down, text=text, **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def picture(self, path: Path) -> None:
        """Write what the page looks like to a PNG file."""
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def show(self, *, width: int, height: int, scheme: str = "light") -> None:
        """Give the window a size and a colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def hosts(self, of: Callable[[str], str]) -> set[str]:
        """Return something of the address of each request that pages have made."""
        sent = [one for one in self.events if one.get("method") == "Network.requestWillBeSent"]
        return {of(one["params"]["request"]["url"]) for one in sent}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._commands)
        os.close(self._answers)
        self._process.terminate()
        self._process.wait()
