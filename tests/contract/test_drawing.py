"""How many images are drawn at once."""

import pytest

from orchestrator.contract.drawing import images_at_once


@pytest.mark.parametrize(("size", "gpu", "images"), [(64, False, 32), (512, False, 1), (512, True, 4), (2048, True, 1)])
def test_a_batch_is_as_large_as_its_pixels_allow(size: int, gpu: bool, images: int) -> None:
    assert images_at_once(size, gpu=gpu) == images


def test_a_batch_of_images_that_are_not_square_has_as_many_pixels() -> None:
    assert images_at_once(64, 128, gpu=False) == 16
    assert images_at_once(32, 64, gpu=False) == 64
