"""The server over HTTP, with the real engine on the smallest model."""

import asyncio
import base64
import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from asked_app import ROUNDED, Server, body, far, images_of, until
from fastapi import Request
from PIL import Image

from entrypoints.serving import worker
from entrypoints.serving.drawing_routes import ADAPTER_HEADER
from entrypoints.serving.state import Refused, State, require_token
from orchestrator.contract.adapter import AdapterManifest


def test_requests_with_different_adapters_get_their_own_images_at_the_same_time(server: Server) -> None:
    asked = [body(), body(adapters=[{"name": "dog"}]), body(adapters=[{"name": "ink", "weight": 0.5}])] * 3
    alone = [images_of(server.post("/invocations", one)) for one in asked[:3]]
    assert min(far(alone[0], alone[1]), far(alone[0], alone[2]), far(alone[1], alone[2])) > ROUNDED

    async def together(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/invocations", json=one) for one in asked))

    answers = server.run(together)
    for answer, expected in zip(answers, alone * 3, strict=True):
        assert far(images_of(answer), expected) <= ROUNDED
    largest = max(answer.json()["images"][0]["largest_batch"] for answer in answers)
    assert largest > 1


def test_an_answer_names_seed_and_hash_of_what_it_was_drawn_with(server: Server, tmp_path: Path) -> None:
    answer = server.post("/invocations", body(adapters=[{"name": "dog", "weight": 0.7}])).json()
    expected = AdapterManifest.read(tmp_path / "dog").files_sha256
    assert answer["adapters"] == [{"name": "dog", "weight": 0.7, "sha256": expected}]
    assert answer["images"][0]["seed"] == 1
    assert answer["images"][0]["generations"] == [1]


@pytest.mark.parametrize("by_header", [False, True])
def test_an_adapter_is_drawn_with_as_its_recipe_did_unless_the_request_says_otherwise(
    server: Server, tmp_path: Path, by_header: bool
) -> None:
    config = {"inference_steps": 3, "guidance_scale": 2.0, "resolution": 2 * tiny.SIDE}
    manifest = AdapterManifest.read(tmp_path / "dog")
    manifest.model_copy(update={"config": config, "files": {}}).write(tmp_path / "dog")
    server.state.service.library.register("dog", tmp_path / "dog")
    named = {} if by_header else {"adapters": [{"name": "dog"}]}
    headers = {ADAPTER_HEADER: "dog"} if by_header else {}
    said = {"num_inference_steps": 3, "guidance_scale": 2.0, "width": 2 * tiny.SIDE, "height": 2 * tiny.SIDE}
    plain = server.post("/invocations", body(**named), **headers)
    spelled = server.post("/invocations", body(**named, parameters={"seed": 1, **said}), **headers)
    assert images_of(plain) == images_of(spelled)
    (png,) = images_of(plain)
    with Image.open(BytesIO(png)) as image:
        assert image.size == (2 * tiny.SIDE, 2 * tiny.SIDE)


@pytest.mark.parametrize(("accept", "kind"), [("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/webp", "WEBP")])
def test_one_image_comes_as_bytes_to_who_asks_for_them(server: Server, accept: str, kind: str) -> None:
    answer = server.post("/invocations", body(adapters=[{"name": "dog"}]), accept=accept)
    assert answer.headers["content-type"] == accept
    about = json.loads(answer.headers["x-orchestrator-image"])
    assert (about["seed"], about["adapters"][0]["name"], about["generations"]) == (1, "dog", [1])
    with Image.open(BytesIO(answer.content)) as image:
        assert (image.format, image.size) == (kind, (tiny.SIDE, tiny.SIDE))


def test_what_is_said_of_an_image_fits_into_a_header_whatever_its_adapters_are_called(server: Server) -> None:
    used = []
    for number in range(8):
        name = "é" * 900 + str(number)
        assert server.post("/adapters", {"name": name, "src": "dog"}).status_code == 200
        used.append({"name": name, "weight": number / 8})
    server.state.drawing.slots.slots = 8
    answer = server.post("/invocations", body(adapters=used), accept="image/png")
    assert answer.status_code == 200, answer.text
    text = answer.headers["x-orchestrator-image"]
    assert len(text) <= 4096
    about = json.loads(text)
    assert about["seed"] == 1
    assert [one["weight"] for one in about["adapters"]] == [one["weight"] for one in used]
    assert all(len(one["sha256"]) == 64 for one in about["adapters"])


@pytest.mark.parametrize("accept", ["image/é".encode("latin-1"), b"\xed\xa0\x80"])
def test_an_accept_header_that_is_no_text_is_refused(server: Server, accept: bytes) -> None:
    answer = server.ask("POST", "/invocations", json=body(), headers=[(b"accept", accept)])
    assert answer.status_code == 406
    assert answer.json()["error"]["message"]


def test_clients_of_other_servers_get_the_shape_that_they_know(server: Server) -> None:
    (ours,) = images_of(server.post("/invocations", body()))
    jumpstart = server.post("/invocations", {"prompt": "a photo of a dog", "seed": 1}).json()
    openai = server.post("/v1/images/generations", {"prompt": "a photo of a dog", "seed": 1}).json()
    assert base64.b64decode(jumpstart["generated_images"][0]) == ours
    assert base64.b64decode(openai["data"][0]["b64_json"]) == ours


def test_images_of_several_shapes_are_drawn_at_once_and_share_steps_with_those_of_their_own(server: Server) -> None:
    wide, tall, square = (96, 64), (64, 96), (64, 64)
    shapes = [wide, tall, square, wide, tall, square]
    asked = []
    for width, height in shapes:
        asked.append(body(parameters={"seed": 1, "width": width, "height": height}))
    alone = [images_of(server.post("/invocations", one)) for one in asked[:3]]

    async def together(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/invocations", json=one) for one in asked))

    drawing = server.state.drawing
    drawing._admit = once_all_wait(drawing, len(asked))  # type: ignore[method-assign]
    answers = server.run(together)
    for shape, answer, expected in zip(shapes, answers, alone * 2, strict=True):
        images = images_of(answer)
        with Image.open(BytesIO(images[0])) as image:
            assert image.size == shape
        assert far(images, expected) <= ROUNDED
        assert answer.json()["images"][0]["largest_batch"] == 2


@pytest.mark.parametrize(
    ("sent", "status", "named"),
    [
        ({"inputs": "x", "parameters": {"num_inference_step": 1}}, 422, "num_inference_step"),
        ({"inputs": "x", "adapters": [{"name": "dgo"}]}, 422, 'Did you mean "dog"'),
        ({"inputs": "x", "image": base64.b64encode(b"no picture").decode()}, 422, "cannot be decoded"),
    ],
)
def test_what_a_client_did_wrong_is_said_with_its_status(
    server: Server, sent: dict[str, Any], status: int, named: str
) -> None:
    answer = server.post("/invocations", sent)
    assert answer.status_code == status
    assert named in answer.json()["error"]["message"]


def picture(width: int, height: int) -> str:
    file = BytesIO()
    Image.new("RGB", (width, height), "white").save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_a_mask_of_another_shape_than_its_picture_is_refused_by_both_sizes(server: Server) -> None:
    answer = server.post("/invocations", body(image=picture(64, 64), mask=picture(96, 64)))
    assert answer.status_code == 422
    assert "The mask is 96x64, and its picture 64x64" in answer.json()["error"]["message"]
    assert images_of(server.post("/invocations", body(image=picture(64, 48), mask=picture(128, 96))))


def test_a_damaged_adapter_is_refused_and_others_go_on(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "dog" / "pytorch_lora_weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    answer = server.post("/invocations", body(adapters=[{"name": "dog"}]))
    assert answer.status_code == 424
    assert "damaged" in answer.json()["error"]["message"]
    assert server.post("/invocations", body(adapters=[{"name": "ink"}])).status_code == 200


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(server: Server) -> None:
    server.state.most_waiting = 3
    answer = server.post("/invocations", body(parameters={"num_images_per_prompt": 4}))
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_only_ping_answers_without_the_token(server: Server) -> None:
    server.state.token = "secret"  # noqa: S105
    assert server.post("/invocations", body()).status_code == 401
    assert server.post("/invocations", body(), authorization="Bearer wrong").status_code == 401
    assert server.post("/invocations", body(), authorization="Bearer secret").status_code == 200
    routes = {route.path for route in server.app.routes}
    assert {"/ping", "/status", "/metrics", "/adapters", "/openapi.json"} <= routes
    for path in routes - {"/ping"}:
        answers = [server.ask(method, path) for method in ("GET", "POST", "DELETE")]
        assert {answer.status_code for answer in answers} <= {401, 405}, path
    assert server.run(lambda client: client.get("/ping")).status_code == 200


def test_the_token_is_asked_for_by_the_path_that_is_routed(server: Server) -> None:
    server.state.token = "secret"  # noqa: S105
    # Whoever makes an URL of a request leaves tabs away, or takes the host for a part of the path.
    scope = {"type": "http", "path": "/\tping", "headers": [], "app": server.app, "query_string": b""}
    request = Request(scope)
    assert request.url.path == "/ping"
    with pytest.raises(Refused):
        asyncio.run(require_token(request))


def test_who_goes_away_before_its_body_is_read_is_no_fault_of_the_server(server: Server) -> None:
    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": [], "query_string": b""}
    sent = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(server.app(scope, receive, send))
    assert sent[0]["status"] == 499


def test_an_image_that_cannot_be_drawn_ends_no_other_of_its_batch(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = server.state.drawing.engine
    step = engine.step
    sizes = []

    def failing(samples: Any) -> None:
        sizes.append(len(samples))
        if any(sample.request.seed == 13 and sample.step for sample in samples):
            raise ValueError("of this image alone")
        step(samples)

    async def together(client: httpx.AsyncClient) -> list[Any]:
        calls = [client.post("/invocations", json=body(seed)) for seed in (1, 13, 2)]
        return await asyncio.gather(*calls, return_exceptions=True)

    alone = images_of(server.post("/invocations", body(1)))
    monkeypatch.setattr(engine, "step", failing)
    monkeypatch.setattr(server.state.drawing, "_admit", once_all_wait(server.state.drawing, 3))
    first, faulty, other = server.run(together)
    assert max(sizes) == 3
    assert isinstance(faulty, ValueError)
    assert far(images_of(first), alone) <= ROUNDED
    assert images_of(other)


def test_a_fault_of_the_server_is_answered_in_the_shape_of_all_errors_and_counted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Any) -> None:
        raise ValueError("secrets of the server")

    monkeypatch.setattr(server.state.drawing.engine, "step", failing)

    async def calls() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=server.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            whole = await client.post("/invocations", json=body())
            streamed = await client.post("/invocations", json={**body(), "stream": True})
            return [whole, streamed]

    whole, streamed = asyncio.run(calls())
    assert (whole.status_code, whole.json()["error"]["code"]) == (500, 500)
    assert "secrets" not in whole.text
    last = streamed.text.strip().split("\n\n")[-1]
    assert last.startswith("event: error\n")
    assert json.loads(last.partition("data: ")[2])["error"]["code"] == 500
    counted = {"route": "/invocations", "status": "500"}
    assert server.state.metrics.registry.get_sample_value("orchestrator_requests_total", counted) == 1


def once_all_wait(drawing: worker.Worker, images: int) -> Callable[[], None]:
    """Return what begins images only when so many of them wait, so that they share each step."""
    admit = drawing._admit
    return lambda: admit() if drawing.waiting >= images else None


def test_who_goes_away_is_drawn_for_no_longer(server: Server) -> None:
    async def leave(client: httpx.AsyncClient) -> None:
        task = asyncio.create_task(client.post("/invocations", json=body(parameters={"num_inference_steps": 900})))
        await until(lambda: server.state.drawing.drawing)
        task.cancel()
        await until(lambda: not server.state.drawing.drawing)

    server.run(leave)
    assert server.post("/invocations", body()).status_code == 200


def test_status_says_what_was_drawn_and_for_how_long_nothing_was(server: Server) -> None:
    async def statuses(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        before = (await client.get("/status")).json()
        task = asyncio.create_task(client.post("/invocations", json=body(parameters={"num_images_per_prompt": 3})))
        await until(lambda: server.state.admitted)
        meanwhile = (await client.get("/status")).json()
        await task
        return [before, meanwhile, (await client.get("/status")).json()]

    before, meanwhile, after = server.run(statuses)
    assert (before["phase"], before["adapters"], before["drawn"]) == ("serving", 2, 0)
    assert (meanwhile["admitted"], meanwhile["last_used"]) == (1, 0)
    assert (after["admitted"], after["drawn"]) == (0, 3)
    assert 0 <= after["last_used"] < before["last_used"] + 60


def test_status_is_told_while_the_base_model_is_loaded(tmp_path: Path) -> None:
    answer = Server(State(tmp_path)).run(lambda client: client.get("/status"))
    assert answer.status_code == 200
    assert answer.json()["phase"] == "loading"


def test_a_negative_weight_takes_an_adapter_away(server: Server) -> None:
    weights = (1.0, 0.0, -1.0, -1.5)
    drawn = [images_of(server.post("/invocations", body(adapters=[{"name": "dog", "weight": one}]))) for one in weights]
    assert far(drawn[1], images_of(server.post("/invocations", body()))) <= ROUNDED
    for number, images in enumerate(drawn):
        for other in drawn[:number]:
            assert far(images, other) > ROUNDED


def test_images_wait_while_the_slots_are_held_by_others_and_none_is_refused(server: Server) -> None:
    server.state.drawing.slots.slots = 1
    asked = [body(adapters=[{"name": name}]) for name in ("dog", "ink") * 3]
    alone = [images_of(server.post("/invocations", one)) for one in asked[:2]]

    async def together(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/invocations", json=one) for one in asked))

    for answer, expected in zip(server.run(together), alone * 3, strict=True):
        assert far(images_of(answer), expected) <= ROUNDED
    assert len(server.state.drawing.slots) == 1
    both = server.post("/invocations", body(adapters=[{"name": "dog"}, {"name": "ink"}]))
    assert both.status_code == 507
    assert "by this request alone" in both.json()["error"]["message"]


def test_who_needs_more_slots_than_are_free_is_not_kept_waiting_by_those_who_need_fewer(
    server: Server, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 0.0)
    shutil.copytree(finished / "sea", server.state.root / "sea")
    assert server.post("/adapters", {"name": "sea", "src": "sea"}).status_code == 200
    server.state.drawing.slots.slots = 2
    ended: list[str] = []

    async def ask(client: httpx.AsyncClient, steps: int, *names: str) -> None:
        adapters = [{"name": name} for name in names]
        parameters = {"seed": 1, "num_inference_steps": steps}
        images_of(await client.post("/invocations", json=body(adapters=adapters, parameters=parameters)))
        ended.append("+".join(names))

    async def calls(client: httpx.AsyncClient) -> None:
        drawing = server.state.drawing
        first = asyncio.create_task(ask(client, 60, "sea"))
        await until(lambda: drawing.drawing)
        both = asyncio.create_task(ask(client, 2, "dog", "ink"))
        await until(lambda: drawing.waiting)
        again = asyncio.create_task(ask(client, 2, "sea"))  # its slot is there already
        await asyncio.gather(first, both, again)

    server.run(calls)
    assert ended == ["sea", "dog+ink", "sea"]
