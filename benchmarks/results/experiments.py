"""What is trained and how it is judged: names, recipes, settings, seeds."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.digest import hash_files, tree_sha256
from orchestrator.contract.recipe import recipe_class, to_hyperparameters
from orchestrator.resources import ASSETS

SEEDS = (0, 1, 2)
"""Of the training, for what is compared with an interval; the rest is trained with the first."""
HELD_OUT = "held-out layouts"
"""Inputs of the ControlNets' evaluation: drawn when they are needed."""


class Experiment(BaseModel):
    """One training and its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Name of the row."""
    recipe: str
    """Name of the recipe, as it is typed."""
    settings: dict[str, Any] = {}
    """What differs from the recipe's defaults."""
    seeds: tuple[int, ...] = SEEDS[:1]
    """Of the training."""
    weights: tuple[float, ...] = (1.0,)
    """Strengths that it is evaluated with."""
    reference: str | None = None
    """Pictures to evaluate with that are not those kept with the adapter."""
    prompts: tuple[str, ...] = ()
    """Prompts to evaluate with that are not the recipe's own."""

    def words(self, seed: int) -> list[str]:
        """Return the arguments of `submit`."""
        words = ["submit", self.recipe, "--name", self.job_name(seed), "-s", f"seed={seed}"]
        for field, value in self.settings.items():
            words += ["-s", f"{field}={json.dumps(value) if not isinstance(value, str) else value}"]
        return words

    def job_name(self, seed: int) -> str:
        """Return the name of the job and of its adapter."""
        letters = [letter if letter.isalnum() else "-" for letter in self.name.lower()]
        return f"{'-'.join(part for part in ''.join(letters).split('-') if part)}-{seed}"

    def key(self, seed: int, base_model: str) -> str:
        """Return a hash of what its figures depend on but the code: `base_model` is the hash of its files.

        Settings that are left out count as what they are by default, and pictures by their content.
        """
        declared = recipe_class(self.recipe)
        recipe = declared(**{**declared.sample_defaults, **self.settings, "seed": seed})
        pictures = hash_files(ASSETS / recipe.dataset.sample)
        facts = [
            base_model,
            tree_sha256(pictures),
            to_hyperparameters(recipe),
            self.job_name(seed),
            self.weights,
            self.reference,
            self.prompts,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _tuner(name: str, **settings: Any) -> Experiment:
    return Experiment(name=f"dreambooth, {name}", recipe="dreambooth", settings={"tuner": name, **settings})


DREAMBOOTH = Experiment(name="dreambooth", recipe="dreambooth", seeds=SEEDS)
WITH_CLASS = Experiment(
    name="dreambooth, class pictures",
    recipe="dreambooth",
    settings={"prior_preservation": True},
)
WITH_OUTPUT = Experiment(
    name="dreambooth, output preservation",
    recipe="dreambooth",
    settings={"output_preservation": True},
)
TUNERS = (
    _tuner("dora"),
    _tuner("lokr"),
    _tuner("loha"),
    _tuner("oft"),
)
FULL = _tuner("full")
INVERSION = Experiment(name="textual inversion", recipe="textual-inversion", seeds=SEEDS)
PIVOTAL = Experiment(
    name="pivotal",
    recipe="dreambooth",
    settings={"pivotal": True, "rare_token": "<sks>", "instance_prompt": "a photo of <sks> monster"},
    seeds=SEEDS,
)
# No training picture of the style shows one of these pairs.
STYLE_PROMPTS = (
    "a green heart on a yellow background",
    "a blue ring on a pink background",
    "a purple star on a green background",
    "a red square on a white background",
    "an orange diamond on a blue background",
    "a pink triangle on a purple background",
    "a yellow circle on a red background",
    "a blue cross on an orange background",
)
STYLE = Experiment(name="style", recipe="lora", weights=(1.0, 0.0), prompts=STYLE_PROMPTS)
STYLE_IN_ATTENTION = Experiment(
    name="style, attention alone",
    recipe="lora",
    settings={"targets": "attention"},
    prompts=STYLE_PROMPTS,
)
CANNY = Experiment(name="controlnet, canny", recipe="controlnet", reference=HELD_OUT)
UNION = Experiment(
    name="controlnet, canny and palette",
    recipe="controlnet",
    settings={"conditions": ["canny", "palette"]},
    reference=HELD_OUT,
)
SUBJECTS = (DREAMBOOTH, WITH_CLASS, WITH_OUTPUT, *TUNERS, FULL, INVERSION, PIVOTAL)
"""What learns the sample subject."""
EXPERIMENTS: Mapping[str, Experiment] = {one.name: one for one in (*SUBJECTS, STYLE, STYLE_IN_ATTENTION, CANNY, UNION)}
