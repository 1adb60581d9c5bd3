"""What the benchmark of the training loop compares: the same work, in turns."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch

from benchmarks.sample_job import picture_recipes, sample_recipe
from benchmarks.training_loop import LIMIT, Measured, Turns, report
from benchmarks.training_steps import (
    BARE_STEP,
    OUR_LOOP,
    PEFT_STEP,
    bare_step,
    kinds_of,
    prepare,
    run_loop,
    with_pefts_layers,
)
from entrypoints.adapters.low_rank_layer import LowRankConv2d, LowRankLinear
from entrypoints.runtime.ranks import Ranks

MB = 1_000_000


@pytest.fixture(scope="module")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_base_model(tmp_path_factory.mktemp("tiny") / "model")


def measured(loop: float, layers: float | None = None) -> Measured:
    seconds = {BARE_STEP: [0.1, 0.2, 9.0], OUR_LOOP: [0.2 * loop] * 3}
    if layers is not None:
        seconds = {PEFT_STEP: [0.2 / layers] * 3, **seconds}
    return Measured("dreambooth", seconds, dict.fromkeys(seconds, 600 * MB))


@pytest.mark.parametrize("name", picture_recipes())
def test_the_bare_step_has_the_loss_of_the_recipes_own_first_step(name: str, base_model: Path, tmp_path: Path) -> None:
    settings = {"initializer_token": "dog"} if name == "textual-inversion" else {}
    prepared = prepare(sample_recipe(name, resolution=tiny.SIDE, **settings), tmp_path, base_model)
    (own,) = prepared.objective.losses(0, Ranks())
    before = {key: value.detach().clone() for key, value in prepared.tuner.parameters.items()}
    assert bare_step(prepared)() == pytest.approx(own.item(), rel=1e-5)
    after = prepared.tuner.parameters
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_pefts_layers_take_the_place_of_all_of_ours_and_give_the_same_loss(base_model: Path, tmp_path: Path) -> None:
    recipe = sample_recipe("dreambooth", resolution=tiny.SIDE)
    ours, theirs = (prepare(recipe, tmp_path / name, base_model) for name in ("ours", "theirs"))
    own = (LowRankLinear, LowRankConv2d)
    for layer in own:
        assert any(isinstance(module, layer) for module in theirs.base.denoiser.modules())
    with_pefts_layers(theirs)
    assert not any(isinstance(module, own) for module in theirs.base.denoiser.modules())
    assert bare_step(theirs)() == pytest.approx(bare_step(ours)(), rel=1e-5)


def test_the_loop_gives_the_others_a_turn_after_each_step_until_they_have_had_enough(
    base_model: Path, tmp_path: Path
) -> None:
    prepared = prepare(sample_recipe("dreambooth", resolution=tiny.SIDE), tmp_path, base_model)
    first = prepared.tuner.parameters
    seen: list[torch.Tensor] = []

    def turn() -> bool:
        seen.append(torch.cat([value.detach().flatten() for value in first.values()]))
        return len(seen) == 3

    run_loop(prepared, turn)
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_each_kind_of_step_is_charged_with_its_own_time_and_the_first_rounds_with_none() -> None:
    def times() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += 1.0

    clock = times()

    def waits_two() -> float:
        next(clock)
        next(clock)
        return 0.0

    turns = Turns({BARE_STEP: waits_two}, rounds=3, clock=lambda: next(clock))
    rounds = 1
    while not turns.take():
        rounds += 1
    assert rounds == 5
    assert turns.seconds == {BARE_STEP: [3.0, 3.0, 3.0], OUR_LOOP: [1.0, 1.0, 1.0]}


def test_ratios_are_of_medians_and_each_is_judged_by_its_limit() -> None:
    assert measured(1.05).loop_ratio == pytest.approx(1.05)
    assert measured(1.05).is_within_limits
    assert not measured(1.11).is_within_limits
    assert measured(1.05, layers=0.94).is_within_limits
    assert not measured(1.05, layers=0.96).is_within_limits


def test_the_table_has_a_row_for_each_step_and_says_the_slowest_loop() -> None:
    text = report([measured(1.05, layers=0.94), measured(1.08)], rounds=3)
    assert f"| dreambooth | {OUR_LOOP} | 0.2100 | 4.76 | 1.050 | 600 |" in text
    assert f"| dreambooth | {BARE_STEP} | 0.2000 | 5.00 |  | 600 |" in text
    assert f"at most 1.080 (limit {LIMIT:.2f})" in text
    assert "PEFT's layers 0.940 (limit 0.95)" in text


def test_every_recipe_is_measured_and_dreambooth_beside_pefts_layers() -> None:
    for name in picture_recipes():
        assert {BARE_STEP, OUR_LOOP} <= set(kinds_of(name))
    assert PEFT_STEP in kinds_of("dreambooth")
