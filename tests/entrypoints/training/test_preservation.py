"""Differential preservation: the base model's own predictions hold the class in place."""

from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from entrypoints.adapters.loading import load_adapter
from entrypoints.models.loading import load_base_model
from orchestrator.contract.environment import Environment
from orchestrator.contract.recipe import recipe_class

LONG = {"steps": 40, "evaluation_prompts": 0, "batch_size": 4, "learning_rate": 3e-2}


def drift(environment: Environment) -> float:
    """How far the tuned model is from the base for the class alone."""
    folder = environment.root / "input" / "data" / "base_model"
    noisy = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    times = torch.linspace(50, 950, 8).long()
    found = []
    for tuned in (False, True):
        base = load_base_model(folder, "tiny", None, torch.device("cpu"))
        if tuned:
            load_adapter(base, environment.model)
        with torch.no_grad():
            found.append(base.predict(noisy, times, base.encode_prompts(["a photo of dog"] * 8)))
    return float((found[0] - found[1]).square().mean())


def losses(events: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in events if event["event"] == "step"]


def test_it_draws_no_class_images_and_begins_with_the_loss_of_the_subject(
    job: Any, run: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = run(job(tiny.dreambooth(prior_preservation=False), "plain"))
    held = run(job(tiny.dreambooth(output_preservation=True), "held"))
    assert not [event for event in held if event.get("name") == "class images"]
    assert losses(held)[0] == losses(plain)[0]  # a fresh adapter has moved nothing
    assert losses(held)[1:] != losses(plain)[1:]


def test_the_class_drifts_less_with_it(job: Any, run: Any) -> None:
    plain = job(tiny.dreambooth(prior_preservation=False, **LONG), "plain")
    held = job(tiny.dreambooth(output_preservation=True, prior_loss_weight=3, **LONG), "held")
    for environment in (plain, held):
        run(environment)
        weights = load_file(environment.model / "pytorch_lora_weights.safetensors")
        assert all(weight.abs().max() > 0 for weight in weights.values())
    assert drift(held) < 0.7 * drift(plain)


def test_it_takes_the_place_of_class_images() -> None:
    dreambooth = recipe_class("dreambooth")
    recipe = dreambooth(instance_prompt="a photo of sks dog", output_preservation=True).model_dump()
    assert (recipe["prior_preservation"], recipe["class_prompt"]) == (False, "a photo of dog")
    with pytest.raises(ValueError, match="leave one of the two out"):
        dreambooth(instance_prompt="sks dog", output_preservation=True, prior_preservation=True)
    with pytest.raises(ValueError, match="beside the tuned one"):
        dreambooth(instance_prompt="sks dog", output_preservation=True, tuner="full")
