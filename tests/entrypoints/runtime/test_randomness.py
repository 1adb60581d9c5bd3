"""Keyed randomness: the same key, the same draws; another key, others."""

from collections import Counter

import torch

from entrypoints.runtime.randomness import generator, image_indices, keyed_seed


def test_equal_keys_draw_equal_numbers() -> None:
    first, second = (torch.randn(4, generator=generator(7, "step", 0, 5)) for _ in range(2))
    assert torch.equal(first, second)


def test_every_part_of_a_key_counts() -> None:
    keys = [(7, "step", 0, 5), (8, "step", 0, 5), (7, "lora", 0, 5), (7, "step", 1, 5), (7, "step", 0, 6)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own() -> None:
    visits = image_indices(3, "instance", 0, 30, 10)
    epochs = [tuple(visits[start : start + 10]) for start in (0, 10, 20)]
    assert all(Counter(epoch) == Counter(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 3


def test_a_batch_is_the_same_however_the_run_came_there() -> None:
    assert image_indices(3, "instance", 0, 12, 5)[8:] == image_indices(3, "instance", 8, 4, 5)
