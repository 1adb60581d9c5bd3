"""Sizes for pictures of different shapes."""

import math

import pytest

from orchestrator.contract.buckets import Size, bucket_sizes, nearest_size


@pytest.mark.parametrize(("resolution", "step"), [(512, 64), (1024, 32), (64, 16), (520, 64), (32, 64)])
def test_no_size_has_more_area_than_the_square_and_each_can_be_halved(resolution: int, step: int) -> None:
    sizes = bucket_sizes(resolution, step)
    assert sizes
    assert all(size.width * size.height <= resolution**2 for size in sizes)
    if resolution >= step:
        assert all(side % step == 0 and side <= 2 * resolution for size in sizes for side in size)
    assert {Size(size.height, size.width) for size in sizes} == set(sizes)


def test_a_square_stays_a_square() -> None:
    for resolution, step in ((512, 64), (1024, 32), (64, 16)):
        sizes = bucket_sizes(resolution, step)
        assert nearest_size(Size(300, 300), sizes) == Size(resolution, resolution)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (16, 9), (9, 16), (4, 3), (1, 2), (5, 1)])
def test_a_picture_loses_little_but_where_it_is_longer_than_the_longest_size(shape: tuple[int, int]) -> None:
    size = nearest_size(Size(*shape), bucket_sizes(512, 64))
    off = abs(math.log(shape[0] / shape[1]) - math.log(size.width / size.height))
    longest = max(math.log(one.width / one.height) for one in bucket_sizes(512, 64))
    beyond = max(0.0, abs(math.log(shape[0] / shape[1])) - longest)
    assert off <= beyond + 0.13  # an eighth of the longer side
    assert size.width * size.height > 0.75 * 512**2


def test_turning_a_picture_turns_its_size() -> None:
    sizes = bucket_sizes(768, 64)
    for width in range(1, 40):
        wide = nearest_size(Size(width, 20), sizes)
        tall = nearest_size(Size(20, width), sizes)
        assert wide == Size(tall.height, tall.width)
