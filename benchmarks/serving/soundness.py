"""What must never happen: base weights that drift, and a picture by another adapter than the one that was asked for."""

import asyncio
import base64
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from benchmarks.serving.materials import Materials, fresh, tiny
from benchmarks.serving.ours import Ours, Request, weights_of
from benchmarks.serving.pictures import Bare
from benchmarks.serving.process import TIMEOUT
from benchmarks.serving.results import Figure, Found
from entrypoints.serving.app import make_app
from entrypoints.serving.slots import Slot, SlotUse
from entrypoints.serving.state import State
from orchestrator.contract.adapter import LORA_FILE, AdapterManifest

ROUNDED = 1
"""Of 255: pictures of another batch may be rounded differently."""
SLOTS = 4
KEPT = 6
"""Adapters that main memory has room for."""
VERSIONS = 30
NAMES = 12
SEEDS = 4
CLIENTS = 24
CHANGES_EVERY = 0.05
"""Seconds."""
_STRONGER = 10
"""Times the weights of other rows' adapters: one adapter's picture must not be mistaken for another's."""


def base_weights(materials: Materials) -> Found:
    """Load and evict adapters, draw now and then, and compare the base model's weights with those on disk."""
    figures = []
    loads = materials.number(1000, 20)
    evictions = []
    for model in materials.measured:
        folders = materials.adapters(model, 20)
        with Ours(model, slots=SLOTS) as ours:
            ours.register(folders)
            for number in range(loads):
                if number % 10 == 0:
                    ours.draw([Request(number, str(number % len(folders)))], steps=1)
                    continue
                served = ours.read(folders[number % len(folders)])
                ours.worker.slots.release(ours.worker.slots.hold(served.key, weights_of(served)))
            evictions.append(ours.worker.slots.evictions)
            changed = differing(ours)
        figures.append(Figure(what=f"tensors that differ in any bit, {model.name}", value=changed, bar=0))
    note = (
        f"{loads} loads into {SLOTS} slots, {' and '.join(map(str, evictions))} evictions, an image every ten loads;"
        " compared are all weights of U-Net, text encoder and autoencoder with those of the files."
    )
    return Found(figures=tuple(figures), notes=(note,))


def differing(ours: Ours) -> int:
    """Return how many of the base model's tensors are not those of its files, bit by bit."""
    untouched = fresh(ours.model.folder)
    pairs = [(untouched.denoiser, ours.base.denoiser), (untouched.pipeline.vae, ours.base.pipeline.vae)]
    for part, encoder in untouched.text_encoders.items():
        pairs.append((encoder, ours.base.text_encoders[part]))
    changed = 0
    for before, after in pairs:
        now = {}
        for name, tensor in after.state_dict().items():
            now[name.replace(".layer.", ".").replace(".known.", ".")] = tensor
        expected = before.state_dict()
        changed += len(expected.keys() ^ now.keys())
        for name in expected.keys() & now.keys():
            changed += not torch.equal(expected[name].view(torch.uint8), now[name].view(torch.uint8))
    return changed


class Version(NamedTuple):
    """What a name stood for, for a while."""

    sha256: str | None
    """None when it was no adapter's name."""
    since: float
    until: float


class Asked(NamedTuple):
    """A request of the fuzzing."""

    adapters: tuple[tuple[str, float], ...]
    """Names and weights."""
    seed: int
    steps: int
    guidance: float


class Answered(NamedTuple):
    """What came of it."""

    asked: Asked
    sent: float
    received: float
    status: int
    used: tuple[str, ...]
    """sha256 of each adapter, as the answer says."""
    picture: np.ndarray | None


class Names:
    """What each name has stood for, and when: known to whoever changes it."""

    def __init__(self) -> None:
        self.history: dict[str, list[Version]] = {}

    def changes(self, name: str, sha256: str | None, since: float) -> None:
        """Note that a name may stand for something else from now on."""
        self.history.setdefault(name, [Version(None, -inf, inf)]).append(Version(sha256, since, inf))

    def changed(self, name: str, now: float) -> None:
        """Note that it does so for certain."""
        versions = self.history[name]
        versions[-2] = versions[-2]._replace(until=now)

    def could_be(self, name: str, sha256: str | None, sent: float, received: float) -> bool:
        """Whether a name stood for something at any moment of a request."""
        for version in self.history.get(name, [Version(None, -inf, inf)]):
            if version.sha256 == sha256 and version.since <= received and version.until >= sent:
                return True
        return False


def strong_adapters(materials: Materials, count: int) -> dict[str, Path]:
    """Return adapters that change pictures a lot, by their hashes."""
    found = {}
    places = Path(tempfile.mkdtemp(dir=materials.root))
    for number, weak in enumerate(materials.adapters(materials.smallest, count)):
        folder = places / str(number)
        shutil.copytree(weak, folder)
        path = folder / LORA_FILE
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            metadata = file.metadata()
        for name, tensor in tensors.items():
            if ".lora_B." in name:
                tensors[name] = _STRONGER * tensor
        save_file(tensors, path, metadata)
        manifest = AdapterManifest.read(folder).write(folder)
        found[manifest.files_sha256] = folder
    return found


def wrong_answers(materials: Materials) -> Found:
    """Ask for pictures while adapters are added, replaced and deleted, and look at each picture that comes."""
    model = materials.smallest
    count = materials.number(10_000, 60)
    versions = strong_adapters(materials, materials.number(VERSIONS, 6))
    size = sum(path.stat().st_size for path in next(iter(versions.values())).iterdir())
    names = Names()
    with Ours(model, slots=SLOTS, memory=KEPT * size) as ours:
        state = State(materials.root, most_waiting=10 * CLIENTS)
        state.ready(ours.service, ours.worker)
        answers, changes = asyncio.run(fuzz(state, names, versions, count))
        evictions = ours.worker.slots.evictions
        reads = ours.service.cache.reads
    alone = Alone(materials, versions)
    wrong = sum(is_wrong(answer, names, alone) for answer in answers)
    statuses = Counter(answer.status for answer in answers)
    counts = ", ".join(f"{number} with {status}" for status, number in sorted(statuses.items()))
    return Found(
        figures=(
            Figure(what="wrong answers", value=wrong, bar=0),
            Figure(what="answers other than a picture or an unknown name", value=others(statuses), bar=0),
        ),
        notes=(
            (
                f"{count} requests of {CLIENTS} clients for {NAMES} names: {counts}; meanwhile {changes} names were"
                f" given to another of {len(versions)} adapters, or deleted. {SLOTS} slots, memory for {KEPT}: {reads}"
                f" reads from disk, {evictions} evictions."
            ),
            (
                "Each picture was compared with the one that an engine of its own draws alone with the adapters whose"
                f" hashes the answer says, and each hash with what the name stood for meanwhile; pictures of two"
                f" adapters differ by {alone.closest()} of 255 at least, right ones by {ROUNDED} at most."
            ),
        ),
    )


def others(statuses: Mapping[int, int]) -> int:
    """Return how many answers are neither a picture nor say that there is no such adapter."""
    expected = (httpx.codes.OK, httpx.codes.UNPROCESSABLE_ENTITY)
    return sum(number for status, number in statuses.items() if status not in expected)


async def fuzz(state: State, names: Names, versions: Mapping[str, Path], count: int) -> tuple[list[Answered], int]:
    """Send requests and change names at the same time, through the server's routes; return answers and changes."""
    dice = random.Random(0)  # noqa: S311 - a trace
    transport = httpx.ASGITransport(app=make_app(state))
    answers: list[Answered] = []
    waiting = iter([asked_by(dice) for _ in range(count)])
    now = asyncio.get_running_loop().time
    changes = 0
    begun = asyncio.Event()
    async with httpx.AsyncClient(transport=transport, base_url="http://server", timeout=TIMEOUT) as client:

        async def ask() -> None:
            for asked in waiting:
                sent = now()
                answer = await client.post("/invocations", json=body_of(asked))
                answers.append(read(asked, sent, now(), answer))

        async def change() -> None:
            nonlocal changes
            while len(answers) < count:
                name = f"name-{changes if changes < NAMES else dice.randrange(NAMES)}"
                sha256 = dice.choice([*versions, None] if changes >= NAMES else [*versions])
                names.changes(name, sha256, now())
                if sha256 is None:
                    await client.delete(f"/adapters/{name}")
                else:
                    answer = await client.post("/adapters", json={"name": name, "src": str(versions[sha256])})
                    answer.raise_for_status()
                names.changed(name, now())
                changes += 1
                if changes == NAMES:
                    begun.set()
                if changes >= NAMES:
                    await asyncio.sleep(CHANGES_EVERY)

        async def begin() -> None:
            await begun.wait()
            await asyncio.gather(*(ask() for _ in range(CLIENTS)))

        await asyncio.gather(change(), begin())
    return answers, changes


def asked_by(dice: random.Random) -> Asked:
    """Return a request: mostly for one adapter, sometimes for two or none."""
    number = dice.choices((0, 1, 2), (1, 8, 1))[0]
    chosen = dice.sample(range(NAMES), number)
    adapters = tuple((f"name-{one}", dice.choice((0.5, 1.0))) for one in chosen)
    return Asked(adapters, dice.randrange(SEEDS), dice.choice((1, 2)), dice.choice((1.0, 5.0)))


def body_of(asked: Asked) -> dict[str, Any]:
    """Return the body of a request."""
    parameters = {
        "num_inference_steps": asked.steps,
        "guidance_scale": asked.guidance,
        "width": tiny.SIDE,
        "seed": asked.seed,
    }
    adapters = [{"name": name, "weight": weight} for name, weight in asked.adapters]
    return {"inputs": "a photo of a toy dog", "parameters": parameters, "adapters": adapters}


def read(asked: Asked, sent: float, received: float, answer: httpx.Response) -> Answered:
    """Return what an answer says."""
    if answer.status_code != httpx.codes.OK:
        return Answered(asked, sent, received, answer.status_code, (), None)
    value = answer.json()
    used = tuple(one["sha256"] for one in value["adapters"])
    picture = pixels_of(base64.b64decode(value["images"][0]["image"]))
    return Answered(asked, sent, received, answer.status_code, used, picture)


def pixels_of(content: bytes) -> np.ndarray:
    """Return the values of a PNG, which can be subtracted."""
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image, dtype=np.int16)


class Alone:
    """Pictures that an engine of its own draws alone, each once."""

    def __init__(self, materials: Materials, versions: Mapping[str, Path]) -> None:
        self.engine = Bare(materials.smallest, slots=len(versions))
        self.slots: dict[str, Slot] = {}
        for sha256, folder in versions.items():
            self.slots[sha256] = self.engine.load(folder)
        self._drawn: dict[Any, np.ndarray] = {}

    def picture(self, asked: Asked, used: Sequence[str]) -> np.ndarray:
        """Return the picture of a request with adapters by their hashes."""
        weights = [weight for _, weight in asked.adapters]
        key = (tuple(used), tuple(weights), asked.seed, asked.steps, asked.guidance)
        if key not in self._drawn:
            uses = [SlotUse(self.slots[sha256], weight) for sha256, weight in zip(used, weights, strict=True)]
            sample = self.engine.sample(asked.seed, uses, steps=asked.steps, guidance=asked.guidance)
            while not sample.is_done:
                self.engine.engine.step([sample])
            self._drawn[key] = np.asarray(self.engine.engine.decode(sample), dtype=np.int16)
        return self._drawn[key]

    def closest(self) -> int:
        """Return by how much pictures of two adapters differ at least, and of each and none."""
        pictures = [self.picture(Asked((), 0, 1, 1.0), ())]
        for sha256 in self.slots:
            pictures.append(self.picture(Asked((("", 0.5),), 0, 1, 1.0), (sha256,)))
        least = 255
        for number, one in enumerate(pictures):
            for other in pictures[:number]:
                least = min(least, int(np.abs(one - other).max()))
        return least


def is_wrong(answer: Answered, names: Names, alone: Alone) -> bool:
    """Whether an answer says or shows something else than what was asked for."""
    asked = answer.asked
    if answer.picture is None:
        return not any(names.could_be(name, None, answer.sent, answer.received) for name, _ in asked.adapters)
    if len(answer.used) != len(asked.adapters):
        return True
    for (name, _), sha256 in zip(asked.adapters, answer.used, strict=True):
        if not names.could_be(name, sha256, answer.sent, answer.received):
            return True
    expected = alone.picture(asked, answer.used)
    return int(np.abs(answer.picture - expected).max()) > ROUNDED
