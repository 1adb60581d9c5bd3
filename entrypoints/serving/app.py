"""The server's HTTP side: SageMaker's hosting contract, requests of three kinds of clients, adapters by name.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import json
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from entrypoints.serving.adapter_routes import add_adapter_routes
from entrypoints.serving.drawing_routes import add_drawing_routes
from entrypoints.serving.metrics import MEDIA_TYPE
from entrypoints.serving.state import Refused, State, broken, require_token, state_of

MEDIA_TYPE_JSON = "application/json"


def make_app(state: State) -> FastAPI:
    """Return the application."""
    app = FastAPI(
        title="orchestrator",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # its own route asks for no token
        dependencies=[Depends(require_token)],
    )
    app.state.server = state
    app.add_exception_handler(Refused, refusal)
    app.add_exception_handler(HTTPException, refusal)
    app.add_middleware(Counted, state=state)
    app.add_api_route("/ping", ping, methods=["GET"])
    app.add_api_route("/ping", ping, methods=["POST"])
    app.add_api_route("/readyz", ready, methods=["GET"])
    app.add_api_route("/status", status, methods=["GET"])
    app.add_api_route("/metrics", metrics, methods=["GET"])
    app.add_api_route("/openapi.json", description, methods=["GET"], include_in_schema=False)
    add_drawing_routes(app)
    add_adapter_routes(app)
    return app


class Counted:
    """Counts the answers of an application by route and status, and answers where it fails."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app = app
        self.state = state

    async def __call__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Pass a request on."""
        is_answered = False

        async def counted(message: Message) -> None:
            nonlocal is_answered
            if message["type"] == "http.response.start":
                is_answered = True
                # Only routes that there are: addresses that strangers try would be labels without end.
                route = getattr(scope.get("route"), "path", "none")
                self.state.metrics.requests.labels(route, message["status"]).inc()
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except Exception as error:
            if scope["type"] == "http" and not is_answered:
                await answer_of(broken(error))(scope, receive, counted)
            raise  # for the log


async def ping(request: Request) -> Response:
    """Say whether the server lives and has loaded its base model."""
    return Response(status_code=200 if state_of(request).is_healthy else 503)


async def ready(request: Request) -> Response:
    """Say whether another request would be taken."""
    state = state_of(request)
    if not state.is_healthy:
        return Response(status_code=503)
    try:
        state.require_room()
    except Refused as error:
        raise Refused(
            503,
            error.message,
            error.next_step,
            error.headers,
        ) from error
    return Response(status_code=200)


async def status(request: Request) -> Response:
    """Say what the server is doing, and for how long it has had nothing to do; while it is loading, too."""
    state = state_of(request)
    worker = state.worker
    return JSONResponse(
        {
            "phase": state.phase,
            "admitted": state.admitted,
            "waiting": state.waiting,
            "drawing": worker.drawing if worker else 0,
            "drawn": state.drawn,
            "last_used": round(state.idle_seconds, 3),
            "adapters": len(state.service.library) if worker else 0,
        }
    )


async def metrics(request: Request) -> Response:
    """Return all figures for Prometheus."""
    state = state_of(request)
    return Response(state.metrics.exposed(state), media_type=MEDIA_TYPE)


async def description(request: Request) -> Response:
    """Return what can be asked for, as OpenAPI."""
    return JSONResponse(request.app.openapi())


async def refusal(_: Request, error: Exception) -> Response:
    """Return the response of a refusal, in the shape that OpenAI's clients read too."""
    if isinstance(error, HTTPException):  # of the framework: no such route, or not with this method
        error = Refused(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    if not isinstance(error, Refused):
        raise error
    return answer_of(error)


def answer_of(error: Refused) -> Response:
    """Return the response of a refusal: ASCII, because a message may quote halves of characters."""
    body: dict[str, Any] = {"error": {"message": error.message, "code": error.status}}
    if error.next_step:
        body["error"]["next"] = error.next_step
    return Response(json.dumps(body), error.status, error.headers, MEDIA_TYPE_JSON)
