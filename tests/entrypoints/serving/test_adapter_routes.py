"""Adapters over HTTP: the wire contract of SageMaker's adapter components, and what never changes under a request."""

import asyncio
import json
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from asked_app import ROUNDED, Server, body, far, images_of, until

from orchestrator.contract.adapter import LORA_FILE, MANIFEST_FILE, AdapterManifest

JSON_FORM, QUERY_FORM = "json", "params"
ALIAS = {"X-Amzn-SageMaker-Adapter-Alias": "my dog"}
IDENTIFIER = "X-Amzn-SageMaker-Adapter-Identifier"


@pytest.fixture
def sea(finished: Path, tmp_path: Path) -> Path:
    """An adapter below the root that is not registered."""
    return shutil.copytree(finished / "sea", tmp_path / "sea")


def pack(folder: Path) -> Path:
    path = folder.with_name(f"{folder.name}.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=".")
    return path


def drawn_with(server: Server, name: str) -> tuple[list[bytes], str]:
    answer = server.post("/invocations", body(adapters=[{"name": name}]))
    return images_of(answer), answer.json()["adapters"][0]["sha256"]


@pytest.mark.parametrize("form", [JSON_FORM, QUERY_FORM])
@pytest.mark.parametrize("packed", [False, True])
def test_an_adapter_is_registered_drawn_with_and_forgotten(server: Server, sea: Path, form: str, packed: bool) -> None:
    place = pack(sea) if packed else sea
    for src in (str(place), place.name):
        made = server.ask("POST", "/adapters", headers=ALIAS, **{form: {"name": "team/sea", "src": src}})
        assert (made.status_code, made.text) == (200, "Adapter my dog registered")
    shown = server.ask("GET", "/adapters/team/sea").json()
    sha256 = AdapterManifest.read(sea).files_sha256
    assert (shown["sha256"], shown["kind"], shown["in_memory"]) == (sha256, "lora", True)
    names = [one["name"] for one in server.ask("GET", "/adapters").json()["adapters"]]
    assert names == ["dog", "ink", "team/sea"]
    assert drawn_with(server, "team/sea")[1] == sha256
    gone = server.ask("DELETE", "/adapters/team/sea", headers=ALIAS)
    assert (gone.status_code, gone.text) == (200, "Adapter my dog unregistered")
    assert server.ask("DELETE", "/adapters/team/sea").status_code == 404
    assert server.ask("GET", "/adapters/team/sea").status_code == 404


def test_who_registers_a_name_again_replaces_it_for_new_requests(server: Server, sea: Path) -> None:
    before, old = drawn_with(server, "dog")
    assert server.post("/adapters", {"name": "dog", "src": "sea"}).status_code == 200
    after, new = drawn_with(server, "dog")
    assert new == AdapterManifest.read(sea).files_sha256 != old
    assert far(before, after) > ROUNDED


@pytest.mark.parametrize("damage", ["no manifest", "changed weights", "other base model"])
def test_an_adapter_that_cannot_be_read_leaves_the_one_of_its_name(server: Server, sea: Path, damage: str) -> None:
    before, old = drawn_with(server, "dog")
    if damage == "no manifest":
        (sea / MANIFEST_FILE).unlink()
    elif damage == "changed weights":
        (sea / LORA_FILE).write_bytes((sea / LORA_FILE).read_bytes()[:-1] + b"!")
    else:
        manifest = AdapterManifest.read(sea)
        other = manifest.base_model.model_copy(update={"fingerprint": "another"})
        manifest.model_copy(update={"base_model": other}).write(sea)
    answer = server.post("/adapters", {"name": "dog", "src": "sea"})
    assert answer.status_code == 424
    assert answer.json()["error"]["next"]
    assert drawn_with(server, "dog") == (before, old)


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_request_in_flight_goes_on_with_the_adapter_it_began_with(server: Server, sea: Path, change: str) -> None:
    asked = body(adapters=[{"name": "dog"}], parameters={"seed": 1, "num_inference_steps": 50})
    expected = server.post("/invocations", asked)

    async def meanwhile(client: httpx.AsyncClient) -> httpx.Response:
        task = asyncio.create_task(client.post("/invocations", json=asked))
        await until(lambda: server.state.drawing.drawing)
        if change == "replaced":
            made = await client.post("/adapters", json={"name": "dog", "src": "sea"})
        else:
            made = await client.delete("/adapters/dog")
        assert made.status_code == 200
        assert server.state.drawing.drawing == 1  # it was changed in time
        return await task

    answer = server.run(meanwhile)
    assert far(images_of(answer), images_of(expected)) <= ROUNDED
    assert answer.json()["adapters"] == expected.json()["adapters"]


def test_the_header_adds_its_adapter_to_those_of_the_body(server: Server) -> None:
    both = body(adapters=[{"name": "dog"}, {"name": "ink", "weight": 0.5}])
    expected = images_of(server.post("/invocations", both))
    added = server.post("/invocations", body(adapters=[{"name": "ink", "weight": 0.5}]), **{IDENTIFIER: "dog"})
    assert images_of(added) == expected
    named_twice = server.post("/invocations", both, **{IDENTIFIER: "ink"})
    assert images_of(named_twice) == expected
    of_openai = server.post("/v1/images/generations", {"prompt": "a dog", "seed": 1}, **{IDENTIFIER: "dog"})
    assert [one["name"] for one in of_openai.json()["adapters"]] == ["dog"]


def test_names_that_contradict_each_other_are_refused(server: Server) -> None:
    openai = server.post("/v1/images/generations", {"prompt": "a dog", "model": "ink"}, **{IDENTIFIER: "dog"})
    headers = [(IDENTIFIER, "dog"), (IDENTIFIER, "ink")]
    twice = server.ask("POST", "/invocations", json=body(), headers=headers)
    unknown = server.post("/invocations", body(), **{IDENTIFIER: "dgo"})
    assert [openai.status_code, twice.status_code, unknown.status_code] == [422, 422, 422]
    assert 'Did you mean "dog"' in unknown.json()["error"]["message"]


@pytest.mark.parametrize(
    ("src", "status"),
    [
        ("../outside", 403),
        ("/etc", 403),
        (".", 403),
        ("sea/../../outside", 403),
        ("linked", 403),
        ("linked/inner", 403),
        ("holds-link", 403),
        ("missing", 424),
        ("a" * 3000, 422),
        ("nul\0byte", 422),
        ("", 422),
    ],
)
def test_adapters_lie_below_the_root_and_behind_no_link(server: Server, sea: Path, src: str, status: int) -> None:
    root = server.state.root
    (root / "linked").symlink_to(sea)
    holds_link = shutil.copytree(sea, root / "holds-link")
    (holds_link / LORA_FILE).unlink()
    (holds_link / LORA_FILE).symlink_to(sea / LORA_FILE)
    answer = server.post("/adapters", {"name": "x", "src": src})
    assert answer.status_code == status, answer.text
    assert server.state.service.library.find("x") is None


@pytest.mark.parametrize("name", ["weights.bin", "weights.pt", "model.py", "requirements.txt.sh"])
def test_folders_with_files_that_may_hold_code_are_refused(server: Server, sea: Path, name: str) -> None:
    (sea / name).write_bytes(b"x")
    AdapterManifest.read(sea).write(sea)
    answer = server.post("/adapters", {"name": "x", "src": "sea"})
    assert answer.status_code == 424
    assert name in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "sent", [b"", b"[]", b'{"name": "x"}', b'{"src": "sea"}', b"{", json.dumps({"name": 1}).encode()]
)
def test_a_registration_that_says_too_little_is_refused_with_what_to_send(server: Server, sent: bytes) -> None:
    answer = server.ask("POST", "/adapters", content=sent)
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]


def test_an_adapter_that_is_not_preloaded_is_read_when_it_is_asked_for(server: Server, sea: Path) -> None:
    reads = server.state.service.cache.reads
    assert server.ask("POST", "/adapters", params={"name": "x", "src": "sea", "preload": "false"}).status_code == 200
    assert server.state.service.cache.reads == reads
    assert not server.ask("GET", "/adapters/x").json()["in_memory"]
    assert drawn_with(server, "x")[1] == AdapterManifest.read(sea).files_sha256


def test_two_adapters_of_the_same_files_that_are_read_in_different_ways_are_two(server: Server, sea: Path) -> None:
    assert server.post("/adapters", {"name": "x", "src": "sea"}).status_code == 200
    values: dict[str, Any] = {"kind": "embedding", "trigger": "<sea>"}
    claimed = AdapterManifest.read(sea).model_copy(update=values)
    (sea / MANIFEST_FILE).write_text(claimed.model_dump_json())
    answer = server.post("/adapters", {"name": "y", "src": "sea"})
    assert answer.status_code == 424  # and not what lies in the cache for the same files


def test_archives_make_room_on_disk_and_are_unpacked_again_when_asked_for(server: Server, finished: Path) -> None:
    disk = server.state.service.disk
    for name in ("dog", "ink", "sea"):
        pack(shutil.copytree(finished / name, server.state.root / f"{name}-copy"))
        server.post("/adapters", {"name": name, "src": f"{name}-copy.tar.gz"})
        disk.limit = 2 * disk.bytes if name == "dog" else disk.limit
    assert disk.evictions == 1
    assert sum(path.is_dir() for path in disk.folder.iterdir()) == 2
    server.state.service.cache._held.clear()
    drawn_with(server, "dog")
    assert (disk.reads, disk.evictions) == (4, 2)


def test_an_adapter_that_many_ask_for_is_read_once_and_who_gives_up_takes_it_from_nobody(server: Server) -> None:
    service = server.state.service
    registered = service.library.find("dog")
    assert registered is not None
    busy = threading.Event()
    for _ in range(2):  # all readers
        service.cache.readers.submit(busy.wait)

    async def together(client: httpx.AsyncClient) -> list[httpx.Response]:
        gives_up = service.read(registered)
        asked = [
            asyncio.create_task(client.post("/invocations", json=body(adapters=[{"name": "dog"}]))) for _ in range(4)
        ]
        await until(lambda: service.cache.hits == 4)
        gives_up.cancel()
        await asyncio.sleep(0)
        busy.set()
        return await asyncio.gather(*asked)

    assert all(images_of(answer) for answer in server.run(together))
    assert service.cache.reads == 1
