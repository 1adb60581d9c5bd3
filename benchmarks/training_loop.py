"""Steps per second of our training loop, beside the bare forward + backward + optimizer step on batches of that size.

The bare step is there twice: with PEFT's own layers, and with ours, whose gradients are written out. All train an
adapter of the same model in one process on one thread, in turns, so that whatever else the machine does falls on all.
Run from the repository's root: python -m benchmarks.training_loop
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft.tuners.lora import Linear
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from benchmarks.report import write_section  # noqa: E402
from entrypoints.adapters.low_rank_layer import LowRankLinear  # noqa: E402
from entrypoints.models.base import BaseModel  # noqa: E402
from entrypoints.models.loading import load_base_model  # noqa: E402
from entrypoints.recipes.dreambooth import captions, make_tuner  # noqa: E402
from entrypoints.runtime.pictures import list_images  # noqa: E402
from entrypoints.training.denoising import DenoisingObjective, PromptEncoder, Stream  # noqa: E402
from entrypoints.training.latents import latents_of  # noqa: E402
from entrypoints.training.loop import Trainer, announce  # noqa: E402
from entrypoints.training.run import Run  # noqa: E402
from orchestrator.contract.environment import Environment  # noqa: E402
from orchestrator.contract.recipes.dreambooth import DreamBooth  # noqa: E402

LIMIT = 1.10
"""Our loop's time over that of the bare step."""
PEFT_STEP = "bare step with PEFT's layers"
BARE_STEP = "bare step"
OUR_LOOP = "our loop"
WARM_UP = 2  # rounds that are not counted


def stream_names(recipe: DreamBooth) -> list[str]:
    """Return the streams whose samples share a forward pass."""
    return ["instance", "class"] if recipe.prior_preservation else ["instance"]


def with_pefts_layers(base: BaseModel) -> BaseModel:
    """Have the adapted layers of a model compute as PEFT's own do, of which ours are a subclass."""
    for module in base.denoiser.modules():
        if isinstance(module, LowRankLinear):
            module.__class__ = Linear
    return base


def bare_step(base: BaseModel, recipe: DreamBooth, parameters: list[Tensor]) -> Callable[[], None]:
    """Return one step and nothing around it: the batch is made once, beforehand."""
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, fused=True)
    side = recipe.resolution // base.pipeline.vae_scale_factor
    samples = recipe.batch_size * len(stream_names(recipe))
    shape = (samples, base.denoiser.config.in_channels, side, side)
    latents, noise = torch.randn(shape), torch.randn(shape)
    timesteps = torch.randint(0, 1000, shape[:1])
    with torch.no_grad():
        conditions = base.encode_prompts([recipe.instance_prompt] * shape[0])
    noisy = base.process.noised(latents, noise, timesteps)
    target = base.process.target(latents, noise, timesteps)

    def step() -> None:
        loss = torch.nn.functional.mse_loss(base.predict(noisy, timesteps, conditions), target)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def our_step(
    run: Run, base: BaseModel, recipe: DreamBooth, parameters: dict[str, torch.nn.Parameter]
) -> Callable[[], None]:
    """Return what the loop does for each step: draws, loss, clipping, schedule, the event on stdout."""
    pictures = list_images(run.environment.root / "pictures")
    latents, prompts = latents_of(base, recipe, pictures), captions(pictures, recipe.instance_prompt)
    streams = [Stream(name, latents, prompts) for name in stream_names(recipe)]
    objective = DenoisingObjective(base, recipe, streams, PromptEncoder(base, frozen=True))
    trainer = Trainer(run, recipe, parameters, objective)

    def step() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            announce(trainer, trainer.take_step(), 0.1)

    return step


def in_turns(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Time the steps one after the other, round by round, in seconds; the first rounds are left out."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + WARM_UP):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Write the table; the exit status is 1 when our loop is more than a tenth slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--base-model", type=Path, default=ROOT / "orchestrator" / "assets" / "base_model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pictures").symlink_to(ROOT / "orchestrator" / "assets" / "sample")
        recipe = DreamBooth(instance_prompt="a photo of sks monster")
        run = Run(Environment(root=Path(folder)), recipe)
        seconds = in_turns(make_steps(run, recipe, options.base_model), options.rounds)
    report(seconds)


def make_steps(run: Run, recipe: DreamBooth, folder: Path) -> dict[str, Callable[[], None]]:
    """Return the steps by name: PEFT's with a model of its own, the others with one together."""
    base = load_base_model(folder, "builtin", None, torch.device("cpu"))
    of_peft = load_base_model(folder, "builtin", None, torch.device("cpu"))
    peft_parameters = make_tuner(recipe, of_peft).parameters
    parameters = make_tuner(recipe, base).parameters
    return {
        PEFT_STEP: bare_step(with_pefts_layers(of_peft), recipe, list(peft_parameters.values())),
        BARE_STEP: bare_step(base, recipe, list(parameters.values())),
        OUR_LOOP: our_step(run, base, recipe, parameters),
    }


def report(seconds: dict[str, list[float]]) -> None:
    """Print and write the table, and judge it."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    loop_ratio = medians[OUR_LOOP] / medians[BARE_STEP]
    layer_ratio = medians[BARE_STEP] / medians[PEFT_STEP]
    whole_ratio = medians[OUR_LOOP] / medians[PEFT_STEP]
    rows = [f"| {name} | {median:.4f} | {1 / median:.2f} |" for name, median in medians.items()]
    head = "| | seconds a step, median | steps a second |\n| --- | --- | --- |"
    rounds = len(seconds[OUR_LOOP])
    verdict = (
        f"\nRatios of medians over {rounds} rounds in turns, one thread: our loop to the bare step {loop_ratio:.3f} "
        f"(limit {LIMIT:.2f});\nthe bare step to the one with PEFT's layers {layer_ratio:.3f}; "
        f"our loop to the one with PEFT's layers {whole_ratio:.3f}."
    )
    text = "\n".join([head, *rows, verdict])
    print(text)
    write_section("Training loop", text)
    if loop_ratio > LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
