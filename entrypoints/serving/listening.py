"""Listening, and ending: a signal stops new requests, waits for those that were admitted, and only then the server."""

import asyncio
import signal
import socket
from types import FrameType

import uvicorn

from entrypoints.serving.app import make_app
from entrypoints.serving.state import DRAIN_SECONDS, State
from orchestrator.contract.events import Listening, emit

KEEP_ALIVE_SECONDS = 75
"""Of an idle connection: longer than SageMaker's, so that it is never closed under a request."""
LOOK_SECONDS = 0.05
"""Between two looks whether all is answered, or loading has failed."""

LAST_SECONDS = 2.0
"""For errors to requests that were not drawn in time, and again for connections to close."""


class Draining(uvicorn.Server):
    """A server that answers what it has admitted before it ends."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self.state = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take no more requests; a second signal ends the server at once."""
        if self.state.draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
        self.state.draining = True


async def listen(
    state: State,
    host: str,
    port: int,
) -> None:
    """Answer requests until a signal has come and all is answered, or loading the base model has failed."""
    config = uvicorn.Config(
        make_app(state),
        host=host,
        port=port,
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(LAST_SECONDS),
        server_header=False,
    )
    server = Draining(config, state)
    ending = asyncio.create_task(end_when_done(server, state))
    with config.bind_socket() as bound:
        # An answer goes out in two writes. asyncio sees to this itself only for sockets that name their protocol.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        emit(Listening(host=host, port=bound.getsockname()[1]))
        await server.serve(sockets=[bound])
    ending.cancel()


async def end_when_done(server: uvicorn.Server, state: State) -> None:
    """End the server when it drains and has answered everything, or when it cannot load.

    What cannot be drawn in time is answered with an error.
    """
    loop = asyncio.get_running_loop()
    while not (state.draining or state.failure):  # noqa: ASYNC110 - set by a signal and by another thread
        await asyncio.sleep(LOOK_SECONDS)
    last = loop.time() + DRAIN_SECONDS - 2 * LAST_SECONDS
    while state.admitted and loop.time() < last:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)
    state.close()
    last = loop.time() + LAST_SECONDS
    while state.admitted and loop.time() < last:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)
    server.should_exit = True
