"""Images that show nothing, or the same whatever the prompt, are told apart from those of a model that learns."""

import numpy as np
import pytest
import tiny
from PIL import Image

from entrypoints.evaluation.collapse import doubt_of


def scene(seed: int) -> Image.Image:
    """Return an image of large fields of colour."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 64))


def blended(image: Image.Image, other: Image.Image, share: float) -> Image.Image:
    return Image.blend(image, other, share)


BASE = [scene(seed) for seed in range(3)]


@pytest.mark.parametrize(("colour", "word"), [("black", "black"), ("white", "white"), ("grey", "of one colour")])
def test_images_of_one_colour_are_told_whether_or_not_the_base_is_known(colour: str, word: str) -> None:
    images = [Image.new("RGB", (64, 64), colour)] * 3
    for before in ([], BASE, images):
        assert doubt_of(images, before) == f"The validation images are {word} all over, or nearly so"
    assert doubt_of(images[:1], []) is not None


def test_noise_is_no_content() -> None:
    noise = [tiny.random_image(seed).resize((256, 256), Image.Resampling.NEAREST) for seed in range(2)]
    faint = [blended(Image.new("RGB", (256, 256), "grey"), image, 0.03) for image in noise]
    assert "of one colour" in str(doubt_of(faint, BASE[:2]))


def test_images_that_are_the_same_for_each_prompt_are_told_where_those_of_the_base_were_not() -> None:
    same = [blended(scene(9), image, 0.05) for image in BASE]
    assert "nearly the same" in str(doubt_of(same, BASE))
    assert doubt_of(same, same) is None  # so the base draws them too
    assert doubt_of(same, []) is None


def test_a_model_that_learns_a_subject_or_a_style_is_left_alone() -> None:
    subject = [blended(scene(9), image, 0.4) for image in BASE]  # the same thing in other places
    pale = [blended(Image.new("RGB", (64, 64), "white"), image, 0.3) for image in BASE]
    for images in (subject, pale, BASE[:1]):
        assert doubt_of(images, BASE[: len(images)]) is None
