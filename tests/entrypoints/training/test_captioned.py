"""Captioned images: which are visited when, with which words, and in which shape."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image

from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.pictures import CaptionedImage, list_images
from entrypoints.runtime.randomness import grouped_indices, image_indices
from entrypoints.training.captions import caption_prompts, repeated, shuffled
from entrypoints.training.denoising import MOST_PROMPTS, DenoisingObjective, PromptEncoder, Stream
from entrypoints.training.latents import latents_of
from orchestrator.contract.adapter import AdapterManifest

GROUPS = [[4, 0], [1, 5, 6, 2, 7], [3]]


def test_images_of_all_groups_are_visited_equally_often_and_a_step_shows_one_group() -> None:
    visits: Counter[int] = Counter()
    steps = 400
    for step in range(steps):
        indices = grouped_indices(0, "images", step, 4, GROUPS)
        assert len(indices) == 4
        assert any(set(indices) <= set(group) for group in GROUPS)
        visits.update(indices)
    expected = steps * 4 / 8
    assert set(visits) == set(range(8))
    assert all(abs(count - expected) <= 4 for count in visits.values())


def test_one_group_is_visited_like_a_stream_without_groups() -> None:
    for step in range(5):
        assert grouped_indices(3, "instance", step, 2, [[0, 1, 2]]) == image_indices(3, "instance", step * 2, 2, 3)


def test_an_image_that_counts_thrice_is_visited_thrice_as_often(tmp_path: Path) -> None:
    rows = [{"file_name": "0.png", "text": "a dog", "repeats": 3}, {"file_name": "1.png", "text": "a toy"}]
    folder = tiny.write_pictures(tmp_path, 2)
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert [image.path.name for image in repeated(list_images(folder))] == ["0.png"] * 3 + ["1.png"]


@pytest.mark.parametrize("repeats", [0, -1, 1001, "many", [2]])
def test_repeats_that_are_no_count_are_a_failure(tmp_path: Path, repeats: object) -> None:
    folder = tiny.write_pictures(tmp_path, 1)
    row = {"file_name": "0.png", "text": "a dog", "repeats": repeats}
    (folder / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(TrainingError, match="cannot be read"):
        list_images(folder)


def visits(captions: list[str], **fields: Any) -> list[str]:
    images = [CaptionedImage(Path("x.png"), caption) for caption in captions]
    prompts_of = caption_prompts(tiny.captioned_lora(**fields), images)
    return prompts_of([0] * 500, torch.Generator().manual_seed(1))


def test_a_caption_is_left_out_as_often_as_asked() -> None:
    assert 30 <= visits(["a dog"], caption_dropout=0.1).count("") <= 70
    assert set(visits(["a dog"], caption_dropout=0)) == {"a dog"}


def test_the_trigger_word_stands_before_each_caption_but_not_twice_and_goes_with_it() -> None:
    assert set(visits(["a dog"], trigger_word="inkstyle")) == {"inkstyle, a dog", ""}
    assert set(visits(["an Inkstyle dog"], trigger_word="inkstyle")) == {"an Inkstyle dog", ""}


def test_tags_are_shuffled_behind_those_that_keep_their_place() -> None:
    seen = set(visits(["dog, red,  small , wet"], shuffle_tags=True, kept_tags=1, caption_dropout=0))
    assert len(seen) == 6
    assert all(text.startswith("dog, ") and sorted(text.split(", ")) == ["dog", "red", "small", "wet"] for text in seen)
    assert shuffled("a dog", 1, torch.Generator()) == "a dog"


def test_each_image_is_trained_in_a_shape_near_its_own(base: BaseModel, tmp_path: Path) -> None:
    for number, size in enumerate([(40, 40), (80, 40), (40, 80), (82, 40)]):
        Image.new("RGB", size, (number * 50, 0, 0)).save(tmp_path / f"{number}.png")
    images = list_images(tmp_path)
    for crop in (False, True):
        latents = latents_of(base, tiny.captioned_lora(random_crop=crop), images)
        assert sorted(map(sorted, latents.groups)) == [[0], [1, 3], [2]]
        random = torch.Generator().manual_seed(0)
        wide = latents.views_of([1, 3], latents.cuts(2, random)).moments
        assert wide.shape[-1] > wide.shape[-2]  # width, height
        assert latents.views_of([2], latents.cuts(1, random)).moments.shape[-2:] == wide.shape[-2:][::-1]


def test_a_set_too_large_to_be_kept_has_the_same_latents(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = list_images(tiny.write_pictures(tmp_path))
    kept = latents_of(base, tiny.captioned_lora(), images)
    monkeypatch.setattr("entrypoints.training.latents.MOST_CACHED", 10)
    fresh = latents_of(base, tiny.captioned_lora(), images)
    assert type(kept) is not type(fresh)
    for group in kept.groups:
        cuts = kept.cuts(len(group), torch.Generator())
        found = [latents.views_of(group, cuts).moments for latents in (kept, fresh)]
        assert torch.equal(*found)


def test_no_more_prompts_are_kept_than_fit(base: BaseModel) -> None:
    encoder = PromptEncoder(base, frozen=True)
    first = encoder(["a dog"])
    for number in range(MOST_PROMPTS + 5):
        encoder([f"a dog {number}"])
    assert len(encoder._known) == MOST_PROMPTS
    assert torch.equal(encoder(["a dog"])["encoder_hidden_states"], first["encoder_hidden_states"])


def test_it_learns_draws_its_captions_and_says_what_calls_it_up(job: Any, run: Any) -> None:
    environment = job(tiny.captioned_lora(trigger_word="sks", evaluation_prompts=2, tuner="loha"))
    events = run(environment)
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert len(losses) == 4
    manifest = AdapterManifest.read(environment.model)
    assert (manifest.kind, manifest.trigger, manifest.captions) == ("peft", "sks", 3)
    assert "The prompts are captions of the training data." in environment.report.read_text()
    index = json.loads((environment.model / "samples" / "index.json").read_text())
    drawn = {(image["source"], image["prompt"]) for image in index["images"] if image["source"] != "real"}
    assert drawn == {
        ("before", "a dog, red, photo"),
        ("after", "sks, a dog, red, photo"),
        ("before", "a toy, red, photo"),
        ("after", "sks, a toy, red, photo"),
    }


def test_an_image_without_a_caption_ends_the_run(job: Any, run: Any) -> None:
    environment = job(tiny.captioned_lora())
    table = environment.root / "input" / "data" / "training" / "metadata.jsonl"
    table.write_text(table.read_text().splitlines()[0])
    with pytest.raises(TrainingError, match=r"no caption: 1\.png, 2\.png"):
        run(environment)


def probed(base: BaseModel, captions: list[str], folder: Path) -> DenoisingObjective:
    """An objective of as many images as captions, each of which counts as ten."""
    folder.mkdir()
    images = []
    for number, caption in enumerate(captions):
        path = folder / f"{number}.png"
        tiny.random_image(number).save(path)
        images.append(CaptionedImage(path, caption, repeats=10))
    visited = repeated(images)
    recipe = tiny.captioned_lora(caption_dropout=0)
    latents = latents_of(base, recipe, visited)
    stream = Stream("images", latents, caption_prompts(recipe, visited), is_described=True)
    return DenoisingObjective(base, recipe, [stream], PromptEncoder(base, frozen=True))


def test_captions_are_probed_on_all_images_and_not_where_all_are_the_same(base: BaseModel, tmp_path: Path) -> None:
    captions = [f"a {colour} {thing}" for colour in ("red", "wet") for thing in ("dog", "toy")]
    objective = probed(base, captions, tmp_path / "different")
    own, others = objective.probe(16), objective.probe(16, shift=1)
    assert own is not None
    assert others is not None
    assert bool((own.losses != others.losses).all())  # each has the caption of another image
    assert set(objective.encoder._known) == set(captions)  # of all images, although each stands there ten times
    assert probed(base, ["a dog"] * 4, tmp_path / "same").probe(16, shift=1) is None
