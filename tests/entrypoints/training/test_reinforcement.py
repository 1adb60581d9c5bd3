"""Reinforcement learning: the first ratio is 1 to the bit, rewards rise, and a round that is cut off is not lost."""

import math
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image

from entrypoints.runtime.stop import StopFlag, Stopped
from entrypoints.train import run_recipe
from entrypoints.training.reinforcement import nft, rollouts
from entrypoints.training.reinforcement.advantages import flat_share, group_advantages, remembered_advantages
from entrypoints.training.reinforcement.ddpo import clipped_loss
from entrypoints.training.reinforcement.dpo import preference_loss
from entrypoints.training.reinforcement.rollouts import asked_in_round
from entrypoints.training.reinforcement.round_log import RoundLog
from entrypoints.training.rewards.alarms import Measured, Round
from orchestrator.contract.digest import hash_files

GROUPS = torch.tensor([0, 1, 0, 1, 0, 1])


def steps_of(events: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [event["measures"] for event in events if event["event"] == "step"]


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_ratio_of_the_first_update_is_exactly_1(
    guidance: float, precision: str, job: Any, run: Any, family_folder: Path
) -> None:
    recipe = tiny.rlhf(
        algorithm="ddpo", guidance_scale=guidance, mixed_precision=precision, evaluation_prompts=0, kl_weight=0.01
    )
    first, second, third, _ = steps_of(run(job(recipe, base_model=family_folder)))
    assert first["ratio_change"] == third["ratio_change"] == 0  # an update each opens its round
    assert second["ratio_change"] > 0
    assert first["kl"] == 0
    assert third["kl"] > 0


def test_gradient_checkpointing_leaves_the_ratio_at_1(job: Any, run: Any) -> None:
    recipe = tiny.rlhf(algorithm="ddpo", gradient_checkpointing=True, evaluation_prompts=0, rounds=1)
    first, second = steps_of(run(job(recipe)))
    assert first["ratio_change"] == 0
    assert second["ratio_change"] > 0


def test_the_loss_is_clipped_only_where_that_makes_it_worse() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])
    loss = clipped_loss(ratio, advantages, 0.1)
    assert float(loss.detach()) == pytest.approx((-1.1 + 1.5 - 0.5 + 0.9) / 4)
    loss.backward()
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [0, 0.25, -0.25, 0]


def test_advantages_are_relative_to_the_newest_rewards_of_a_prompt() -> None:
    prompts = torch.tensor([0, 0, 1, 1])
    memory = torch.full((2, 3), torch.nan, dtype=torch.float64)
    first, memory = remembered_advantages(torch.tensor([1.0, 3.0, 10, 30]).double(), prompts, memory, 5)
    assert first.mean().item() == pytest.approx(0)  # too few of each prompt: those of the round
    assert first.std(correction=0).item() == pytest.approx(1)
    second, memory = remembered_advantages(torch.tensor([2.0, 4.0, 10, 30]).double(), prompts, memory, 5)
    assert memory.tolist() == [[3, 2, 4], [30, 10, 30]]
    assert second[0].item() == pytest.approx((2 - 3) / (2 / 3) ** 0.5)
    clipped, _ = remembered_advantages(torch.tensor([2.0, 400, 10, 30]).double(), prompts, memory, 0.5)
    assert clipped.abs().max().item() == 0.5


def test_advantages_within_groups_share_one_scale() -> None:
    rewards = torch.tensor([1.0, 100.0, 2.0, 100.0, 3.0, 100.0]).double()
    advantages = group_advantages(rewards, GROUPS, 5)
    assert advantages[GROUPS == 1].tolist() == [0, 0, 0]
    assert advantages.sum().item() == pytest.approx(0)
    assert advantages.square().mean().item() == pytest.approx(1)
    assert flat_share(rewards, GROUPS) == 0.5
    assert not group_advantages(torch.ones(6).double(), GROUPS, 5).any()


def test_the_two_sided_loss_leads_to_good_images_and_away_from_bad_ones() -> None:
    process = tiny.ddpm()
    latents, noise = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    times = torch.tensor([300, 300])
    noisy = process.noised(latents, noise, times)
    old = torch.randn(2, 4, 4, 4)
    prediction = old.clone().requires_grad_(True)
    target = process.target(latents, noise, times)
    good = torch.tensor([1.0, 0.0])
    nft.two_sided_loss(process, nft.Noised(latents, noisy, times), prediction, old, good, 1.0).backward()
    assert prediction.grad is not None
    towards = ((target - old) * -prediction.grad).sum(dim=(1, 2, 3))
    assert towards[0] > 0 > towards[1]
    assert nft.optimality(torch.tensor([-9.0, 0.0, 2.5, 9.0]), 5).tolist() == [0, 0.5, 0.75, 1]


def test_two_ranks_are_asked_for_what_one_with_twice_the_prompts_is() -> None:
    common = {"seed": 3, "number": 2, "group_size": 2}
    prompts = ["a", "b", "c", "d", "e"]
    one = asked_in_round(prompts, rank=0, ranks=1, prompts_per_round=4, **common)
    first = asked_in_round(prompts, rank=0, ranks=2, prompts_per_round=2, **common)
    second = asked_in_round(prompts, rank=1, ranks=2, prompts_per_round=2, **common)
    assert sorted([*first, *second], key=repr) == sorted(one, key=repr)
    assert len({asked.seed for asked in one}) == 8
    visited = [asked.prompt for number in range(5) for asked in _round(prompts, number)]
    assert {visited.count(prompt) for prompt in prompts} == {4}


def _round(prompts: list[str], number: int) -> Any:
    return asked_in_round(prompts, seed=0, number=number, rank=0, ranks=1, prompts_per_round=4, group_size=1)


class Counted:
    """Counts the batches that are drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn = 0
        self.keep = rollouts.KeptRollouts.keep
        monkeypatch.setattr(rollouts.KeptRollouts, "keep", self._keep())

    def _keep(self) -> Any:
        keep = self.keep

        def count(kept: rollouts.KeptRollouts, batch: int, drawn: rollouts.Drawn) -> None:
            self.drawn += 1
            keep(kept, batch, drawn)

        return count


class StopAtItem:
    """A log whose reader asks the job to end as soon as a number of images of a phase is drawn."""

    def __init__(self, stop: StopFlag, done: int) -> None:
        self.stop, self.done = stop, done

    def write(self, text: str) -> int:
        self.stop.asked |= '"event":"item"' in text and f'"done":{self.done},"of":8' in text
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""


@pytest.mark.parametrize("algorithm", ["ddpo", "nft"])
def test_a_run_that_is_stopped_while_it_draws_goes_on_with_the_next_batch(
    algorithm: str, job: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.rlhf(algorithm=algorithm, rounds=1, updates=1)
    whole, cut = job(recipe, "whole"), job(recipe, "cut")
    run(whole)
    counted = Counted(monkeypatch)
    stop = StopFlag()
    with pytest.raises(Stopped), redirect_stdout(StopAtItem(stop, 4)):  # type: ignore[type-var]
        run_recipe(cut, stop)
    assert counted.drawn == 1
    run(cut)
    assert counted.drawn == 2
    assert hash_files(cut.model) == hash_files(whole.model)
    assert not (cut.checkpoints / rollouts.FOLDER).exists()


def test_a_batch_whose_file_is_cut_off_is_drawn_again(tmp_path: Path) -> None:
    kept = rollouts.KeptRollouts(tmp_path, "key", 0)
    kept.keep(0, rollouts.Drawn(torch.ones(2, 4, 8, 8)))
    path = next((tmp_path / rollouts.FOLDER / "key").iterdir())
    path.write_bytes(path.read_bytes()[:-5])
    assert kept.read(0) is None
    assert kept.read(1) is None


def test_other_weights_have_other_rollouts() -> None:
    weights = {"a": torch.zeros(3)}
    key = rollouts.key_of(1, "identity", weights)
    assert key == rollouts.key_of(1, "identity", {"a": torch.zeros(3)})
    others = [
        rollouts.key_of(2, "identity", weights),
        rollouts.key_of(1, "other", weights),
        rollouts.key_of(1, "identity", {"a": torch.ones(3)}),
    ]
    assert key not in others


def test_a_decoded_image_does_not_depend_on_its_neighbours(base: Any) -> None:
    latents = torch.randn(3, 4, 16, 16)
    together = rollouts.decoded(base, latents)
    alone = rollouts.decoded(base, latents[1:2])
    assert together[1].tobytes() == alone[0].tobytes()


def test_a_round_without_differences_teaches_nothing_and_is_no_bug(job: Any, run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("entrypoints.training.rewards.jpeg.kilobytes", _the_same)
    for algorithm in ("ddpo", "nft"):
        recipe = tiny.rlhf(algorithm=algorithm, evaluation_prompts=0, weight_decay=0, rounds=4)
        measures = steps_of(run(job(recipe, algorithm)))
        assert [figures["flat_groups"] for figures in measures] == [1.0] * 8


def _the_same(_image: Image.Image) -> float:
    return 3.0


def test_dpo_moves_predictions_towards_the_chosen_picture_and_away_from_the_rejected_one() -> None:
    reference, target = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    prediction = reference.clone().requires_grad_(True)
    loss, _ = preference_loss(prediction, reference, target, beta=10.0)
    assert float(loss.detach()) == pytest.approx(math.log(2))  # nothing was learned yet
    loss.backward()
    assert prediction.grad is not None
    towards = ((target - reference) * -prediction.grad).sum(dim=(1, 2, 3))
    assert towards[0] > 0 > towards[1]
    moved = reference + 0.1 * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1) * (target - reference)
    better, wins = preference_loss(moved, reference, target, beta=10.0)
    assert float(better) < math.log(2)
    assert wins.tolist() == [1]


def test_dpo_begins_where_nothing_is_preferred(job: Any, run: Any) -> None:
    recipe = tiny.rlhf(algorithm="dpo", steps=2, batch_size=3, dpo_beta=200.0, evaluation_prompts=0)
    first, second = [event for event in run(job(recipe)) if event["event"] == "step"]
    assert first["loss"] == pytest.approx(math.log(2))
    assert first["measures"]["preference_accuracy"] == 0
    assert second["loss"] != first["loss"]


def test_the_adapter_of_each_algorithm_loads_in_plain_diffusers(job: Any, run: Any, base_folder: Path) -> None:
    from diffusers import StableDiffusionPipeline

    environment = job(tiny.rlhf(algorithm="nft"))
    run(environment)
    pipeline = StableDiffusionPipeline.from_pretrained(base_folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 2, "output_type": "latent", "height": tiny.SIDE, "width": tiny.SIDE}
    before = pipeline("a dog", generator=torch.Generator().manual_seed(0), **options).images
    pipeline.load_lora_weights(str(environment.model))
    after = pipeline("a dog", generator=torch.Generator().manual_seed(0), **options).images
    assert not torch.equal(before, after)


def test_a_ratio_that_is_not_1_before_the_first_update_raises_the_alarm(
    job: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.rlhf(algorithm="ddpo", evaluation_prompts=0)
    told = [event for event in run(job(recipe, "right")) if event["event"] == "warning"]
    assert not any("before the first update" in event["message"] for event in told)
    keep = rollouts.KeptRollouts.keep

    def moved(kept: rollouts.KeptRollouts, batch: int, drawn: rollouts.Drawn) -> None:
        assert drawn.path is not None
        drawn.path.log_probs.add_(1e-3)
        keep(kept, batch, drawn)

    monkeypatch.setattr(rollouts.KeptRollouts, "keep", moved)
    told = [event for event in run(job(recipe, "wrong")) if event["event"] == "warning"]
    assert any("the importance ratio before the first update is not 1" in event["message"] for event in told)


def look(number: int, reward: float, other: float) -> Round:
    """Return a look at eight held-out prompts, each a little different."""
    prompts = [f"prompt {place}" for place in range(8)]
    own = {prompt: (reward + 0.01 * place, reward - 0.01 * place) for place, prompt in enumerate(prompts)}
    others = {prompt: (other + 0.02 * place, other + 0.03 * place) for place, prompt in enumerate(prompts)}
    return Round(number=number, reward=Measured(values=own), evaluation={"aesthetic": Measured(values=others)})


def test_held_out_prompts_that_lose_what_nobody_trains_on_raise_the_alarm_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = RoundLog()
    log.add_look(look(0, 1.0, 5.0))
    log.add_look(look(4, 2.0, 5.0))
    assert "Reward hacking" not in capsys.readouterr().out
    log.add_look(look(8, 3.0, 3.0))
    assert 'from round 0 to 8 the reward rose from 1 to 3 while the evaluation reward \\"aesthetic\\" fell' in (
        capsys.readouterr().out
    )
    restored = RoundLog.of_tensor(log.to_tensor())
    restored.add_look(look(8, 3.0, 3.0))  # a run that is resumed looks once more
    restored.add_look(look(12, 4.0, 2.0))
    assert "Reward hacking" not in capsys.readouterr().out
    assert [one.number for one in restored.looks] == [0, 4, 8, 12]
