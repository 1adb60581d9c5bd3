"""Sabotaged runs that the watchdog has to catch in their first tenth, and good runs that it must not disturb.

Each run is a real one on the built-in base model, cut off after a tenth of its steps. A sabotage is a mistake that
people make in training code, data or models, planted into a run that is otherwise good. Run from the repository's root:
python -m benchmarks.watchdog [--good N] [--only NAME ...]
"""

import argparse
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # entrypoints: reached by path, never installed

from benchmarks.report import write_section  # noqa: E402
from entrypoints.models.ddpm import Ddpm  # noqa: E402
from entrypoints.models.latent_diffusion import LatentDiffusion  # noqa: E402
from entrypoints.models.stable_diffusion import StableDiffusion  # noqa: E402
from entrypoints.runtime.failures import TrainingError  # noqa: E402
from entrypoints.runtime.stop import StopFlag, Stopped  # noqa: E402
from entrypoints.train import run_recipe  # noqa: E402
from entrypoints.training import loop  # noqa: E402
from entrypoints.training.denoising import DenoisingObjective  # noqa: E402
from entrypoints.training.optimizers import SavedOptimizer  # noqa: E402
from orchestrator.contract.environment import Environment  # noqa: E402
from orchestrator.contract.recipe import Recipe, recipe_class, to_hyperparameters  # noqa: E402
from orchestrator.resources import ASSETS, BUILTIN_MODEL  # noqa: E402

STEPS = 200
LOOKED_AT = STEPS // 10
GOOD_RUNS = 100

WATCHED = ("a small red circle on a white background", "a large blue star on a green background", "a yellow square")
"""Validation prompts of every run."""

Patches = Callable[[], Any]
"""Gives a context in which a mistake is planted."""


def wrong_sign() -> Any:
    """Climb the loss."""
    own = DenoisingObjective._loss  # noqa: SLF001 - the place of the mistake
    return patch.object(DenoisingObjective, "_loss", lambda self, parts: -own(self, parts))


def zero_rate() -> Any:
    """Never move."""
    return patch.object(loop, "learning_rate", return_value=0.0)


def frozen_adapter() -> Any:
    """Give the optimizer copies of the weights."""
    own = SavedOptimizer.__init__

    def of_copies(self: SavedOptimizer, recipe: Any, parameters: Any, second: Any = None) -> None:
        copies = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in parameters.items()}
        own(self, recipe, copies, second)

    return patch.object(SavedOptimizer, "__init__", of_copies)


def scaled_latents(factor: float) -> Any:
    """Forget the autoencoder's scaling factor, or apply it twice."""
    own = LatentDiffusion.encode_images
    return patch.object(LatentDiffusion, "encode_images", lambda self, images: own(self, images) * factor)


def double_shift() -> Any:
    """Add the noise of other times than the denoiser is told."""
    own = Ddpm.noised
    return patch.object(Ddpm, "noised", lambda self, latents, noise, times: own(self, latents, noise, times // 4))


def other_target() -> Any:
    """Ask for the noise where the model predicts the velocity."""

    def the_noise(self: Ddpm, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:  # noqa: ARG001
        return noise

    return patch.object(Ddpm, "target", the_noise)


def other_noise() -> Any:
    """Ask for noise that was not added."""
    own = Ddpm.target
    return patch.object(
        Ddpm, "target", lambda self, latents, noise, times: own(self, latents, torch.randn_like(noise), times)
    )


def detached_graph() -> Any:
    """Cut the gradient between the denoiser and the loss."""
    own = StableDiffusion.predict

    def detached(self: StableDiffusion, *args: Any, **kwargs: Any) -> Tensor:
        predicted = own(self, *args, **kwargs)
        return predicted.detach() + 0 * predicted

    return patch.object(StableDiffusion, "predict", detached)


def adapter_beside() -> Any:
    """Predict with the adapter switched off, but let its weights decay."""
    own = StableDiffusion.predict

    def beside(self: StableDiffusion, *args: Any, **kwargs: Any) -> Tensor:
        adapters = [value for name, value in self.denoiser.named_parameters() if "lora_" in name]
        self.denoiser.disable_adapters()
        predicted = own(self, *args, **kwargs)
        self.denoiser.enable_adapters()
        pull = sum(adapter.square().sum() for adapter in adapters) * 1e-6
        return predicted + (pull - pull.detach() if torch.is_grad_enabled() else 0)

    return patch.object(StableDiffusion, "predict", beside)


def overflowing_decoder() -> Any:
    """Decode to NaN, as some autoencoders do in float16."""
    own = AutoencoderKL.decode

    def overflow(self: AutoencoderKL, latents: Tensor, **kwargs: Any) -> Any:
        (pixels,) = own(self, latents, **kwargs)
        return (pixels * float("nan"),)

    return patch.object(AutoencoderKL, "decode", overflow)


@contextmanager
def nothing() -> Iterator[None]:
    """Plant nothing in the code."""
    yield


SABOTAGES: dict[str, tuple[Patches, dict[str, Any]]] = {
    "wrong sign": (wrong_sign, {}),
    "zero rate": (zero_rate, {}),
    "optimizer of copies": (frozen_adapter, {}),
    "latents not scaled": (lambda: scaled_latents(5.5), {}),
    "latents scaled twice": (lambda: scaled_latents(0.18), {}),
    "noise of other times": (double_shift, {}),
    "noise as the target of a velocity": (other_target, {}),
    "noise that was not added": (other_noise, {}),
    "detached graph": (detached_graph, {}),
    "adapter that is not used": (adapter_beside, {}),
    "rate a hundred times too high": (nothing, {"learning_rate": 0.2}),
    "captions of other images": (nothing, {"recipe": "lora", "shuffled": True}),
    "autoencoder that overflows": (overflowing_decoder, {}),
}


def recipe_of(seed: int, changes: dict[str, Any]) -> Recipe:
    """Return a recipe of a run; good runs are of all recipes in turn."""
    name = changes.get("recipe", "dreambooth")
    settings: dict[str, Any] = {"steps": STEPS, "evaluation_prompts": 0, "seed": seed}
    settings |= {"validation_prompts": WATCHED, "validation_steps": LOOKED_AT}
    declared = recipe_class(name)
    settings |= declared.sample_defaults
    if name == "dreambooth":
        settings["prior_preservation"] = False
    return declared(**settings, **{key: value for key, value in changes.items() if key not in ("recipe", "shuffled")})


def lay_out(folder: Path, recipe: Recipe, *, shuffled: bool) -> Environment:
    """Lay out the job's folders with the packaged sample."""
    environment = Environment(root=folder)
    data = folder / "input" / "data"
    data.mkdir(parents=True)
    sample = ASSETS / recipe.dataset.sample
    training = data / "training"
    training.mkdir()
    for path in sample.glob("*.png"):
        (training / path.name).symlink_to(path)
    table = sample / "metadata.jsonl"
    if table.is_file():
        rows = [json.loads(line) for line in table.read_text().splitlines()]
        if shuffled:
            texts = [row["text"] for row in rows]
            random.Random(recipe.seed).shuffle(texts)  # noqa: S311 - an order
            rows = [{**row, "text": text} for row, text in zip(rows, texts, strict=True)]
        (training / table.name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (data / "base_model").symlink_to(BUILTIN_MODEL, target_is_directory=True)
    environment.hyperparameters_file.parent.mkdir(parents=True)
    environment.hyperparameters_file.write_text(json.dumps(to_hyperparameters(recipe)))
    return environment


class StopAfter(StopFlag):
    """Asks a run to stop when the watchdog has had its looks: it is asked once a step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    @property
    def asked(self) -> bool:  # type: ignore[override]
        """Whether the steps are over."""
        self.left -= 1
        return self.left < 0

    @asked.setter
    def asked(self, value: bool) -> None:
        """Ignore a reset."""


def alarms(changes: dict[str, Any], planted: Patches, seed: int) -> list[str]:
    """Run a tenth of a job and return what it warned of or failed with."""
    recipe = recipe_of(seed, changes)
    told = io.StringIO()
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder, planted(), redirect_stdout(told), redirect_stderr(io.StringIO()):
        environment = lay_out(Path(folder), recipe, shuffled=bool(changes.get("shuffled")))
        try:
            run_recipe(environment, StopAfter(LOOKED_AT + 5))
        except Stopped:
            pass
        except TrainingError as error:
            found.append(error.message)
    for line in told.getvalue().splitlines():
        event = json.loads(line)
        if event["event"] == "warning":
            found.append(event["message"])
    return found


def main() -> None:
    """Write the table; the exit status is 1 when a sabotage was missed or a good run disturbed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--good", type=int, default=GOOD_RUNS, help="how many good runs")
    parser.add_argument("--only", nargs="*", help="names of sabotages")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    caught = 0
    chosen = {name: SABOTAGES[name] for name in options.only or SABOTAGES}
    for seed, (name, (planted, changes)) in enumerate(chosen.items()):
        found = alarms(changes, planted, seed)
        caught += bool(found)
        said = found[0].split(". ")[0] if found else "nothing"
        rows.append(f"| {name} | {said} |")
        print(rows[-1], flush=True)
    false_alarms = 0
    kinds = ("dreambooth", "lora", "textual-inversion")
    for number in range(options.good):
        seed = random.Random(number).randrange(2**31)  # noqa: S311 - seeds of runs
        found = alarms({"recipe": kinds[number % len(kinds)]}, nothing, seed)
        false_alarms += bool(found)
        if found:
            print(kinds[number % len(kinds)], seed, found, flush=True)
    summary = (
        f"{caught} of {len(chosen)} sabotaged runs were caught in their first {LOOKED_AT} of {STEPS} steps; "
        f"{false_alarms} of {options.good} good runs were disturbed."
    )
    print(summary)
    if options.only is None and options.good == GOOD_RUNS:
        write_section("Watchdog", "\n".join([summary, "", "| mistake | what was said |", "| --- | --- |", *rows]))
    if caught < len(chosen) or false_alarms:
        sys.exit(1)


if __name__ == "__main__":
    main()
