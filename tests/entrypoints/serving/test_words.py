"""Learned words over HTTP: each request reads its own, however others spell theirs."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from asked_app import ROUNDED, Server, body, far, images_of
from made_adapters import disturb, fresh
from safetensors.torch import load_file, save_file

from entrypoints.adapters.embedding import Embedding
from orchestrator.contract.adapter import EMBEDDING, EMBEDDINGS_FILE, MANIFEST_FILE, AdapterManifest


@pytest.fixture(scope="session")
def words(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters that have each learned the word "<toy>", and one that has learned "<red>"; tests only read them."""
    root = tmp_path_factory.mktemp("words")
    for seed, (name, word) in enumerate({"first": "<toy>", "second": "<toy>", "other": "<red>"}.items()):
        base = fresh(base_folder)
        tuner = Embedding(base, placeholder=word, initializer="dog", vectors=2)
        disturb(tuner, seed)
        (root / name).mkdir()
        tuner.save(root / name, {"format": "pt"})
        AdapterManifest(
            kind=EMBEDDING,
            parts=tuner.parts,
            recipe="textual-inversion",
            config={},
            base_model=base.reference,
            dataset_sha256="",
            bundle_sha256="",
            trigger=word,
            libraries={},
        ).write(root / name)
    return root


@pytest.fixture
def learned(server: Server, words: Path) -> Server:
    for name in ("first", "second", "other"):
        shutil.copytree(words / name, server.state.root / name)
        assert server.post("/adapters", {"name": name, "src": name}).status_code == 200
    return server


def asked(prompt: str, *names: str, **fields: Any) -> dict[str, Any]:
    return {**body(embeddings=list(names), **fields), "inputs": prompt}


def test_the_same_word_is_another_for_each_request(learned: Server) -> None:
    bodies = [asked("a photo of <toy>", name) for name in ("first", "second")]
    bodies += [asked("a photo of <toy>"), asked("a photo of <toy> on <red>", "first", "other")]
    alone = [images_of(learned.post("/invocations", one)) for one in bodies]
    for number, images in enumerate(alone):
        for other in alone[:number]:
            assert far(images, other) > ROUNDED
    learned.state.drawing.reader._kept.clear()

    async def together(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/invocations", json=one) for one in bodies * 2))

    for answer, expected in zip(learned.run(together), alone * 2, strict=True):
        assert far(images_of(answer), expected) <= ROUNDED


def test_a_word_is_read_in_any_spelling_and_beside_adapters_and_in_what_not_to_draw(learned: Server) -> None:
    adapters = [{"name": "dog"}]
    plain = learned.post("/invocations", asked("a photo of <toy>", "first", adapters=adapters))
    spelled = learned.post("/invocations", asked("a photo of <TOY>", "first", adapters=adapters))
    assert images_of(spelled) == images_of(plain)
    assert [one["name"] for one in plain.json()["adapters"]] == ["dog", "first"]
    first, second = plain.json()["images"][0]["generations"]
    assert (first > 0, second) == (True, None)
    negative = {"seed": 1, "negative_prompt": "a <toy>"}
    drawn = [
        images_of(learned.post("/invocations", asked("a photo", *names, parameters=negative)))
        for names in (("first",), ("second",), ())
    ]
    assert min(far(drawn[0], drawn[1]), far(drawn[0], drawn[2])) > ROUNDED


@pytest.mark.parametrize("word", ["<toy>_1", "<|endoftext|>"])
def test_a_word_that_is_there_already_is_refused_and_never_read_as_another(
    learned: Server, words: Path, word: str
) -> None:
    answer = learned.post("/invocations", asked("<toy>", "first", "second"))
    assert answer.status_code == 422
    assert "each learned a word" in answer.json()["error"]["message"]
    folder = shutil.copytree(words / "other", learned.state.root / "known")
    tensors = load_file(folder / EMBEDDINGS_FILE)
    save_file({word: tensors["<red>"]}, folder / EMBEDDINGS_FILE)
    manifest = AdapterManifest.read(folder).model_copy(update={"trigger": word})
    (folder / MANIFEST_FILE).unlink()
    manifest.write(folder)
    assert learned.post("/adapters", {"name": "known", "src": "known"}).status_code == 200
    answer = learned.post("/invocations", asked(f"a {word}", "first", "known"))
    assert answer.status_code == 424
    assert images_of(learned.post("/invocations", asked("a <toy>", "first")))


def test_rows_that_do_not_fit_or_are_no_numbers_are_refused(learned: Server, words: Path) -> None:
    for number, rows in enumerate((torch.zeros(2, 99), torch.full((2, 16), float("nan")), torch.zeros(16))):
        folder = shutil.copytree(words / "other", learned.state.root / f"evil-{number}")
        save_file({"<red>": rows}, folder / EMBEDDINGS_FILE)
        AdapterManifest.read(folder).write(folder)
        assert learned.post("/adapters", {"name": "evil", "src": folder.name}).status_code == 424


def test_what_a_text_encoder_does_not_read_is_said_and_a_lost_word_is_refused(learned: Server) -> None:
    long = "a photo of " + "dog " * 40
    image = learned.post("/invocations", asked(long)).json()["images"][0]
    assert "nothing reads" in image["warnings"][0]
    as_bytes = learned.post("/invocations", asked(long), accept="image/png")
    assert as_bytes.status_code == 200
    lost = learned.post("/invocations", asked(f"{long} <toy>", "first"))
    assert lost.status_code == 422
    assert '"<toy>" is cut off' in lost.json()["error"]["message"]
    assert "warnings" not in learned.post("/invocations", asked("<toy> dog", "first")).json()["images"][0]


@pytest.mark.parametrize("vectors", [0, 3000])
def test_a_word_that_no_text_encoder_can_read_is_refused(learned: Server, vectors: int) -> None:
    folder = learned.state.root / "other"
    ((key, rows),) = load_file(folder / EMBEDDINGS_FILE).items()
    save_file({key: torch.zeros(vectors, rows.shape[1])}, folder / EMBEDDINGS_FILE)
    AdapterManifest.read(folder).write(folder)
    answer = learned.post("/adapters", {"name": "other", "src": "other"})
    assert answer.status_code == 424
    assert f"[{vectors}] vectors" in answer.json()["error"]["message"]


def test_a_word_has_no_strength(learned: Server) -> None:
    asked_in_part = body(adapters=[{"name": "first", "weight": 0.5}])
    answer = learned.post("/invocations", asked_in_part)
    assert answer.status_code == 424
    assert "no strength other than 1" in answer.json()["error"]["message"]
