"""Steps of a recipe, to be timed: the bare one with nothing around it, and those of the training loop itself.

As a program, takes some steps of one kind and prints the peak memory of the process, for which it is the only one:
python -m benchmarks.training_steps RECIPE STEP
"""

import argparse
import inspect
import io
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from benchmarks.sample_job import lay_out, picture_recipes, sample_recipe  # noqa: E402
from entrypoints.adapters.low_rank_layer import LowRankConv2d, LowRankLinear  # noqa: E402
from entrypoints.adapters.tuner import Tuner  # noqa: E402
from entrypoints.models.base import BaseModel, Conditions  # noqa: E402
from entrypoints.runtime.libraries import quieten  # noqa: E402
from entrypoints.runtime.randomness import generator  # noqa: E402
from entrypoints.runtime.stop import StopFlag, Stopped  # noqa: E402
from entrypoints.training import loop  # noqa: E402
from entrypoints.training.control import ControlObjective  # noqa: E402
from entrypoints.training.denoising import Batch, DenoisingObjective, join  # noqa: E402
from entrypoints.training.optimizers import SecondRate  # noqa: E402
from entrypoints.training.run import Run  # noqa: E402
from orchestrator.contract.mixins import Denoising  # noqa: E402
from orchestrator.contract.recipe import Recipe  # noqa: E402
from orchestrator.resources import BUILTIN_MODEL  # noqa: E402

PEFT_STEP = "bare step with PEFT's layers"
BARE_STEP = "bare step"
OUR_LOOP = "our loop"
COMPARED_WITH_PEFT = ("dreambooth",)
"""Recipes whose bare step is there with PEFT's own layers too."""
PEAK_STEPS = 8
"""After so many, nothing more is allocated."""

BareStep = Callable[[], float]
"""Takes a step and returns its loss."""


@dataclass(frozen=True)
class Prepared:
    """What a recipe hands to the training loop: all is loaded and encoded, and no step is taken."""

    run: Run
    base: BaseModel
    recipe: Denoising
    tuner: Tuner
    objective: DenoisingObjective
    second: SecondRate | None = None


def kinds_of(recipe: str) -> list[str]:
    """Return the kinds of steps that a recipe is measured by."""
    kinds = [BARE_STEP, OUR_LOOP]
    if recipe in COMPARED_WITH_PEFT:
        kinds.insert(0, PEFT_STEP)
    return kinds


def prepare(recipe: Recipe, folder: Path, base_model: Path = BUILTIN_MODEL) -> Prepared:
    """Run a recipe's own `train` up to where it calls `fit`, in a job of its own."""
    run = Run(lay_out(folder, recipe, base_model=base_model), recipe)
    module = import_module(f"entrypoints.recipes.{recipe.recipe_name().replace('-', '_')}")
    with patch.object(module, "fit", side_effect=Stopped) as handed, redirect_stdout(io.StringIO()), suppress(Stopped):
        module.train(recipe, run)
    given = inspect.signature(loop.fit).bind(*handed.call_args.args, **handed.call_args.kwargs).arguments
    given.pop("validate", None)
    return Prepared(**given)


def bare_step(prepared: Prepared) -> BareStep:
    """Return forward, loss, backward, clipping and optimizer; the batch and its noise are made once, beforehand."""
    base = prepared.base
    recipe = prepared.recipe
    base.denoiser.train()
    batch = first_batch(prepared)
    noisy = base.process.noised(batch.latents, batch.noise, batch.times)
    target = base.process.target(batch.latents, batch.noise, batch.times)
    conditions_of = bare_encoder(prepared, batch.prompts)
    network = prepared.objective.network if isinstance(prepared.objective, ControlObjective) else None
    parameters = list(prepared.tuner.parameters.values())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=True,
    )

    def step() -> float:
        conditions = conditions_of()
        residuals = None
        if network is not None:
            residuals = base.residuals(network, noisy, batch.times, conditions, batch.pictures)
        predicted = base.predict(noisy, batch.times, conditions, residuals)
        loss = torch.nn.functional.mse_loss(predicted, target)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def first_batch(prepared: Prepared) -> Batch:
    """Return the samples of the loop's first step."""
    objective = prepared.objective
    random = generator(prepared.recipe.seed, "step", 0, 0)
    draws = []
    for stream in objective.streams:
        draws.append(objective._draw(stream, 0, prepared.run.ranks, random))  # noqa: SLF001 - what the loop draws
    return join(draws)


def bare_encoder(prepared: Prepared, prompts: list[str]) -> Callable[[], Conditions]:
    """Return what encodes prompts that are tokens already; once and for all, unless text encoders are trained."""
    base = prepared.base
    (encoder,) = base.text_encoders.values()
    (tokenizer,) = base.tokenizers
    texts = base.pipeline.maybe_convert_prompt(prompts, tokenizer)  # a new word may be several tokens
    tokens = tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )

    def encoded() -> Conditions:
        hidden: Tensor = encoder(tokens.input_ids)[0]
        return {"encoder_hidden_states": hidden}

    if prepared.tuner.trains_text_encoder:
        return encoded
    with torch.no_grad():
        known = encoded()
    return lambda: known


def with_pefts_layers(prepared: Prepared) -> Prepared:
    """Have the adapted layers of a model compute as PEFT's own do, of which ours are a subclass."""
    for module in prepared.base.denoiser.modules():
        if isinstance(module, LowRankLinear):
            module.__class__ = Linear
        if isinstance(module, LowRankConv2d):
            module.__class__ = Conv2d
    return prepared


class OthersTurn(StopFlag):
    """Calls `turn` when the training loop asks whether to stop, which it does after each step; stops if it is true."""

    def __init__(self, turn: Callable[[], bool]) -> None:
        self.turn = turn

    @property
    def asked(self) -> bool:  # type: ignore[override]
        """Whether the loop is to end."""
        return self.turn()


def run_loop(prepared: Prepared, turn: Callable[[], bool]) -> None:
    """Train by `fit` itself, without images in between; it calls `turn` after each step, and ends when that is true."""
    given: dict[str, Any] = {field: getattr(prepared, field) for field in ("base", "recipe", "tuner", "objective")}
    prepared.run.stop = OthersTurn(turn)
    with redirect_stdout(io.StringIO()), suppress(Stopped):
        loop.fit(prepared.run, **given, second=prepared.second)


def take_steps(prepared: Prepared, kind: str, count: int) -> None:
    """Take some steps of one kind."""
    if kind == OUR_LOOP:
        left = iter(range(count - 1))
        run_loop(prepared, lambda: next(left, None) is None)
        return
    step = bare_step(with_pefts_layers(prepared) if kind == PEFT_STEP else prepared)
    for _ in range(count):
        step()


def peak_bytes() -> int:
    """Return the peak of this process's resident memory; Linux only.

    Not `ru_maxrss`, which begins with the memory of the process that started this one.
    https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
    """
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    """Take the steps and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=picture_recipes())
    parser.add_argument("kind", choices=[PEFT_STEP, BARE_STEP, OUR_LOOP])
    parser.add_argument("--steps", type=int, default=PEAK_STEPS)
    parser.add_argument("--base-model", type=Path, default=BUILTIN_MODEL)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(sample_recipe(options.recipe), Path(folder), options.base_model)
        take_steps(prepared, options.kind, options.steps)
    print(peak_bytes())


if __name__ == "__main__":
    main()
