"""Requests for images: let in or refused at once, drawn by the thread that draws, answered whole or step by step."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from PIL import Image

from entrypoints.runtime.failures import TrainingError, failure_of
from entrypoints.serving.answers import EVENTS, JSON, Answer, answer, encoded, media_type_of
from entrypoints.serving.bodies import (
    OPENAI_BODY,
    OWN_BODY,
    Asked,
    BodyError,
    DefaultsOf,
    read_invocation,
    read_openai,
    with_adapter,
)
from entrypoints.serving.incoming import Body, Waiting, late
from entrypoints.serving.service import NO_ROOM, Prepared, UnknownAdapterError
from entrypoints.serving.state import Admission, Refused, State, broken, one_header, state_of
from entrypoints.serving.worker import Cancelled, Drawn, Expired, ImageOrder
from orchestrator.contract.generation import Generation

ADAPTER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
"""Names the adapter of a request that SageMaker routed to an adapter component."""
MOST_PIXELS = 2**26
"""Of the images of a request: all of them are kept until the last one is drawn."""
SMALL_BYTES = 2**16
"""Of a body that is read at once; others are read beside what else the server answers."""
MOST_PREVIEWS = 128
"""That wait for a client; the oldest ones go where it reads slowly."""
LATE_SECONDS = 1.0
"""After its deadline, in which the thread that draws may still say itself that a request is late."""
_OF_THE_REQUEST = ("control", "conditions", "image", "prompt", "steps")
"""Kinds of failures of what a request brought along."""


class Preview(NamedTuple):
    """An image that is not finished."""

    number: int
    """Of the image in its request."""
    step: int
    """Steps that were taken."""
    picture: str
    """JPEG, in base64."""


def add_drawing_routes(app: FastAPI) -> None:
    """Add the routes to an application."""
    app.add_api_route(
        "/invocations",
        invocations,
        methods=["POST"],
        openapi_extra=OWN_BODY,
    )
    app.add_api_route(
        "/v1/images/generations",
        openai_images,
        methods=["POST"],
        openapi_extra=OPENAI_BODY,
    )


async def invocations(request: Request) -> Response:
    """Draw what a body of ours or JumpStart's asks for."""
    state = state_of(request)
    return await answered(request, state, read_invocation)


async def openai_images(request: Request) -> Response:
    """Draw what a body of OpenAI's images asks for."""
    state = state_of(request)
    return await answered(request, state, read_openai)


async def answered(
    request: Request,
    state: State,
    read: Callable[[bytes, DefaultsOf], Asked],
) -> Response:
    """Read a request, have it drawn and answer it; raises Refused."""
    state.require_room()  # before its body is read
    waiting = Waiting(request, state)
    with ExitStack() as share:  # what the request holds until it is answered
        body = share.enter_context(Body(state))
        content = await body.read(request)
        share.enter_context(waiting)
        asked = await waiting.result_of(asked_in(request, state, content, read))
        admission = admitted(state, asked.generation)
        share.callback(admission.end)
        prepared = await waiting.result_of(prepared_for(state, asked))
        drawing = Drawing(state, waiting, asked, prepared)
        share.callback(drawing.end)
        drawing.begin()
        if asked.preview:
            # A client that does not read keeps its own answer waiting, and no other request.
            result = asyncio.create_task(drawing.answer(JSON))
            result.add_done_callback(partial(give_back, share.pop_all()))
            return StreamingResponse(drawing.events(result), media_type=EVENTS)
        made = await drawing.answer(asked.media_type)
    return Response(made.content, media_type=made.media_type, headers=made.headers)


def give_back(share: ExitStack, result: "asyncio.Task[Answer]") -> None:
    """Give back what a request has held, whether somebody still reads what came of it or not."""
    share.close()
    if not result.cancelled():
        result.exception()  # asyncio reports what nobody has asked for


async def asked_in(
    request: Request,
    state: State,
    content: bytes,
    read: Callable[[bytes, DefaultsOf], Asked],
) -> Asked:
    """Return what a body and its headers ask for; raises Refused(422), and Refused(406) for the media type."""
    named = one_header(request, ADAPTER_HEADER)
    defaults_of = partial(state.service.defaults_for, named)
    try:
        if len(content) > SMALL_BYTES:
            asked = await asyncio.to_thread(read, content, defaults_of)
        else:
            asked = read(content, defaults_of)
        asked = with_adapter(asked, named)
    except BodyError as error:
        raise Refused(
            422,
            str(error),
            error.problems[0].fix,
        ) from error
    try:
        media_type = media_type_of(request.headers.get("accept"), asked)
    except ValueError as error:
        raise Refused(406, str(error)) from error
    return asked._replace(media_type=media_type, preview=media_type == EVENTS)


def admitted(state: State, wanted: Generation) -> Admission:
    """Let a request into the queue; raises Refused when its images are too large, or the queue is full."""
    images = len(wanted.images)
    width, height = wanted.shape
    pixels = images * width * height
    if pixels > MOST_PIXELS:
        raise Refused(
            422,
            f"{images} images of {width}x{height} are more than {MOST_PIXELS:,} pixels.",
            "ask for fewer or smaller images",
        )
    state.require_room(images)
    return Admission(state, images, float(pixels * wanted.steps))


async def prepared_for(state: State, asked: Asked) -> Prepared:
    """Read what a request needs; raises Refused."""
    try:
        return await state.service.prepare(asked.generation)
    except UnknownAdapterError as error:
        raise Refused(
            422,
            str(error),
            "GET /adapters lists those that there are",
        ) from error
    except TrainingError as error:
        raise refused(error) from error


class Drawing:
    """A request that is drawn."""

    def __init__(
        self,
        state: State,
        waiting: Waiting,
        asked: Asked,
        prepared: Prepared,
    ) -> None:
        self.state = state
        self.waiting = waiting
        self.asked = asked
        self.prepared = prepared
        self.loop = asyncio.get_running_loop()
        self.futures: list[asyncio.Future[Drawn]] = []
        for _ in asked.generation.images:
            self.futures.append(self.loop.create_future())
        self.previews: asyncio.Queue[Preview] = asyncio.Queue(MOST_PREVIEWS)
        self.orders: Sequence[ImageOrder] = ()

    def begin(self) -> None:
        """Put the images into the queue."""
        preview = self._shown if self.asked.preview else None
        self.orders = self.prepared.orders(self.waiting.deadline, self._done, preview)
        self.state.drawing.order(self.orders)

    async def answer(self, media_type: str) -> Answer:
        """Return the answer when all is drawn; raises Refused."""
        try:
            drawn = await self.waiting.result_of(asyncio.gather(*self.futures), LATE_SECONDS)
        except Expired as error:
            raise late() from error
        except TrainingError as error:
            raise refused(error) from error
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            raise refused(failure) from error
        self.state.drawn += len(drawn)
        self.state.metrics.images.inc(len(drawn))
        try:
            return await asyncio.to_thread(
                answer,
                self.asked,
                self.prepared.adapters,
                drawn,
                media_type,
            )
        except ValueError as error:
            raise Refused(406, str(error)) from error

    async def events(self, result: "asyncio.Task[Answer]") -> AsyncIterator[bytes]:
        """Yield server-sent events: `preview` for each step of each image, then `result`, or `error`."""
        try:
            while not result.done() or not self.previews.empty():
                coming = asyncio.create_task(self.previews.get())
                await asyncio.wait([result, coming], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    continue
                yield event("preview", json.dumps(coming.result()._asdict()))
            try:
                made = result.result()
            except Exception as error:
                refusal = error if isinstance(error, Refused) else broken(error)
                described = {"message": refusal.message, "code": refusal.status, "next": refusal.next_step}
                yield event("error", json.dumps({"error": described}))
                if refusal is not error:
                    raise  # for the log
            else:
                yield event("result", made.content.decode())
        finally:
            result.cancel()

    def end(self) -> None:
        """Have nothing more drawn."""
        for order in self.orders:
            order.cancelled.set()
        for future in self.futures:
            future.cancel()

    def _done(self, number: int, result: Drawn | Exception) -> None:
        """Hand over an image; for the thread that draws."""
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self.loop.call_soon_threadsafe(settle, self.futures[number], result)

    def _shown(
        self,
        number: int,
        step: int,
        image: Image.Image,
    ) -> None:
        """Hand over how an image looks; for the thread that draws."""
        picture = base64.b64encode(encoded(image, "JPEG")).decode("ascii")
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(offer, self.previews, Preview(number, step, picture))


def offer(previews: "asyncio.Queue[Preview]", preview: Preview) -> None:
    """Put a preview into a queue, whose oldest one makes room."""
    if previews.full():
        previews.get_nowait()
    previews.put_nowait(preview)


def event(kind: str, data: str) -> bytes:
    """Return a server-sent event: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    return f"event: {kind}\ndata: {data}\n\n".encode()


def refused(error: TrainingError) -> Refused:
    """Return the answer to a failure: of the request itself, of its adapters, or for want of room."""
    status = 424
    if error.kind in NO_ROOM:
        status = 507
    elif error.kind in _OF_THE_REQUEST:
        status = 422
    return Refused(status, error.message, error.next_step)


def settle(future: "asyncio.Future[Drawn]", result: Drawn | Exception) -> None:
    """Give a future its result, unless nobody waits for it any more."""
    if future.done():
        return
    if isinstance(result, Cancelled):
        future.cancel()
    elif isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
