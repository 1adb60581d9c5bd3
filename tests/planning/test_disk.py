"""What a job writes to the disk of this machine is no more than its plan says."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entrypoints.evaluation.before_and_after import Evaluation
from entrypoints.evaluation.samples import IndexedImage
from orchestrator.contract.samples import MOST_REAL, SampleImage, Source
from orchestrator.models.size import of_source
from orchestrator.planning.disk import disk_use
from orchestrator.specs.building import build_spec


def planned_images(**changed: object) -> int:
    """Return the bytes of images that a job is said to write at most."""
    spec = build_spec({"recipe": "dreambooth", "settings": changed})
    use = disk_use(spec.recipe, of_source(spec.base_model), inputs=0)
    assert use is not None
    return use.images


def noise(side: int, seed: int) -> Image.Image:
    """Return an image that no format can compress."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("prompts", "seeds", "side"), [(8, 4, 64), (1, 1, 64), (2, 3, 128)])
def test_samples_and_contact_sheet_are_within_the_estimate(tmp_path: Path, prompts: int, seeds: int, side: int) -> None:
    samples = []

    def add(source: Source, prompt: int, seed: int) -> None:
        text = "" if source == "real" else f"a photo of sks dog, number {prompt}, on a background that takes some words"
        about = SampleImage(file=f"{source}-{prompt:02}-{seed:02}.png", source=source, prompt=text, text=text)
        samples.append(IndexedImage(noise(side, len(samples)), about))

    for number in range(MOST_REAL):
        add("real", 0, number)
    for source in ("before", "after"):
        for prompt in range(prompts):
            for seed in range(seeds):
                add(source, prompt, seed)
    draft = tmp_path / "draft"
    draft.mkdir()
    Evaluation({}, samples).save(draft, title="dreambooth: a photo of sks dog")
    written = sum(path.stat().st_size for path in draft.rglob("*.png"))
    drawn = {"evaluation_prompts": prompts, "evaluation_seeds": seeds, "resolution": side}
    said = planned_images(prior_preservation=False, **drawn)
    copies = 2  # while it is published
    assert copies * written <= said < 3 * copies * written


def test_class_images_count_and_no_sheet_is_drawn_of_nothing() -> None:
    file = io.BytesIO()
    noise(64, 0).save(file, format="PNG")
    said = planned_images(evaluation_prompts=0, prior_preservation=True, class_images=10)
    assert 10 * len(file.getvalue()) <= said < 11 * len(file.getvalue())
    assert planned_images(evaluation_prompts=0, prior_preservation=False) == 0
