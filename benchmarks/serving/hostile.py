"""Adapters and bodies that were made to harm: none is drawn with, none of their code runs, and the server goes on."""

import base64
import gzip
import io
import json
import shutil
import struct
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving.fuzzing import GROWTH_BAR, MEANT, MIB
from benchmarks.serving.materials import Materials
from benchmarks.serving.process import Server, body, served
from benchmarks.serving.results import Figure, Found
from orchestrator.contract.adapter import LORA_FILE, MANIFEST_FILE, AdapterManifest

PASSES = 3
MARK = "code-ran"
"""Name of the file that code in an adapter would write."""
_CODE = "import pathlib; pathlib.Path({path!r}).touch()"
_LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"

Adapter = Callable[[Path], Path]
"""Changes a good adapter's folder into a hostile one and returns what is registered."""
Content = bytes | dict[str, Any]


def hostile(materials: Materials) -> Found:
    """Register each adapter, ask for a picture by it, and send each body; the server must refuse all and go on."""
    model = materials.smallest
    (good,) = materials.adapters(model, 1)
    places = materials.root / "hostile"
    places.mkdir()
    mark = places / MARK
    adapters = hostile_adapters(places, mark)
    bodies = hostile_bodies()
    if materials.quick:
        adapters = dict(list(adapters.items())[::10])
        bodies = dict(list(bodies.items())[::10])
    said = Said()
    passes = materials.number(PASSES, 1)
    with served(materials, model, {"good": good}) as server, server.client() as client:
        for number in range(materials.number(100, 3)):
            client.post("/invocations", json=body(model, number, "good")).raise_for_status()
        before = server.memory
        sources = {}
        for number, (name, change) in enumerate(adapters.items()):
            folder = places / f"adapter-{number}"
            shutil.copytree(good, folder)
            sources[name] = change(folder)
        sizes = []
        for _ in range(passes):
            for name, source in sources.items():
                said.note(name, post(server, "/adapters", as_bytes({"name": name, "src": str(source)})))
                said.note(name, post(server, "/invocations", as_bytes(body(model, 1, name))), is_drawn_with=True)
                said.check(client.post("/invocations", json=body(model, 1, "good")))
            for name, content in bodies.items():
                said.note(name, post(server, "/invocations", as_bytes(content)))
                said.check(client.post("/invocations", json=body(model, 1, "good")))
            sizes.append(server.memory)
        grown = [(after - start) / MIB for start, after in pairwise([before, *sizes])]
    counts = ", ".join(f"{number} with {status}" for status, number in sorted(said.statuses.items()))
    return Found(
        figures=(
            Figure(what="answers of 500 and above that are not meant", value=len(said.bad), bar=0),
            Figure(what="pictures by hostile adapters", value=len(said.drawn), bar=0),
            Figure(what="right requests that fail afterwards", value=said.failed, bar=0),
            Figure(what="code that ran", value=int(mark.exists()), bar=0),
            Figure(what="growth", value=grown[0], unit=" MiB", bar=GROWTH_BAR),
            Figure(what="growth when all come for the last time", value=grown[-1], unit=" MiB", bar=GROWTH_BAR),
        ),
        notes=(
            (
                f"{len(adapters)} adapters, each registered and asked for, and {len(bodies)} bodies, {passes} times:"
                f" {counts}; {said.closed} connections were closed while something too large was sent."
            ),
            *(f"{kind}: {', '.join(names)}." for kind, names in (("Failed", said.bad), ("Drawn", said.drawn)) if names),
        ),
    )


def post(server: Server, path: str, content: bytes) -> httpx.Response | None:
    """Send something hostile on a connection of its own; None when the server closes it while it is sent."""
    with server.client() as client:
        try:
            return client.post(path, content=content)
        except httpx.TransportError:
            return None


class Said:
    """What came back."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.closed = 0
        """Connections that the server has closed before it had read everything."""
        self.bad: list[str] = []
        self.drawn: list[str] = []
        self.failed = 0

    def note(self, name: str, answer: httpx.Response | None, *, is_drawn_with: bool = False) -> None:
        """Note the answer to something hostile."""
        if answer is None:
            self.closed += 1
            return
        self.statuses[answer.status_code] += 1
        if answer.is_server_error and answer.status_code not in MEANT:
            self.bad.append(name)
        if is_drawn_with and answer.is_success:
            self.drawn.append(name)

    def check(self, answer: httpx.Response) -> None:
        """Note the answer to a right request."""
        self.failed += not answer.is_success


def as_bytes(content: Content) -> bytes:
    """Return a body as it is sent."""
    return content if isinstance(content, bytes) else json.dumps(content).encode()


# Adapters


def hostile_adapters(places: Path, mark: Path) -> Mapping[str, Adapter]:
    """Return what is done to a good adapter, by the name that says it."""
    code = _CODE.format(path=str(mark)).encode()
    pickle = b"cposix\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR."  # protocol 0; runs when it is loaded
    outside = places.parents[1] / "outside"
    archives: dict[str, Adapter] = {
        "archive: a name that climbs": archive(entry("../climbed.json")),
        "archive: an absolute name": archive(entry("/tmp/absolute.json")),  # noqa: S108 - must not be written
        "archive: a symbolic link": archive(entry("a.json", kind=tarfile.SYMTYPE, link="/etc/passwd")),
        "archive: a hard link": archive(entry("a.json", kind=tarfile.LNKTYPE, link="/etc/passwd")),
        "archive: a link, and a file below it": archive(
            entry("d", kind=tarfile.SYMTYPE, link=str(places)), entry("d/planted.json")
        ),
        "archive: a device": archive(entry("a.json", kind=tarfile.CHRTYPE)),
        "archive: a pipe": archive(entry("a.json", kind=tarfile.FIFOTYPE)),
        "archive: code": archive(entry("model.py", code), entry("requirements.txt", b"/nowhere")),
        "archive: a pickle": archive(entry("pytorch_lora_weights.bin", pickle)),
        "archive: 10,000 files": archive(*(entry(f"{number}.json") for number in range(10_000))),
        "archive: none": written(lambda path: path.write_bytes(b"no archive")),
        "archive: cut off": written(lambda path: path.write_bytes(gzip.compress(bytes(100_000))[:50])),
        "archive: a bomb": written(bomb),
    }
    headers: dict[str, Adapter] = {
        "weights: empty": weights(b""),
        "weights: a pickle": weights(pickle),
        "weights: a header longer than the file": weights(struct.pack("<Q", 10**6) + b"{}"),
        "weights: a header of 2^63 bytes": weights(struct.pack("<Q", 2**63) + b"{}"),
        "weights: a header that is no JSON": weights(struct.pack("<Q", 8) + b"{{{{{{{{"),
        "weights: a nested header": weights(header(b'{"a":' * 50_000 + b"1" + b"}" * 50_000)),
        "weights: offsets behind the end": weights(tensors({f"{_LAYER}.lora_A.weight": ("F32", [8, 16], 0, 2**40)})),
        "weights: overlapping offsets": weights(
            tensors(
                {
                    f"{_LAYER}.lora_A.weight": ("F32", [8, 16], 0, 512),
                    f"{_LAYER}.lora_B.weight": ("F32", [16, 8], 0, 512),
                },
                bytes(512),
            )
        ),
        "weights: a shape of 2^40 numbers": weights(
            tensors({f"{_LAYER}.lora_A.weight": ("F32", [2**20, 2**20], 0, 512)}, bytes(512))
        ),
        "weights: half a pair": weights(tensors({f"{_LAYER}.lora_A.weight": ("F32", [8, 16], 0, 512)}, bytes(512))),
        "weights: an unknown layer": weights(pair("unet.no.such.layer")),
        "weights: an unknown part": weights(pair("vae.decoder.conv_in")),
        "weights: another shape": weights(pair(_LAYER, inputs=24)),
        "weights: rank 4096": weights(pair(_LAYER, rank=4096)),
        "weights: rank 0": weights(pair(_LAYER, rank=0)),
        "weights: integers": weights(pair(_LAYER, kind="I32")),
        "weights: NaN": weights(pair(_LAYER, fill=struct.pack("<f", float("nan")))),
        "weights: infinity": weights(pair(_LAYER, fill=struct.pack("<f", float("inf")))),
        "weights: 20,000 tensors": weights(
            tensors({f"unet.layer{number}.lora_A.weight": ("F32", [0], 0, 0) for number in range(20_000)})
        ),
        "weights: a link to another file": linked(Path("/etc/passwd")),
    }
    manifests: dict[str, Adapter] = {
        "manifest: none": without_manifest,
        "manifest: nested": manifest_text(b"[" * 100_000),
        "manifest: binary": manifest_text(bytes(range(256))),
        "manifest: 30 MB": manifest_text(b'{"recipe": "' + b"x" * 30_000_000 + b'"}'),
        "manifest: a file elsewhere": manifest_value(files={"../../../../etc/passwd": {"sha256": "0" * 64, "size": 1}}),
        "manifest: another base model": manifest_value(base_model={"id": "x", "fingerprint": "0" * 64, "family": "sd"}),
        "manifest: an unknown kind": manifest_value(kind="module"),
        "manifest: whole weights": manifest_value(kind="full", parts=["unet"]),
        "manifest: a word that it has not": manifest_value(kind="embedding", trigger="<x>"),
        "manifest: a later format": manifest_value(format=99),
    }
    places_elsewhere: dict[str, Adapter] = {
        "place: outside": lambda folder: Path(shutil.copytree(folder, outside, dirs_exist_ok=True)),
        "place: a climbing path": lambda folder: folder / ".." / ".." / ".." / "outside",
        "place: a file of the system": lambda _: Path("/etc/passwd"),
        "place: an address": lambda _: Path("https://example.com/adapter.tar.gz"),
        "place: a null byte": lambda folder: Path(f"{folder}\0.tar.gz"),
        "place: a very long path": lambda folder: folder / ("x" * 3000),
        "place: a link that leads outside": lambda folder: link(folder, outside),
    }
    return {**archives, **headers, **manifests, **places_elsewhere}


def entry(name: str, content: bytes = b"{}", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[Any, bytes]:
    """Return an entry of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def archive(*entries: tuple[Any, bytes]) -> Adapter:
    """Return a way to pack a good adapter, and something else behind it."""

    def change(folder: Path) -> Path:
        path = folder.with_suffix(".tar.gz")
        with tarfile.open(path, "w:gz") as file:
            for one in sorted(folder.iterdir()):
                file.add(one, one.name)
            for info, content in entries:
                file.addfile(info, io.BytesIO(content))
        return path

    return change


def written(write: Callable[[Path], Any]) -> Adapter:
    """Return a way to write an archive."""

    def change(folder: Path) -> Path:
        path = folder.with_suffix(".tar.gz")
        write(path)
        return path

    return change


def bomb(path: Path) -> None:
    """Write an archive of a few MB that unpacks to six gigabytes."""
    info = tarfile.TarInfo("a.json")
    info.size = 6 * 10**9
    piece = bytes(10**7)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(60):  # of 600: it has to be refused by what it says of itself, or while it is unpacked
            file.write(piece)


def weights(content: bytes) -> Adapter:
    """Return a way to replace the weights; the manifest fits them."""

    def change(folder: Path) -> Path:
        (folder / LORA_FILE).write_bytes(content)
        AdapterManifest.read(folder).write(folder)
        return folder

    return change


def header(content: bytes, data: bytes = b"") -> bytes:
    """Return a safetensors file of a header and data."""
    return struct.pack("<Q", len(content)) + content + data


def tensors(described: Mapping[str, tuple[str, list[int], int, int]], data: bytes = b"") -> bytes:
    """Return a safetensors file that says of each tensor its type, shape and offsets."""
    values = {}
    for name, (kind, shape, start, end) in described.items():
        values[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    return header(json.dumps(values).encode(), data)


def pair(layer: str, *, rank: int = 8, inputs: int = 16, kind: str = "F32", fill: bytes = bytes(4)) -> bytes:
    """Return a file of A and B of one layer."""
    size = 4 * rank * inputs
    described = {
        f"{layer}.lora_A.weight": (kind, [rank, inputs], 0, size),
        f"{layer}.lora_B.weight": (kind, [inputs, rank], size, 2 * size),
    }
    return tensors(described, fill * (2 * rank * inputs))


def linked(target: Path) -> Adapter:
    """Return a way to have a link in the place of the weights."""

    def change(folder: Path) -> Path:
        (folder / LORA_FILE).unlink()
        (folder / LORA_FILE).symlink_to(target)
        return folder

    return change


def link(folder: Path, target: Path) -> Path:
    """Return a link beside a folder that leads elsewhere."""
    path = folder.with_name(f"{folder.name}-link")
    path.symlink_to(target, target_is_directory=True)
    return path


def without_manifest(folder: Path) -> Path:
    """Delete the manifest."""
    (folder / MANIFEST_FILE).unlink()
    return folder


def manifest_text(content: bytes) -> Adapter:
    """Return a way to replace the manifest."""

    def change(folder: Path) -> Path:
        (folder / MANIFEST_FILE).write_bytes(content)
        return folder

    return change


def manifest_value(**values: Any) -> Adapter:
    """Return a way to change values of the manifest."""

    def change(folder: Path) -> Path:
        path = folder / MANIFEST_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return folder

    return change


# Bodies


def hostile_bodies() -> Mapping[str, Content]:
    """Return bodies by what is wrong with them."""
    asked = {"inputs": "a dog", "parameters": {"num_inference_steps": 1, "width": 32, "seed": 1}}
    large_picture = _PNG_HEAD + struct.pack(">II", 60_000, 60_000) + b"\x08\x02\x00\x00\x00" + bytes(64)
    return {
        "body: nothing": b"",
        "body: not JSON": b"\x80\x04\x95",
        "body: nested lists": b"[" * 1_000_000,
        "body: nested objects": b'{"inputs":' * 200_000,
        "body: 33 MB": b'{"inputs": "' + b"x" * (33 * MIB) + b'"}',
        "body: not UTF-8": b'{"inputs": "\xff\xfe"}',
        "body: half a surrogate": b'{"inputs": "\\ud800", "parameters": {"num_inference_steps": 1, "width": 32}}',
        "body: a number of a million digits": b'{"inputs": "x", "parameters": {"seed": ' + b"9" * 10**6 + b"}}",
        "body: NaN": {**asked, "parameters": {"guidance_scale": float("nan")}},
        "body: infinity as a weight": {**asked, "adapters": [{"name": "good", "weight": float("inf")}]},
        "body: a weight of 1e30": {**asked, "adapters": [{"name": "good", "weight": 1e30}]},
        "body: a thousand adapters": {**asked, "adapters": [{"name": "good"}] * 1000},
        "body: an adapter by its path": {**asked, "adapters": [{"name": "../../etc/passwd"}]},
        "body: a name with line breaks": {**asked, "adapters": [{"name": "a\r\nX-Planted: 1"}]},
        "body: a million steps": {**asked, "parameters": {"num_inference_steps": 10**6}},
        "body: steps below zero": {**asked, "parameters": {"num_inference_steps": -1}},
        "body: a size of 100,000": {**asked, "parameters": {"width": 100_000}},
        "body: a hundred prompts": {**asked, "inputs": ["a dog"] * 100},
        "body: a prompt of a megabyte": {**asked, "inputs": "x" * MIB},
        "body: a picture of 3.6 gigapixels": {**asked, "image": base64.b64encode(large_picture).decode()},
        "body: a picture that is none": {**asked, "image": base64.b64encode(b"<svg onload=x>").decode()},
        "body: a picture by its address": {**asked, "image": "http://169.254.169.254/latest/meta-data/"},
        "body: a picture by its path": {**asked, "image": "file:///etc/passwd"},
        "body: code as a scheduler": {**asked, "parameters": {"scheduler": "__import__('os')"}},
        "body: fields of objects": {**asked, "__class__": "x", "__proto__": {"a": 1}},
    }
