"""Adapters over HTTP, as SageMaker's adapter components manage them, and as people do.

`POST /adapters` with `name` and `src`, in JSON or as query parameters, and `DELETE /adapters/{name}`:
https://github.com/aws/model-hosting-container-standards
"""

import asyncio
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.app import Refused, State, body_of, state_of
from entrypoints.serving.archives import unpack
from entrypoints.serving.bodies import BodyError, parse
from entrypoints.serving.library import Registered
from orchestrator.contract.problem import problems_of

ALIAS_HEADER = "X-Amzn-SageMaker-Adapter-Alias"
"""What messages call an adapter whose name is SageMaker's own."""
_ARCHIVES = (".tar.gz", ".tgz")


class Registration(BaseModel):
    """The body of `POST /adapters`."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=1024)
    """What requests call it."""
    src: str = Field(min_length=1, max_length=4096)
    """Folder or archive on this machine."""
    preload: bool = True
    """Whether it is read now, and not when the first request asks for it."""
    pin: bool = False
    """Whether it stays in memory; here all stay that fit."""


def add_adapter_routes(app: FastAPI) -> None:
    """Add the routes to an application."""
    app.add_api_route("/adapters", register, methods=["POST"])
    app.add_api_route("/adapters", list_adapters, methods=["GET"])
    app.add_api_route("/adapters/{name:path}", show, methods=["GET"])
    app.add_api_route("/adapters/{name:path}", unregister, methods=["DELETE"])


async def register(request: Request) -> Response:
    """Know an adapter by a name; one that had it before gives it up to new requests."""
    state = state_of(request)
    wanted = await registration_of(request)
    called = request.headers.get(ALIAS_HEADER, wanted.name)
    try:
        registered = await asyncio.to_thread(registered_as, state, wanted)
        if wanted.preload:
            await state.service.read(registered)
    except TrainingError as error:
        state.service.library.remove(wanted.name)
        raise Refused(424, error.message, error.next_step) from error
    return PlainTextResponse(f"Adapter {called} registered")


async def registration_of(request: Request) -> Registration:
    """Return what is to be registered; raises Refused(422)."""
    content = await body_of(request)
    values: Mapping[str, Any] = dict(request.query_params)
    try:
        if content:
            values = {**values, **parse(content)}
        return Registration.model_validate(values)
    except BodyError as error:
        raise Refused(422, str(error)) from error
    except ValidationError as error:
        problems = "; ".join(problem.render() for problem in problems_of(error))
        raise Refused(422, problems, 'send {"name": ..., "src": ...}') from error


def registered_as(state: State, wanted: Registration) -> Registered:
    """Register an adapter from where it lies; raises TrainingError, and Refused for a place outside of the root."""
    source = Path(wanted.src)
    if not source.is_absolute():
        source = state.root / source
    resolved = source.resolve()
    if not resolved.is_relative_to(state.root.resolve()):
        raise Refused(403, f"Adapters lie below {state.root}.", "copy it there")
    if resolved.name.endswith(_ARCHIVES):
        folder = state.unpacked / secrets.token_hex(8)
        folder.mkdir(parents=True)
        unpack(resolved, folder)
        resolved = folder
    return state.service.library.register(wanted.name, resolved)


async def list_adapters(request: Request) -> Response:
    """List the adapters."""
    state = state_of(request)
    found = [described(state, one) for one in state.service.library.everything()]
    return JSONResponse({"adapters": found})


async def show(name: str, request: Request) -> Response:
    """Describe an adapter."""
    state = state_of(request)
    return JSONResponse(described(state, require_known(state, name)))


async def unregister(name: str, request: Request) -> Response:
    """Forget a name; requests that have begun with it go on."""
    state = state_of(request)
    require_known(state, name)
    state.service.library.remove(name)
    return PlainTextResponse(f"Adapter {request.headers.get(ALIAS_HEADER, name)} unregistered")


def require_known(state: State, name: str) -> Registered:
    """Return the adapter of a name; raises Refused(404)."""
    registered = state.service.library.find(name)
    if registered is None:
        raise Refused(404, f"There is no adapter {json.dumps(name)}.", "GET /adapters lists those that there are")
    return registered


def described(state: State, registered: Registered) -> dict[str, Any]:
    """Return what is said of an adapter."""
    manifest = registered.manifest
    return {
        "name": registered.name,
        "sha256": registered.sha256,
        "kind": manifest.kind,
        "trigger": manifest.trigger,
        "in_memory": registered.sha256 in state.service.cache,
    }
