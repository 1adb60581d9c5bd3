"""How many rows share a step is measured, and never costs a row more time than fewer would."""

from typing import Any

import pytest
import tiny
import torch

from entrypoints.models.base import BaseModel
from entrypoints.serving.profile import COUNTS, SECONDS, Profile, profiled


class Machine:
    """A clock that a base model's steps move on, by what they cost on some machine."""

    def __init__(self, base: BaseModel, seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.rows: list[int] = []
        self.cost = seconds.__getitem__

        def predict(noisy: torch.Tensor, *_: Any) -> torch.Tensor:
            if len(noisy) not in seconds:
                raise torch.OutOfMemoryError
            self.rows.append(len(noisy))
            self.now += self.cost(len(noisy))
            return noisy

        monkeypatch.setattr(type(base), "predict", lambda _, *arguments: predict(*arguments))

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def machine(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda seconds: Machine(base, seconds, monkeypatch)


@pytest.mark.parametrize(
    ("seconds", "rows"),
    [
        (dict.fromkeys(COUNTS, 0.001), 32),  # every row more is free
        ({2: 0.02, 4: 0.04, 8: 0.08, 16: 0.16, 32: 0.32}, 32),  # none costs more
        ({2: 0.02, 4: 0.03, 8: 0.06, 16: 0.16, 32: 0.32}, 8),  # from 16 on they do
        ({2: 0.02, 4: 0.05, 8: 0.1, 16: 0.2, 32: 0.4}, 2),  # at once
        ({2: 0.02, 4: 0.03}, 4),  # the memory is full
        ({2: SECONDS, 4: SECONDS}, 2),  # slow: measuring would take too long
    ],
)
def test_the_largest_batch_is_taken_whose_rows_are_no_slower(
    base: BaseModel, machine: Any, seconds: dict[int, float], rows: int
) -> None:
    clock = machine(seconds)
    profile = profiled(base, tiny.SIDE, clock)
    assert profile.rows == rows
    assert profile.seconds_per_row == pytest.approx(seconds[rows] / rows)
    assert clock.now <= 3 * SECONDS


def test_a_machine_that_was_busy_for_a_moment_does_not_serve_small_batches_for_ever(
    base: BaseModel, machine: Any
) -> None:
    seconds = dict.fromkeys(COUNTS, 0.02)
    clock = machine(seconds)
    busy = iter((0.02, 0.3, 0.3, 0.3, 0.3))  # in the first sweep, all but the smallest take fifteen times as long

    def step(rows: int) -> float:
        return next(busy, seconds[rows])

    clock.cost = step
    profile = profiled(base, tiny.SIDE, clock)
    assert profile.rows == 32
    assert profile.seconds_per_row == pytest.approx(0.02 / 32)


def test_other_sizes_get_as_many_pixels_and_an_image_with_guidance_always_fits() -> None:
    profile = Profile(64, 16)
    assert [profile.rows_at(size**2) for size in (32, 64, 96, 128, 512)] == [64, 16, 7, 4, 2]


def test_a_real_step_is_measured(base: BaseModel) -> None:
    profile = profiled(base, tiny.SIDE)
    assert profile.rows in COUNTS
    assert profile.seconds_per_row > 0
