"""Jobs of any recipe on the packaged sample and the built-in base model, laid out as a target does it."""

import json
import random
from pathlib import Path
from typing import Any

from orchestrator.contract.datasets import CAPTIONS_FILE, PROMPTS_ALONE
from orchestrator.contract.environment import BASE_MODEL_CHANNEL, TRAINING_CHANNEL, Environment
from orchestrator.contract.recipe import Recipe, recipe_class, recipe_names, to_hyperparameters
from orchestrator.resources import ASSETS, BUILTIN_MODEL


def picture_recipes() -> list[str]:
    """Return the names of the recipes that learn from pictures; a step of the others is of another kind."""
    names = []
    for name in recipe_names():
        if recipe_class(name).dataset != PROMPTS_ALONE:
            names.append(name)
    return names


def sample_recipe(name: str, **settings: Any) -> Recipe:
    """Return a recipe with its defaults, as for a person who names no pictures, and no evaluation at the end."""
    declared = recipe_class(name)
    return declared(**{"evaluation_prompts": 0, **declared.sample_defaults, **settings})


def lay_out(folder: Path, recipe: Recipe, *, base_model: Path = BUILTIN_MODEL, shuffled: bool = False) -> Environment:
    """Lay out a job's folders in `folder`; if `shuffled`, each picture has the caption of another."""
    environment = Environment(root=folder)
    data = folder / "input" / "data"
    training = data / TRAINING_CHANNEL
    training.mkdir(parents=True)
    sample = ASSETS / recipe.dataset.sample
    for path in sample.glob("*.png"):
        (training / path.name).symlink_to(path)
    captions = sample / CAPTIONS_FILE
    if shuffled and not captions.is_file():
        raise ValueError(f"the sample of {recipe.recipe_name()} has no captions to shuffle")
    if captions.is_file():
        rows = [json.loads(line) for line in captions.read_text().splitlines()]
        if shuffled:
            texts = [row["text"] for row in rows]
            order = list(range(len(rows)))
            random.Random(recipe.seed).shuffle(order)  # noqa: S311 - an order
            for place, next_place in zip(order, [*order[1:], order[0]], strict=True):  # one circle: none keeps its own
                rows[place]["text"] = texts[next_place]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (training / CAPTIONS_FILE).write_text(lines)
    (data / BASE_MODEL_CHANNEL).symlink_to(base_model, target_is_directory=True)
    environment.hyperparameters_file.parent.mkdir(parents=True)
    environment.hyperparameters_file.write_text(json.dumps(to_hyperparameters(recipe)))
    return environment
