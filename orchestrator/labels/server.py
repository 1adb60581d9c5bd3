"""The page on which people label, served on this machine alone."""

import secrets
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orchestrator.contract.labels import LONGEST_NAME, Label
from orchestrator.errors import MachineError, OrchestratorError
from orchestrator.labels.desk import Desk, Standing, Work
from orchestrator.labels.guard import HOST, TOKEN_PARAMETER, Guard
from orchestrator.labels.open_round import Said

_PAGE = Path(__file__).parent / "page"
_GRACE_SECONDS = 2  # for answers under way when the server ends
_FOREVER = "private, max-age=31536000, immutable"
_MEANINGS = {1: "bad", 2: "poor", 3: "fair", 4: "good", 5: "excellent"}
"""The ratings in words, those of the absolute category rating of ITU-T P.910."""

Name = Annotated[str, Query(min_length=1, max_length=LONGEST_NAME)]


class LabelServer:
    """Serves one desk until it is interrupted."""

    def __init__(self, desk: Desk, port: int = 0) -> None:
        """Take a port, any free one for 0; raises MachineError when it is in use."""
        self.desk = desk
        self._token = secrets.token_urlsafe(32)
        self._socket = _listening(port)
        self.port = int(self._socket.getsockname()[1])

    def link(self, by: str | None) -> str:
        """Return the link to open; without a name, the page asks for it."""
        parameters = {TOKEN_PARAMETER: self._token}
        if by:
            parameters["by"] = by
        return f"http://{HOST}:{self.port}/?{urlencode(parameters)}"

    def run(self) -> None:
        """Answer until a signal comes."""
        app = Guard(make_app(self.desk), self._token, self.port)
        config = uvicorn.Config(
            app,
            lifespan="off",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=_GRACE_SECONDS,
            server_header=False,
        )
        # Uvicorn ends at either signal and then raises it again: what is left has to be sent after both.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with self.desk.sending(), self._socket, suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[self._socket])


def make_app(desk: Desk) -> FastAPI:
    """Return the application, without its guard."""
    app = FastAPI(title="labels", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(OrchestratorError, _refused)
    _add_page(app, desk)
    _add_labels(app, desk)
    return app


def _add_page(app: FastAPI, desk: Desk) -> None:
    """Add the routes of the page and its files."""
    pages = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    @app.get("/")
    def show(by: str = "") -> HTMLResponse:
        """Return the page, or the question who is labelling."""
        name = by.strip()[:LONGEST_NAME]
        template = pages.get_template("page.html" if name else "who.html")
        html = template.render(
            by=name,
            job=desk.manifest.job,
            pairs=desk.pairs,
            ratings=_MEANINGS.items(),
            longest=LONGEST_NAME,
        )
        return HTMLResponse(html)

    @app.get("/page.js")
    def script() -> Response:
        """Return the page's script."""
        return Response((_PAGE / "page.js").read_bytes(), media_type="text/javascript")

    @app.get("/style.css")
    def style() -> Response:
        """Return the page's style."""
        return Response((_PAGE / "style.css").read_bytes(), media_type="text/css")


def _add_labels(app: FastAPI, desk: Desk) -> None:
    """Add the routes that the page's script calls."""

    @app.get("/api/work")
    def work(by: Name) -> Work:
        """Return what a person is asked, and what they have said."""
        desk.refresh()
        return desk.work(by)

    @app.get("/api/standing")
    def standing(number: Annotated[int, Query(alias="round")]) -> Standing:
        """Return how far a round is."""
        return desk.standing(number)

    @app.post("/api/labels")
    def add(said: Said) -> Label:
        """Store a label."""
        return desk.add(said)

    @app.get("/pictures/{id_}")
    def picture(id_: str) -> Response:
        """Return a picture of the round."""
        data = desk.picture(id_)
        if data is None:
            return Response(status_code=404)
        return Response(data, media_type="image/png", headers={"Cache-Control": _FOREVER})


def _refused(_request: Request, error: Exception) -> JSONResponse:
    """Return what the page says of an error."""
    text = error.render() if isinstance(error, OrchestratorError) else str(error)
    return JSONResponse({"detail": text}, status_code=409)


def _listening(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # an answer goes out in two writes
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
        made.listen()  # a browser that follows the link at once has to wait, and not to be refused
    except OSError as error:
        made.close()
        message = f"Port {port} of this machine cannot be used: {error.strerror}."
        raise MachineError(message, next_step="leave --port out, and any free port is taken") from error
    return made
