"""Hostile bodies and adapters: one answer each that says what is wrong, and the server goes on."""

import base64
import errno
import gzip
import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from asked_app import STEPS, Server, body, images_of
from fuzzing import fuzz
from safetensors.torch import load_file, save_file
from torch import Tensor

from entrypoints.serving import archives
from orchestrator.contract.adapter import LORA_FILE, MANIFEST_FILE, AdapterManifest

METADATA = "lora_adapter_metadata"
NORM = "unet.down_blocks.0.resnets.0.norm1"
ON_NORM = torch.zeros(8, 2)
TABLE = "text_encoder.embeddings.token_embedding.known"
"""Layers of other kinds, with weights in a shape that fits them."""
Tensors = dict[str, Tensor]


@pytest.fixture
def server(lasting_server: Server) -> Server:
    """The server that all tests here share: it is to survive them all."""
    shutil.rmtree(lasting_server.state.root / "evil", ignore_errors=True)
    return lasting_server


def changed(change: Callable[[Tensors], Any], metadata: dict[str, str] | None = None) -> Callable[[Path], None]:
    """Return what writes an adapter's weights anew, changed."""

    def write(folder: Path) -> None:
        tensors = load_file(folder / LORA_FILE)
        change(tensors)
        save_file(tensors, folder / LORA_FILE, metadata)

    return write


def with_bytes(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / LORA_FILE).write_bytes(content) and None


def with_header(header: bytes, tail: bytes = b"") -> Callable[[Path], None]:
    return with_bytes(struct.pack("<Q", len(header)) + header + tail)


def with_metadata(text: str) -> Callable[[Path], None]:
    return changed(lambda _: None, {METADATA: text})


def first(tensors: Tensors, side: str = "down") -> str:
    return next(name for name in tensors if side in name or {"down": "lora_A", "up": "lora_B"}[side] in name)


def set_first(value: Callable[[Tensor], Tensor], side: str = "down") -> Callable[[Path], None]:
    def change(tensors: Tensors) -> None:
        name = first(tensors, side)
        tensors[name] = value(tensors[name])

    return changed(change)


def entry(shape: list[int], end: int, dtype: str = "F32") -> bytes:
    return json.dumps({"unet.x.lora_A.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}).encode()


WEIGHTS: dict[str, Callable[[Path], None]] = {
    "NaN": set_first(lambda tensor: tensor * float("nan")),
    "infinity": set_first(lambda tensor: tensor + float("inf"), "up"),
    "another width": set_first(lambda tensor: torch.zeros(len(tensor), 999)),
    "another rank": set_first(lambda tensor: torch.zeros(len(tensor) + 1, *tensor.shape[1:])),
    "rank zero": set_first(lambda tensor: torch.zeros(0, *tensor.shape[1:])),
    "a number": set_first(lambda _: torch.tensor(1.0)),
    "five dimensions": set_first(lambda tensor: tensor[None, None, None]),
    "integers": set_first(lambda tensor: tensor.to(torch.int64)),
    "truth values": set_first(lambda tensor: tensor > 0),
    "half a pair": changed(lambda tensors: tensors.pop(first(tensors))),
    "unknown layer": changed(lambda tensors: tensors.update({"unet.no.such.lora_A.weight": torch.zeros(2, 4)})),
    "unknown part": changed(lambda tensors: tensors.update({"vae.decoder.lora_A.weight": torch.zeros(2, 4)})),
    "a layer that is a norm": changed(
        lambda tensors: tensors.update({f"{NORM}.lora_A.weight": torch.zeros(2), f"{NORM}.lora_B.weight": ON_NORM})
    ),
    "a layer that is an embedding": changed(
        lambda tensors: tensors.update(
            {f"{TABLE}.lora_A.weight": torch.zeros(2, 16), f"{TABLE}.lora_B.weight": torch.zeros(211, 2)}
        )
    ),
    "no name of a LoRA": changed(lambda tensors: tensors.update({"__class__": torch.zeros(2, 4)})),
    "nothing": changed(lambda tensors: tensors.clear()),
    "a huge rank": changed(
        lambda tensors: [tensors.update({name: torch.zeros(300, *tensors[name].shape[1:])}) for name in list(tensors)]
    ),
    "no file": lambda folder: (folder / LORA_FILE).unlink(),
    "no bytes": with_bytes(b""),
    "a pickle": with_bytes(b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."),
    "a zip": with_bytes(b"PK\x03\x04" + bytes(100)),
    "a header beyond the file": with_bytes(struct.pack("<Q", 2**62)),
    "a header of 100 MB": with_bytes(struct.pack("<Q", 100_000_000) + b"{"),
    "a header that is no JSON": with_header(b"{" * 100),
    "a header nested deep": with_header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a list as header": with_header(b"[]"),
    "a tensor beyond the file": with_header(entry([2, 4], 2**40)),
    "a shape of petabytes": with_header(entry([2**31, 2**31], 32), bytes(32)),
    "a negative shape": with_header(entry([-1, 4], 32), bytes(32)),
    "an unknown type": with_header(entry([2, 4], 32, "PICKLE"), bytes(32)),
    "metadata that is no JSON": with_metadata("{"),
    "metadata that is a list": with_metadata("[1]"),
    "metadata nested deep": with_metadata('{"a":' * 100_000 + "1" + "}" * 100_000),
    "an alpha of NaN": with_metadata('{"unet.lora_alpha": NaN}'),
    "an alpha of words": with_metadata('{"unet.lora_alpha": "high"}'),
    "an alpha beyond numbers": with_metadata('{"unet.lora_alpha": 1e999}'),
    "patterns that are a list": with_metadata('{"unet.lora_alpha": 1, "unet.alpha_pattern": [1]}'),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_hostile_weights_are_refused_and_the_server_goes_on(server: Server, finished: Path, name: str) -> None:
    folder = shutil.copytree(finished / "sea", server.state.root / "evil")
    WEIGHTS[name](folder)
    AdapterManifest.read(folder).write(folder)
    answer = server.post("/adapters", {"name": "evil", "src": "evil"})
    assert answer.status_code == 424, answer.text
    assert answer.json()["error"]["message"]
    assert answer.json()["error"]["next"]
    assert server.state.service.library.find("evil") is None
    assert images_of(server.post("/invocations", body(adapters=[{"name": "dog"}])))


def spelled_anew(tensors: Tensors) -> None:
    for name, tensor in list(tensors.items()):
        other = name.replace("lora_A", "lora.down").replace("lora_B", "lora.up")
        tensors[other] = tensor.clone()


def text_layer_by_both_names(tensors: Tensors) -> None:
    for start in ("text_encoder.", "text_encoder.text_model."):
        layer = f"{start}encoder.layers.0.self_attn.q_proj"
        tensors[f"{layer}.lora_A.weight"] = torch.ones(2, 16)
        tensors[f"{layer}.lora_B.weight"] = torch.ones(16, 2)


@pytest.mark.parametrize("change", [spelled_anew, text_layer_by_both_names])
def test_a_layer_in_two_spellings_is_refused(server: Server, finished: Path, change: Callable[[Tensors], None]) -> None:
    folder = shutil.copytree(finished / "sea", server.state.root / "evil")
    changed(change)(folder)
    AdapterManifest.read(folder).write(folder)
    answer = server.post("/adapters", {"name": "evil", "src": "evil"})
    assert answer.status_code == 424, answer.text
    assert "twice, in two spellings" in answer.json()["error"]["message"]


def manifest_with(**fields: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda values: json.dumps({**values, **fields}).encode()


MANIFESTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "no JSON": lambda _: b"{",
    "nothing": lambda _: b"",
    "a list": lambda _: b"[]",
    "nested deep": lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "too large": lambda values: json.dumps({**values, "config": {"x": "y" * 5_000_000}}).encode(),
    "no text": lambda _: b"\xff\xfe\x00",
    "a kind that nobody knows": manifest_with(kind="pickle"),
    "whole weights": manifest_with(kind="full", parts=["unet"]),
    "parts that there are not": manifest_with(parts=["../../etc"]),
    "files outside": lambda values: json.dumps(
        {**values, "files": {"../../x": {"sha256": "0" * 64, "size": 1}}}
    ).encode(),
    "no files": manifest_with(files={}),
    "a word that it has not": manifest_with(kind="embedding", trigger="<x>"),
    "a word of no length": manifest_with(kind="embedding", trigger=""),
    "a network that it is not": manifest_with(kind="controlnet"),
    "the layout of another library": manifest_with(kind="peft", parts=["unet"]),
    "parts to climb by": manifest_with(kind="peft", parts=["../sea"]),
    "no parts": manifest_with(kind="peft", parts=[]),
    "a newer format": manifest_with(format=99),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifests_are_refused(server: Server, finished: Path, name: str) -> None:
    folder = shutil.copytree(finished / "sea", server.state.root / "evil")
    values = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_bytes(MANIFESTS[name](values))
    answer = server.post("/adapters", {"name": "evil", "src": "evil"})
    assert answer.status_code == 424, answer.text
    assert answer.json()["error"]["next"]


def bomb(path: Path) -> None:
    """Write an archive that says of an entry's name that it has gigabytes."""
    info = tarfile.TarInfo("x.json")
    info.type = tarfile.XHDTYPE
    info.size = 2**33
    block = zlib.compressobj(9, zlib.DEFLATED, 31)
    path.write_bytes(block.compress(info.tobuf() + bytes(2**20)) + block.flush())


def folders(path: Path) -> None:
    """Write an archive of many empty folders."""
    with tarfile.open(path, "w:gz") as archive:
        for number in range(2000):
            info = tarfile.TarInfo(f"f{number}")
            info.type = tarfile.DIRTYPE
            archive.addfile(info)


def descriptions(path: Path) -> None:
    """Write an archive in which each entry only describes the next one."""
    info = tarfile.TarInfo("x.json")
    info.type = tarfile.XHDTYPE
    content = b"13 path=x.js\n"
    info.size = len(content)
    path.write_bytes(gzip.compress(2000 * (info.tobuf() + content.ljust(tarfile.BLOCKSIZE, b"\0"))))


def code(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        content = b"import os"
        info = tarfile.TarInfo("model.py")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))


ARCHIVES: dict[str, Callable[[Path], Any]] = {
    "a bomb in a header": bomb,
    "folders without end": folders,
    "descriptions without end": descriptions,
    "code": code,
    "zeros": lambda path: path.write_bytes(gzip.compress(bytes(100_000))),
    "no archive": lambda path: path.write_bytes(b"PK\x03\x04 and more"),
    "nothing": lambda path: path.touch(),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_hostile_archives_are_refused_and_leave_nothing(server: Server, name: str) -> None:
    ARCHIVES[name](server.state.root / "evil.tar.gz")
    answer = server.post("/adapters", {"name": "evil", "src": "evil.tar.gz"})
    assert answer.status_code == 424, answer.text
    assert not any(path.is_file() for path in server.state.service.disk.folder.rglob("*"))


def test_an_archive_that_fills_the_disk_is_no_fault_of_its_own_and_leaves_nothing(
    server: Server, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = server.state.root / "large.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted((finished / "sea").iterdir()):
            archive.add(file, file.name)
    copy = archives.copy

    def filling(source: Any, place: Path, *limits: int) -> int:
        copy(source, place, *limits)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(archives, "copy", filling)
        answer = server.post("/adapters", {"name": "large", "src": path.name})
    assert answer.status_code == 507, answer.text
    assert "disk is full" in answer.json()["error"]["message"]
    assert not any(found.is_file() for found in server.state.service.disk.folder.rglob("*"))
    assert server.post("/adapters", {"name": "large", "src": path.name}).status_code == 200


def png_of(width: int, height: int) -> str:
    """Return a PNG that says it is large, and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return base64.b64encode(content).decode()


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


BODIES: dict[str, bytes | dict[str, Any]] = {
    "nothing": b"",
    "no JSON": b"inputs=dog",
    "half of it": b'{"inputs": "a dog"',
    "no text": b'{"inputs": "\xff\xfe"}',
    "a list": b"[1]",
    "a number": b"1e400",
    "nested deep": b"[" * 100_000 + b"]" * 100_000,
    "an object nested deep": b'{"inputs":' * 100_000 + b"1" + b"}" * 100_000,
    "NaN": b'{"inputs": "x", "parameters": {"guidance_scale": NaN}}',
    "infinity": b'{"inputs": "x", "parameters": {"guidance_scale": Infinity}}',
    "too many digits": b'{"inputs": "x", "parameters": {"seed": ' + b"9" * 5000 + b"}}",
    "half a character": b'{"inputs": "\\ud800"}',
    "half a character in what not to draw": b'{"inputs": "x", "parameters": {"negative_prompt": "\\ud800"}}',
    "half a character as a field": b'{"inputs": "x", "\\udfff": 1}',
    "half a character in a name": b'{"inputs": "x", "adapters": [{"name": "\\ud800"}]}',
    "half a character as a scheduler": b'{"inputs": "x", "parameters": {"scheduler": "\\ud800"}}',
    "no prompt": {"inputs": ""},
    "no prompts": {"inputs": []},
    "a long prompt": {"inputs": "dog " * 1000},
    "many prompts": {"inputs": ["dog"] * 1000},
    "a prompt that is a number": {"inputs": 1},
    "no steps": {"inputs": "x", "parameters": {"num_inference_steps": 0}},
    "steps without end": {"inputs": "x", "parameters": {"num_inference_steps": 10**9}},
    "too few steps for a scheduler": {"inputs": "x", "parameters": {"num_inference_steps": 1, "scheduler": "pndm"}},
    "no scheduler": {"inputs": "x", "parameters": {"scheduler": "__class__"}},
    "a negative seed": {"inputs": "x", "parameters": {"seed": -1}},
    "no size": {"inputs": "x", "parameters": {"width": 0}},
    "an odd size": {"inputs": "x", "parameters": {"width": 33}},
    "a huge size": {"inputs": "x", "parameters": {"width": 10**6}},
    "many images": {"inputs": "x", "parameters": {"num_images_per_prompt": 10**6}},
    "too many pixels": {"inputs": "x", "parameters": {"width": 2048, "height": 2048, "num_images_per_prompt": 17}},
    "a weight beyond all": {"inputs": "x", "adapters": [{"name": "dog", "weight": 1e300}]},
    "many adapters": {"inputs": "x", "adapters": [{"name": "dog"}] * 1000},
    "an adapter that is a number": {"inputs": "x", "adapters": [1]},
    "an adapter that is a path": {"inputs": "x", "adapters": [{"name": "../../etc/passwd"}]},
    "an adapter with code": {"inputs": "x", "adapters": [{"name": "dog", "custom_pipeline": "x"}]},
    "an address": {"inputs": "x", "image": "http://169.254.169.254/latest"},
    "an image that is text": {"inputs": "x", "image": text("<svg/>")},
    "a bomb of an image": {"inputs": "x", "image": png_of(60_000, 60_000)},
    "a cut image": {"inputs": "x", "image": png_of(32, 32)},
    "a mask alone": {"inputs": "x", "mask": png_of(32, 32)},
    "no strength": {"inputs": "x", "parameters": {"strength": 0}},
}


@pytest.mark.parametrize("name", BODIES)
def test_hostile_bodies_are_refused_with_what_is_wrong(server: Server, name: str) -> None:
    sent = BODIES[name]
    content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    answer = server.ask("POST", "/invocations", content=content)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"]
    assert server.state.admitted == 0


def test_a_body_that_is_too_large_is_refused_before_it_is_read_to_its_end(server: Server) -> None:
    sent = 0

    async def parts() -> Any:
        nonlocal sent
        for _ in range(64):
            sent += 2**20
            yield bytes(2**20)

    async def call(client: Any) -> Any:
        return await client.post("/invocations", content=parts())

    answer = server.run(call)
    assert answer.status_code == 413
    assert "33,554,432 bytes" in answer.json()["error"]["message"]


def test_weights_that_make_no_image_are_said_and_harm_no_other_request(server: Server, finished: Path) -> None:
    folder = shutil.copytree(finished / "sea", server.state.root / "loud")
    changed(lambda tensors: [tensor.mul_(1e18) for tensor in tensors.values()])(folder)
    AdapterManifest.read(folder).write(folder)
    assert server.post("/adapters", {"name": "loud", "src": "loud"}).status_code == 200
    answer = server.post("/invocations", body(adapters=[{"name": "loud"}]))
    assert answer.status_code == 424
    assert "NaN" in answer.json()["error"]["message"]
    assert images_of(server.post("/invocations", body(adapters=[{"name": "dog"}])))


def test_requests_made_of_its_own_openapi_are_answered_without_a_fault_of_the_server(server: Server) -> None:
    server.state.deadline_seconds = 1.0  # it asks for a thousand steps of large images, too
    before = server.state.service.defaults
    assert (before.steps, before.size) == (STEPS, tiny.SIDE)
    calls, wrong = fuzz(server.app, 8)
    assert not wrong
    assert calls > 30
