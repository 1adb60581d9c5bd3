"""Optimizers, averages, noise offset and compilation: what they change, and what they leave."""

from typing import Any

import pytest
import tiny
import torch
from torch import nn

from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from entrypoints.training.averages import Average
from entrypoints.training.compilation import CompiledForward
from entrypoints.training.optimizers import OPTIMIZERS, SavedOptimizer, with_8_bits
from orchestrator.contract.recipe import recipe_class


def moved(optimizer: SavedOptimizer, steps: int, first: int = 0) -> None:
    """Take some steps down a bowl."""
    for step in range(first, first + steps):
        optimizer.set_rate(1.0 if "d" in optimizer.optimizer.defaults else 0.01, step)
        for parameter in optimizer.parameters.values():
            parameter.grad = 2 * parameter.detach() + 0.01 * step
        optimizer.optimizer.step()


def weights() -> dict[str, nn.Parameter]:
    large = nn.Parameter(torch.linspace(-1, 1, 6144).reshape(64, 96))  # enough for moments of 8 bits
    return {"a": nn.Parameter(torch.linspace(-1, 1, 6).reshape(2, 3)), "b": nn.Parameter(torch.zeros(4)), "c": large}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_down_and_goes_on_from_its_saved_state_to_the_bit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="a package for GPUs, which has kernels for CPUs too")
        monkeypatch.setitem(OPTIMIZERS, name, with_8_bits)  # as on a GPU
    recipe = tiny.dreambooth(optimizer=name)
    whole = SavedOptimizer(recipe, weights())
    moved(whole, 6)
    assert whole.parameters["a"].norm() < weights()["a"].norm()

    half = SavedOptimizer(recipe, weights())
    moved(half, 3)
    resumed = SavedOptimizer(recipe, weights())
    with torch.no_grad():
        for key, parameter in resumed.parameters.items():
            parameter.copy_(half.parameters[key])
    for kind, key, value in half.tensors():
        resumed.restore_tensor(kind, key, value.clone())
    resumed.restore_numbers(half.numbers())
    moved(resumed, 3, first=3)
    for key, parameter in whole.parameters.items():
        assert torch.equal(parameter, resumed.parameters[key])
    if name == "adamw8bit":
        moments = {kind: value.dtype for kind, key, value in whole.tensors() if key == "c"}
        assert (moments["state1"], moments["state2"]) == (torch.uint8, torch.uint8)


def test_prodigy_has_the_rate_one_unless_a_person_says_otherwise() -> None:
    lora = recipe_class("lora")
    assert lora(optimizer="prodigy").model_dump()["learning_rate"] == 1
    assert lora(optimizer="prodigy", learning_rate=0.5).model_dump()["learning_rate"] == 0.5
    assert lora().model_dump()["learning_rate"] < 0.1


def test_an_8_bit_optimizer_is_refused_without_a_gpu(job: Any, run: Any) -> None:
    with pytest.raises(TrainingError, match="needs a GPU") as caught:
        run(job(tiny.dreambooth(optimizer="adamw8bit")))
    assert "optimizer=adamw" in caught.value.next_step


def test_an_average_by_hand() -> None:
    parameters = {"a": nn.Parameter(torch.tensor([1.0]))}
    average = Average(parameters, decay=0.5)
    with torch.no_grad():
        parameters["a"].fill_(2)
    average.update(0)  # decay (1 + 0) / (10 + 0)
    assert average.weights["a"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    average.update(100)  # decay 0.5
    assert average.weights["a"].item() == pytest.approx(1.95)
    with average.published():
        assert parameters["a"].item() == pytest.approx(1.95)
    assert parameters["a"].item() == 2
    average.publish()
    assert parameters["a"].item() == pytest.approx(1.95)


def losses(events: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in events if event["event"] == "step"]


def test_an_averaged_run_takes_the_same_steps_and_publishes_other_weights(job: Any, run: Any) -> None:
    plain, averaged = job(tiny.dreambooth(), "plain"), job(tiny.dreambooth(ema_decay=0.9), "averaged")
    assert losses(run(plain)) == losses(run(averaged))
    files = [(environment.model / "pytorch_lora_weights.safetensors").read_bytes() for environment in (plain, averaged)]
    assert files[0] != files[1]


def test_a_noise_offset_changes_what_is_learned_from(job: Any, run: Any) -> None:
    without, with_offset = (run(job(tiny.dreambooth(noise_offset=offset), f"{offset}")) for offset in (0.0, 0.5))
    assert losses(without) != losses(with_offset)


def test_a_compiled_denoiser_is_compiled_while_it_trains_alone(base: BaseModel) -> None:
    own = base.denoiser.forward
    compiled = CompiledForward(base.denoiser, enabled=True, backend="eager")
    noisy, times, conditions = torch.ones(1, 4, 16, 16), torch.tensor([5]), base.encode_prompts(["a dog"])
    found = base.predict(noisy, times, conditions)
    assert base.denoiser.forward != own
    with compiled.paused():
        assert base.denoiser.forward == own
        torch.testing.assert_close(base.predict(noisy, times, conditions), found)
    assert base.denoiser.forward != own
    compiled.remove()
    assert base.denoiser.forward == own


def test_a_denoiser_that_cannot_be_compiled_is_said_so(base: BaseModel) -> None:
    def backend(graph: Any, inputs: Any) -> Any:
        raise OSError("no compiler here")

    CompiledForward(base.denoiser, enabled=True, backend=backend)
    with pytest.raises(TrainingError, match="cannot be compiled") as caught:
        base.predict(torch.ones(1, 4, 16, 16), torch.tensor([5]), base.encode_prompts(["a dog"]))
    assert "compile=false" in caught.value.next_step
