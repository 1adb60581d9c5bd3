"""A server for tests that are not about the server: it starts at once, and does what its variables say.

`STAND_IN_PING`: status of /ping. `STAND_IN_STATUS`: status of /invocations. `STAND_IN_SECONDS`: what an answer takes.
`STAND_IN_NAME`: what it calls itself. `STAND_IN_HOST`: where it listens. `STAND_IN_EXIT`: exit at once with this.
`STAND_IN_ADAPTERS`: status of POST /adapters. `STAND_IN_STUBBORN`: takes no notice of SIGTERM.
"""

# ruff: noqa: T201 - what it prints is its log
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

ADAPTERS: dict[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    """Answers as SageMaker's hosting contract has it, and tells what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/ping":
            self._answer(int(os.environ.get("STAND_IN_PING", "200")), b"")
        elif self.path == "/adapters":
            self._answer(200, json.dumps(ADAPTERS).encode())
        else:
            self._answer(404, b"not found")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        url = urlsplit(self.path)
        if url.path == "/adapters":
            self._register(body, url.query)
        elif url.path == "/invocations":
            time.sleep(float(os.environ.get("STAND_IN_SECONDS", "0")))
            name = os.environ.get("STAND_IN_NAME", "")
            told = {
                "name": name,
                "body": body.decode(errors="replace"),
                "headers": dict(self.headers),
                "adapters": ADAPTERS,
            }
            self._answer(int(os.environ.get("STAND_IN_STATUS", "200")), json.dumps(told).encode())
        else:
            self._answer(404, b"not found")

    def do_DELETE(self) -> None:
        name = unquote(self.path.removeprefix("/adapters/"))
        found = ADAPTERS.pop(name, None)
        self._answer(404 if found is None else 200, b"Adapter unregistered")

    def _register(self, body: bytes, query: str) -> None:
        values = json.loads(body) if body else {name: found[0] for name, found in parse_qs(query).items()}
        if "STAND_IN_ADAPTERS" in os.environ:
            self._answer(int(os.environ["STAND_IN_ADAPTERS"]), b"no room")
            return
        if not Path(values["src"]).exists():
            self._answer(424, f"{values['src']} does not exist".encode())
            return
        ADAPTERS[values["name"]] = values["src"]
        self._answer(200, f"Adapter {self.headers.get('X-Amzn-SageMaker-Adapter-Alias')} registered".encode())

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
        """Say what is asked, but for the health check."""
        if self.path != "/ping":
            print(format % arguments, flush=True)


def main() -> None:
    """Serve until SIGTERM."""
    if "STAND_IN_EXIT" in os.environ:
        sys.exit(int(os.environ["STAND_IN_EXIT"]))
    host = os.environ.get("STAND_IN_HOST", "0.0.0.0")  # noqa: S104 - as in a container
    server = ThreadingHTTPServer((host, int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler)
    stubborn = "STAND_IN_STUBBORN" in os.environ
    signal.signal(
        signal.SIGTERM, signal.SIG_IGN if stubborn else lambda *_: threading.Thread(target=server.shutdown).start()
    )
    print(f"stand-in serves, started with {sys.argv[1:]}", flush=True)
    server.daemon_threads = False
    server.serve_forever(0.05)
    server.server_close()  # waits for the answers that are under way
    print("stand-in ends", flush=True)


if __name__ == "__main__":
    main()
