"""Adapters over HTTP, as SageMaker's adapter components manage them, and as people do.

`POST /adapters` with `name` and `src`, in JSON or as query parameters, and `DELETE /adapters/{name}`:
https://github.com/aws/model-hosting-container-standards
"""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from entrypoints.runtime.failures import TrainingError, first_line
from entrypoints.serving.archives import MOST_FILES, SUFFIXES
from entrypoints.serving.bodies import BodyError, body_schema, parse
from entrypoints.serving.incoming import CLOSE, SOON, Body
from entrypoints.serving.library import Registered
from entrypoints.serving.service import NO_ROOM
from entrypoints.serving.state import Refused, State, state_of
from orchestrator.contract.problem import problems_of

ALIAS_HEADER = "X-Amzn-SageMaker-Adapter-Alias"
"""What messages call an adapter whose name is SageMaker's own."""
MOST_BYTES = 2**16
"""Of the body of a registration."""
HASH_HEADER = "X-Orchestrator-Adapter-Sha256"
"""What was registered, in the answer."""


class Registration(BaseModel):
    """The body of `POST /adapters`."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=1024)
    """What requests call it."""
    src: str = Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")
    """Folder or archive on this machine."""
    preload: bool = True
    """Whether it is read now, and not when the first request asks for it."""
    pin: bool = False
    """Whether it stays in memory; here all stay that fit."""


def add_adapter_routes(app: FastAPI) -> None:
    """Add the routes to an application."""
    body = body_schema(Registration)
    body["requestBody"]["required"] = False  # it may come as query parameters
    app.add_api_route("/adapters", register, methods=["POST"], openapi_extra=body)
    app.add_api_route("/adapters", list_adapters, methods=["GET"])
    app.add_api_route("/adapters/{name:path}", show, methods=["GET"])
    app.add_api_route("/adapters/{name:path}", unregister, methods=["DELETE"])


async def register(request: Request) -> Response:
    """Know an adapter by a name; one that had it before gives it up to new requests.

    When the new one cannot be read, the old one stays.
    """
    state = state_of(request)
    with registering(state):
        with Body(state, MOST_BYTES) as body:
            wanted = registration_in(request, await body.read(request))
        called = request.headers.get(ALIAS_HEADER, wanted.name)
        place = confined(state.root, wanted.src)
        try:
            await asyncio.to_thread(require_plain, place)
            registered = await asyncio.to_thread(state.service.describe, wanted.name, place)
            if wanted.preload:
                await state.service.read(registered)
        except TrainingError as error:
            raise Refused(
                status_of(error),
                error.message,
                error.next_step,
            ) from error
        state.service.library.put(registered)
    return PlainTextResponse(f"Adapter {called} registered", headers={HASH_HEADER: registered.sha256})


@contextmanager
def registering(state: State) -> Iterator[None]:
    """Count a registration; raises Refused(429) when there are too many at once."""
    if state.registering >= state.most_registering:
        raise Refused(
            429,
            f"{state.registering} adapters are being registered already.",
            "register it when these are ready",
            {"Retry-After": SOON, **CLOSE},
        )
    state.registering += 1
    try:
        yield
    finally:
        state.registering -= 1


def registration_in(request: Request, content: bytes) -> Registration:
    """Return what a body and the query parameters say is to be registered; raises Refused(422)."""
    values: Mapping[str, Any] = dict(request.query_params)
    try:
        if content:
            values = {**values, **parse(content)}
        return Registration.model_validate(values)
    except BodyError as error:
        raise Refused(422, str(error)) from error
    except ValidationError as error:
        problems = "; ".join(problem.render() for problem in problems_of(error))
        raise Refused(
            422,
            problems,
            'send {"name": ..., "src": ...}',
        ) from error


def confined(root: Path, src: str) -> Path:
    """Return where an adapter lies; raises Refused for a place outside of the root, and for one behind a link."""
    plain_root = Path(os.path.abspath(root))  # noqa: PTH100 - follows no links
    real_root = plain_root.resolve()
    place = Path(os.path.abspath(plain_root / src))  # noqa: PTH100
    for known in (plain_root, real_root):
        if place != known and place.is_relative_to(known):
            place = real_root / place.relative_to(known)
            break
    else:
        raise Refused(
            403,
            f"Adapters lie below {root}.",
            "copy it there",
        )
    try:
        is_there = place.exists()
        is_behind_link = place.resolve() != place
    except (OSError, RuntimeError) as error:  # names that are too long, links in a circle
        raise Refused(
            422,
            f"There is no such place: {first_line(error)}",
            "name a folder or a .tar.gz",
        ) from error
    if is_behind_link:
        raise Refused(
            403,
            "Adapters are not followed through links.",
            "name the place itself",
        )
    if not is_there:
        raise Refused(
            424,
            f"There is nothing at {place}.",
            "copy the adapter there first",
        )
    return place


def require_plain(place: Path) -> None:
    """Raise Refused(424) for what is neither a file nor a folder of plain files of the kinds that an adapter has."""
    if place.is_file():
        return
    advice = "copy the adapter's own files alone, weights as safetensors"
    if not place.is_dir():
        raise Refused(
            424,
            f"{place.name} is neither a folder nor a file.",
            advice,
        )
    for number, path in enumerate(place.rglob("*")):
        if number > MOST_FILES:
            raise Refused(
                424,
                f"{place.name} has more than {MOST_FILES} files.",
                advice,
            )
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Refused(
                403,
                f"{path.name} is a link, or no plain file.",
                advice,
            )
        if path.is_file() and path.suffix not in SUFFIXES and not path.name.startswith("."):
            raise Refused(
                424,
                f"{path.name} is no file of an adapter: it may hold code.",
                advice,
            )


def status_of(error: TrainingError) -> int:
    """Return the status for an adapter that cannot be used: no room for it, or a fault of its own."""
    return 507 if error.kind in NO_ROOM else 424


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
        raise Refused(
            404,
            f"There is no adapter {json.dumps(name)}.",
            "GET /adapters lists those that there are",
        )
    return registered


def described(state: State, registered: Registered) -> dict[str, Any]:
    """Return what is said of an adapter."""
    manifest = registered.manifest
    return {
        "name": registered.name,
        "sha256": registered.sha256,
        "kind": manifest.kind,
        "trigger": manifest.trigger,
        "in_memory": registered.key in state.service.cache,
    }
