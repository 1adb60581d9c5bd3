"""Clients that people have already, against the server as a process on loopback."""

import base64
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import tiny
from huggingface_hub import InferenceClient, close_session
from openai import AuthenticationError, OpenAI, UnprocessableEntityError
from PIL import Image
from server_process import TOKEN, Process

from orchestrator.contract.serving import ServerOrder

PROMPT = "a photo of a dog"


@pytest.fixture(scope="module")
def running(base_folder: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    root = tmp_path_factory.mktemp("root")
    dog = shutil.copytree(finished / "dog", root / "dog")
    process = Process(
        ServerOrder(
            base_model="tiny",
            base_folder=base_folder,
            adapters={"dog": dog},
            root=root,
            port=0,
            token=TOKEN,
            rows=8,
        )
    )
    process.until_ready()
    yield process
    process.close()


def ours(running: Process, adapter: str | None) -> bytes:
    """Return the image of a request of our own."""
    body = {
        "inputs": PROMPT,
        "parameters": {"seed": 5, "num_inference_steps": 2, "width": tiny.SIDE, "guidance_scale": 5.0},
        "adapters": [{"name": adapter}] if adapter else [],
    }
    with running.client() as client:
        answer = client.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    return base64.b64decode(answer.json()["images"][0]["image"])


def same(image: Image.Image, expected: bytes) -> bool:
    with Image.open(BytesIO(expected)) as other:
        return list(image.convert("RGB").getdata()) == list(other.convert("RGB").getdata())


@pytest.mark.parametrize("adapter", [None, "dog"])
def test_hugging_faces_client_draws_with_and_without_an_adapter(running: Process, adapter: str | None) -> None:
    client = InferenceClient(f"{running.url}/invocations", token=TOKEN)
    image = client.text_to_image(
        PROMPT,
        seed=5,
        num_inference_steps=2,
        width=tiny.SIDE,
        height=tiny.SIDE,
        guidance_scale=5.0,
        scheduler="DDIMScheduler",
        extra_body={"adapters": [{"name": adapter}]} if adapter else None,
    )
    close_session()
    assert same(image, ours(running, adapter))


def openai(running: Process, token: str = TOKEN) -> OpenAI:
    return OpenAI(base_url=f"{running.url}/v1", api_key=token, max_retries=0)


@pytest.mark.parametrize(("model", "adapter"), [("tiny", None), ("dog", "dog")])
def test_openais_client_draws_with_the_base_model_and_with_an_adapter(
    running: Process, model: str, adapter: str | None
) -> None:
    size: Any = f"{tiny.SIDE}x{tiny.SIDE}"
    with openai(running) as client:
        made = client.images.generate(
            model=model,
            prompt=PROMPT,
            n=1,
            size=size,
            response_format="b64_json",
            extra_body={"seed": 5, "num_inference_steps": 2, "guidance_scale": 5.0},
        )
    with Image.open(BytesIO(base64.b64decode(made.data[0].b64_json))) as image:
        assert same(image, ours(running, adapter))


def test_openais_client_reads_our_refusals(running: Process) -> None:
    with openai(running) as client, pytest.raises(UnprocessableEntityError, match='no adapter "dgo"'):
        client.images.generate(model="dgo", prompt=PROMPT)
    with openai(running, "wrong") as client, pytest.raises(AuthenticationError, match="asks for its token"):
        client.images.generate(prompt=PROMPT)


def test_who_leaves_in_the_middle_of_a_stream_is_drawn_for_no_longer(running: Process) -> None:
    body = {"inputs": PROMPT, "parameters": {"num_inference_steps": 900, "width": tiny.SIDE}, "stream": True}
    with running.client() as client:
        with client.stream("POST", "/invocations", json=body) as answer:
            assert next(answer.iter_lines()) == "event: preview"
        while client.get("/status").json()["admitted"]:
            pass
        while client.get("/status").json()["drawing"]:
            pass
        assert client.get("/status").json()["last_used"] < 60


def test_sagemakers_own_adapter_contract_is_answered_as_by_its_library(running: Process) -> None:
    from fastapi import FastAPI, Request, Response
    from fastapi.testclient import TestClient
    from model_hosting_container_standards import sagemaker

    @sagemaker.register_load_adapter_handler(request_shape={"name": "body.name"}, response_shape={})
    async def load(data: object, raw: Request) -> Response:
        return Response(status_code=200)

    @sagemaker.register_unload_adapter_handler(request_shape={"name": "path_params.adapter_name"}, response_shape={})
    async def unload(data: object, raw: Request) -> Response:
        return Response(status_code=200)

    theirs = TestClient(sagemaker.bootstrap(FastAPI()))
    root = Path(running.root)
    alias = {"X-Amzn-SageMaker-Adapter-Alias": "friendly"}
    with running.client() as client:
        for one in (theirs, client):
            one.headers["accept"] = "*/*"
        for call in (
            ("POST", "/adapters", {"json": {"name": "x", "src": str(root / "dog")}}),
            ("POST", "/adapters", {"json": {"name": "x", "src": str(root / "dog")}, "headers": alias}),
            ("POST", "/adapters", {"params": {"name": "x", "src": str(root / "dog"), "preload": "true"}}),
            ("DELETE", "/adapters/x", {"headers": alias}),
        ):
            method, path, more = call
            expected = theirs.request(method, path, **more)
            answer = client.request(method, path, **more)
            assert (answer.status_code, answer.text) == (expected.status_code, expected.text), call
        wrong = {"json": {"name": "x"}}
        assert theirs.request("POST", "/adapters", **wrong).is_client_error
        assert client.request("POST", "/adapters", **wrong).is_client_error
