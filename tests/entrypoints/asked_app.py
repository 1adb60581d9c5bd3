"""A server over HTTP in this process, with the real engine on the smallest model, and what tests ask of it."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

import httpx
import numpy as np
from PIL import Image

from entrypoints.serving.app import make_app
from entrypoints.serving.state import State

STEPS = 2
ROUNDED = 1
Calls = Callable[[httpx.AsyncClient], Awaitable[Any]]


class Server:
    def __init__(self, state: State) -> None:
        self.state = state
        self.app = make_app(state)

    def run(self, calls: Calls) -> Any:
        async def within() -> Any:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await calls(client)

        return asyncio.run(within())

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        answer: httpx.Response = self.run(lambda client: client.request(method, path, **more))
        return answer

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        return self.ask("POST", path, json=body, headers=headers)


def images_of(answer: httpx.Response) -> list[bytes]:
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(one["image"]) for one in answer.json()["images"]]


def far(one: list[bytes], other: list[bytes]) -> int:
    """Return the largest difference of two answers' first images, of 255: another batch rounds differently."""
    pixels = []
    for images in (one, other):
        with Image.open(BytesIO(images[0])) as image:
            pixels.append(np.asarray(image, dtype=int))
    return int(np.abs(pixels[0] - pixels[1]).max())


async def until(happens: Callable[[], bool]) -> None:
    """Return when something has happened in the thread that draws, which no event tells of."""
    while not happens():  # noqa: ASYNC110
        await asyncio.sleep(0)


def body(seed: int = 1, **fields: Any) -> dict[str, Any]:
    return {"inputs": "a photo of a dog", "parameters": {"seed": seed}, **fields}
