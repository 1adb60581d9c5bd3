"""The training loop: its arithmetic, when it saves, and when it gives up."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from entrypoints.adapters.full import Full
from entrypoints.adapters.lora import Lora
from entrypoints.adapters.tuner import Tuner
from entrypoints.models.base import BaseModel
from entrypoints.models.loading import load_base_model
from entrypoints.recipes.dreambooth import captions
from entrypoints.runtime.failures import TrainingError
from entrypoints.runtime.ranks import Ranks
from entrypoints.runtime.stop import StopFlag
from entrypoints.train import run_recipe
from entrypoints.training import checkpoint
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, Stream
from entrypoints.training.latents import latents_of
from entrypoints.training.loop import Trainer, fit, learning_rate
from entrypoints.training.run import Run
from orchestrator.contract.environment import Environment


def checkpoints_of(environment: Any) -> list[int]:
    return [int(path.name.rpartition("-")[2]) for path in checkpoint.newest_first(environment.checkpoints)]


def rates(**fields: Any) -> list[float]:
    recipe = tiny.dreambooth(learning_rate=0.4, **fields)
    return [learning_rate(recipe, step) for step in range(recipe.steps)]


def test_learning_rates_by_hand() -> None:
    assert rates(steps=3) == pytest.approx([0.4, 0.4, 0.4])
    assert rates(steps=4, lr_schedule="linear") == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert rates(steps=4, lr_schedule="cosine") == pytest.approx([0.4, 0.3414, 0.2, 0.0586], abs=1e-4)
    assert rates(steps=4, warmup_steps=3) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert rates(steps=6, warmup_steps=1, lr_schedule="linear") == pytest.approx([0.2, 0.4, 0.32, 0.24, 0.16, 0.08])


def gradients(base_folder: Path, job: Any, *, batch_size: int, gradient_accumulation: int) -> dict[str, torch.Tensor]:
    """Return what a step changes, with momentum-free steps of one size."""
    recipe = tiny.dreambooth(
        batch_size=batch_size, gradient_accumulation=gradient_accumulation, max_grad_norm=1e9, tuner="full"
    )
    run = Run(job(recipe, f"batch-{batch_size}"), recipe)
    base = load_base_model(base_folder, "tiny", None, run.device)
    images = run.training_images()
    stream = Stream("instance", latents_of(base, recipe, images), captions(images, recipe.instance_prompt))
    objective = DenoisingObjective(base, recipe, [stream, stream], PromptEncoder(base, frozen=True))
    trainer = Trainer(run, recipe, Full(base, text_encoder=False).parameters, objective)
    trainer.take_step()
    return {name: value for name, value in trainer.tensors().items() if name.startswith("exp_avg/")}


def test_accumulated_gradients_equal_those_of_a_bigger_batch(base_folder: Path, job: Any) -> None:
    at_once = gradients(base_folder, job, batch_size=4, gradient_accumulation=1)
    in_turn = gradients(base_folder, job, batch_size=2, gradient_accumulation=2)
    assert max(tensor.abs().max() for tensor in at_once.values()) > 1e-3
    for name, tensor in at_once.items():
        torch.testing.assert_close(in_turn[name], tensor, atol=1e-6, rtol=1e-4)


def first_losses(job: Any, run: Any, field: str, values: list[float | None]) -> list[float]:
    """Return the loss of a run's first step under several values of a field."""

    def loss(number: int, value: float | None) -> float:
        recipe = tiny.dreambooth(steps=1, evaluation_prompts=0, **{field: value})
        return float(next(event["loss"] for event in run(job(recipe, f"job-{number}")) if event["event"] == "step"))

    return [loss(number, value) for number, value in enumerate(values)]


def test_the_loss_of_the_class_has_its_weight(job: Any, run: Any) -> None:
    subject_alone, once, three_times = first_losses(job, run, "prior_loss_weight", [0, 1, 3])
    assert once - subject_alone > 0.1
    assert three_times - subject_alone == pytest.approx(3 * (once - subject_alone), rel=1e-4)


def test_min_snr_weighs_the_loss(job: Any, run: Any) -> None:
    plain, low, twice_as_high, beyond_all = first_losses(job, run, "snr_gamma", [None, 1e-4, 2e-4, 1e9])
    assert low < 1e-3 * plain
    assert twice_as_high == pytest.approx(2 * low, rel=0.01)  # below every sample's ratio the loss is linear in gamma
    assert low < beyond_all < plain  # of v: snr / (snr + 1)


def test_gradients_are_cut_to_the_longest_allowed(job: Any, run: Any) -> None:
    environment = job(tiny.dreambooth(steps=1, max_grad_norm=1e-4, evaluation_prompts=0))
    run(environment)
    tensors = dict(checkpoint.read_tensors(checkpoint.folder_of(environment.checkpoints, 1), torch.device("cpu")))
    momenta = torch.cat([tensor.flatten() for name, tensor in tensors.items() if name.startswith("exp_avg/")])
    assert momenta.norm().item() == pytest.approx((1 - 0.9) * 1e-4, rel=1e-2)  # AdamW's beta is 0.9


def test_training_lowers_the_loss(job: Any, run: Any) -> None:
    recipe = tiny.dreambooth(steps=60, tuner="full", batch_size=4, learning_rate=3e-3, prior_preservation=False)
    events = run(job(recipe.model_copy(update={"evaluation_prompts": 0})))
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_what_was_trained(job: Any, run: Any) -> None:
    # rates near 1 on every weight: the activations pass float32's range within a few steps
    recipe = tiny.dreambooth(steps=200, learning_rate=0.99, tuner="full", weight_decay=1e3)
    environment = job(recipe)
    with pytest.raises(TrainingError, match=r"at step \d+") as caught:
        run(environment)
    assert caught.value.kind == "nan-loss"
    assert "learning_rate" in caught.value.next_step
    (last,) = checkpoints_of(environment)
    assert f"step {last + 1}; the checkpoint at step {last} is kept" in caught.value.message
    tensors = dict(checkpoint.read_tensors(checkpoint.folder_of(environment.checkpoints, last), torch.device("cpu")))
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_damaged_autoencoder_ends_the_run_before_anything_is_saved(
    job: Any, run: Any, base_folder: Path, tmp_path: Path
) -> None:
    folder = tiny.write_base_model(tmp_path / "damaged")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["quant_conv.bias"].fill_(3e38)  # finite, but what is made of it is not
    save_file(weights, path, metadata={"format": "pt"})
    environment = job(tiny.dreambooth(prior_preservation=False), base_model=folder)
    with pytest.raises(TrainingError, match="at step 1; there is no checkpoint"):
        run(environment)
    assert checkpoints_of(environment) == []


class BadGradients:
    """An objective whose loss is always finite, and whose gradients are not at some steps."""

    def __init__(self, tuner: Tuner, bad_steps: range) -> None:
        self.tuner = tuner
        self.bad_steps = bad_steps

    def losses(self, step: int, ranks: Ranks) -> Iterator[torch.Tensor]:
        assert ranks.is_first
        total = torch.stack([parameter.square().sum() for parameter in self.tuner.parameters.values()]).sum()
        yield (0 * total).sqrt() if step in self.bad_steps else total  # the slope of a root at 0 is infinite

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        assert not state

    def measures(self) -> dict[str, float]:
        return {}


def fit_with_bad_gradients(job: Any, base: BaseModel, bad_steps: range) -> Any:
    recipe = tiny.dreambooth(steps=60, mixed_precision="fp16")
    run = Run(job(recipe), recipe)
    tuner = Lora(base, rank=2, alpha=2, text_encoder=False, seed=0)
    fit(run, base, recipe, tuner, BadGradients(tuner, bad_steps))
    return run.environment


def test_gradients_that_no_factor_makes_finite_end_the_run(job: Any, base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gradients are not finite numbers at step \d+; the check") as caught:
        fit_with_bad_gradients(job, base, range(3, 60))
    assert caught.value.kind == "nan-loss"
    assert "bf16" in caught.value.next_step
    (last,) = checkpoints_of(Environment(root=tmp_path / "job"))
    assert f"at step {last + 1}; the checkpoint at step {last} is kept" in caught.value.message
    assert last > 3 + 16  # halved from 65536


def test_a_few_steps_that_overflow_are_left_out(job: Any, base: BaseModel) -> None:
    assert checkpoints_of(fit_with_bad_gradients(job, base, range(3, 13))) == [60]


def test_checkpoints_by_steps_and_at_the_end(job: Any, run: Any) -> None:
    environment = job(tiny.dreambooth(steps=5, checkpoint_steps=2, keep_checkpoints=3, evaluation_prompts=0))
    events = run(environment)
    assert [event["step"] for event in events if event["event"] == "checkpoint"] == [2, 4, 5]
    assert checkpoints_of(environment) == [5, 4, 2]


def test_checkpoints_by_the_minute(job: Any, run: Any) -> None:
    environment = job(tiny.dreambooth(steps=3, checkpoint_minutes=1e-9, evaluation_prompts=0))
    events = run(environment)
    assert [event["step"] for event in events if event["event"] == "checkpoint"] == [1, 2, 3]
    assert checkpoints_of(environment) == [3, 2]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_other_ways_to_compute_give_about_the_same_loss(
    job: Any, run: Any, precision: str, checkpointing: bool
) -> None:
    warnings: dict[str, str] = {}

    def losses(name: str, **fields: Any) -> list[float]:
        events = run(job(tiny.dreambooth(steps=2, evaluation_prompts=0, **fields), name))
        warnings[name] = " ".join(event["message"] for event in events if event["event"] == "warning")
        return [event["loss"] for event in events if event["event"] == "step"]

    plain = losses("plain")
    other = losses("other", mixed_precision=precision, gradient_checkpointing=checkpointing, train_text_encoder=True)
    assert other == pytest.approx(plain, rel=0.05)
    assert other != plain
    slow_on_cpu = f"mixed_precision={precision} is for GPUs"
    assert slow_on_cpu in warnings["other"]
    assert "is for GPUs" not in warnings["plain"]


def test_validation_pictures_are_drawn_and_change_nothing(job: Any, run: Any) -> None:
    with_pictures = job(tiny.dreambooth(validation_prompts=("sks dog", "a dog"), validation_steps=2), "with")
    events = run(with_pictures)
    shown = [event["path"] for event in events if event["event"] == "sample"]
    assert len(shown) == 6
    assert all((with_pictures.root / path).is_file() for path in shown)
    plain = job(tiny.dreambooth(), "plain")
    run(plain)
    weights = [load_file(each.model / "pytorch_lora_weights.safetensors") for each in (with_pictures, plain)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_job_that_is_stopped_before_training_stops(job: Any) -> None:
    from entrypoints.runtime.stop import Stopped

    environment = job(tiny.dreambooth())
    with pytest.raises(Stopped):
        run_recipe(environment, StopFlag(asked=True))
    assert not environment.model.exists()
