"""Requests that follow pictures: which ControlNet with which map, and what is refused."""

import base64
import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import tiny
from asked_app import ROUNDED, Server, body, far, images_of
from made_adapters import fresh
from PIL import Image

from orchestrator.contract.adapter import CONTROLNET, AdapterManifest


def png(picture: Image.Image) -> str:
    file = BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def control(**fields: Any) -> dict[str, Any]:
    return {"network": "edges", "kind": "canny", "picture": png(tiny.random_image(0)), **fields}


@pytest.fixture(scope="session")
def edges(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ControlNet; tests only read it."""
    folder = tmp_path_factory.mktemp("controlnet") / "edges"
    base = fresh(base_folder)
    tiny.control_network(base).save_pretrained(folder)
    AdapterManifest(
        kind=CONTROLNET,
        parts=(),
        recipe="controlnet",
        config={"conditions": ["canny", "blur"]},
        base_model=base.reference,
        dataset_sha256="",
        bundle_sha256="",
        libraries={},
    ).write(folder)
    return folder


@pytest.fixture
def steered(server: Server, edges: Path) -> Server:
    """A server that knows the ControlNet under two names."""
    for name in ("edges", "other"):
        shutil.copytree(edges, server.state.root / name)
        assert server.post("/adapters", {"name": name, "src": name}).status_code == 200
    return server


def test_an_image_follows_the_picture_and_the_settings_of_each_control(steered: Server) -> None:
    asked: list[list[dict[str, Any]]] = [
        [],
        [control()],
        [control(is_map=True)],
        [control(scale=0.5)],
        [control(end=0.5)],
        [control(kind="blur"), control(network="other", scale=0.3)],
        [control(mask=png(Image.linear_gradient("L").resize((tiny.SIDE, tiny.SIDE))))],
        [control(settings={"low": 5, "high": 20})],
    ]
    drawn = [images_of(steered.post("/invocations", body(controlnets=controls))) for controls in asked]
    for number, images in enumerate(drawn):
        for other in drawn[:number]:
            assert far(images, other) > ROUNDED, number
    again = steered.post("/invocations", body(controlnets=asked[1], adapters=[]))
    assert far(images_of(again), drawn[1]) <= ROUNDED


def test_a_control_network_is_loaded_once_whatever_it_is_called_and_is_named_in_the_answer(
    steered: Server, edges: Path
) -> None:
    reads = steered.state.service.cache.reads
    answer = steered.post("/invocations", body(controlnets=[control(scale=0.5), control(network="other")])).json()
    sha256 = AdapterManifest.read(edges).files_sha256
    assert [(one["name"], one["weight"], one["sha256"]) for one in answer["adapters"]] == [
        ("edges", 0.5, sha256),
        ("other", 1.0, sha256),
    ]
    assert answer["images"][0]["generations"] == [None, None]
    assert steered.state.service.cache.reads == reads


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"controlnets": [control(network="edgse")]}, 422, 'Did you mean "edges"'),
        ({"controlnets": [control(network="dog")]}, 422, "no ControlNet"),
        ({"adapters": [{"name": "edges"}]}, 424, "is a ControlNet"),
        ({"controlnets": [control(kind="sketch")]}, 422, "trained on canny and blur"),
        ({"controlnets": [control(kind="depth")]}, 422, "computes no depth maps"),
        ({"controlnets": [control(picture=base64.b64encode(b"x").decode())]}, 422, "cannot be decoded"),
        ({"controlnets": [control(mask=png(Image.new("L", (64, 32))))]}, 422, "not the same shape"),
        ({"controlnets": [control(scale=-1)]}, 422, "scale"),
        ({"controlnets": [control(start=0.6, end=0.5)]}, 422, "start"),
        ({"controlnets": [control(picture="not base64!")]}, 422, "picture"),
    ],
)
def test_controls_that_cannot_be_followed_are_refused(
    steered: Server, fields: dict[str, Any], status: int, named: str
) -> None:
    answer = steered.post("/invocations", body(**fields))
    assert answer.status_code == status, answer.text
    assert named in answer.json()["error"]["message"]


def test_a_control_network_that_reads_no_pictures_in_colour_is_refused(server: Server, edges: Path) -> None:
    grey = shutil.copytree(edges, server.state.root / "grey")
    config = json.loads((grey / "config.json").read_text())
    (grey / "config.json").write_text(json.dumps({**config, "conditioning_channels": 1}))
    AdapterManifest.read(grey).write(grey)
    answer = server.post("/adapters", {"name": "grey", "src": "grey"})
    assert answer.status_code == 424
    assert "conditioning_channels 1" in answer.json()["error"]["message"]


def test_a_control_network_for_another_base_model_is_refused(server: Server, edges: Path, sdxl_folder: Path) -> None:
    other = shutil.copytree(edges, server.state.root / "other")
    tiny.control_network(fresh(sdxl_folder)).save_pretrained(other)
    AdapterManifest.read(other).write(other)
    answer = server.post("/adapters", {"name": "other", "src": "other"})
    assert answer.status_code == 424
    assert "ControlNet" in answer.json()["error"]["message"]
