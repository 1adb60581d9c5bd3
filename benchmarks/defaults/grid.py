"""What is tried: rows of settings, subjects, seeds; and the bars that a default has to clear."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from benchmarks.defaults.subjects import SUBJECTS
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipe import Recipe, recipe_class

Settings = Mapping[str, Any]
"""Fields of a recipe; what is left out has its default."""

# A row says all that the rows of its recipe differ in, so that it stays what it is when a default changes.
_BOOTH: Settings = {
    "targets": "attention",
    "rank": 8,
    "learning_rate": 2e-3,
    "lr_schedule": "cosine",
    "warmup_steps": 0,
    "steps": 150,
    "batch_size": 4,
    "guidance_scale": 2.5,
    "prior_preservation": False,
    "output_preservation": False,
}
_TRANSFORMER: Settings = {**_BOOTH, "targets": "transformer"}
_ALL_LAYERS: Settings = {**_BOOTH, "targets": "all"}
_LONG: Settings = {**_TRANSFORMER, "steps": 250}
_WORD: Settings = {
    "learning_rate": 5e-2,
    "lr_schedule": "cosine",
    "warmup_steps": 0,
    "steps": 300,
    "batch_size": 4,
    "vectors": 2,
    "hold_initializer": False,
}
_HELD: Settings = {**_WORD, "hold_initializer": True}
GRID: Mapping[str, Mapping[str, Settings]] = {
    "dreambooth": {
        "attention, constant, class": {
            **_BOOTH,
            "learning_rate": 1e-3,
            "lr_schedule": "constant",
            "steps": 300,
            "prior_preservation": True,
        },
        "attention": _BOOTH,
        "transformer": _TRANSFORMER,
        "transformer, 200": {**_TRANSFORMER, "steps": 200},
        "transformer, 250": _LONG,
        "transformer, 250, class": {**_LONG, "prior_preservation": True},
        "transformer, 250, output": {**_LONG, "output_preservation": True},
        "all layers": _ALL_LAYERS,
        "all layers, slow": {**_ALL_LAYERS, "learning_rate": 1e-3, "steps": 250},
        "transformer, 250, guidance 2": {**_LONG, "guidance_scale": 2.0},
        "all layers, slow, guidance 2": {
            **_ALL_LAYERS,
            "learning_rate": 1e-3,
            "steps": 250,
            "guidance_scale": 2.0,
        },
        "all layers, 180, guidance 2": {
            **_ALL_LAYERS,
            "learning_rate": 1e-3,
            "steps": 180,
            "guidance_scale": 2.0,
        },
        "all layers, 180, 1.3e-3, guidance 2": {
            **_ALL_LAYERS,
            "learning_rate": 1.3e-3,
            "steps": 180,
            "guidance_scale": 2.0,
        },
    },
    "textual-inversion": {
        "4 vectors, constant": {**_WORD, "vectors": 4, "learning_rate": 2e-2, "lr_schedule": "constant"},
        "4 vectors, strong": {**_WORD, "vectors": 4, "learning_rate": 1e-1},
        "3 vectors, held": {**_HELD, "vectors": 3},
        "3 vectors, held, strong": {**_HELD, "vectors": 3, "learning_rate": 1e-1},
        "2 vectors": _WORD,
        "2 vectors, held": _HELD,
    },
}
DECLARED = "as declared"
"""Name of the row of a recipe's defaults where the grid has none with the same settings."""
SEEDS = (0, 1, 2)
"""Seeds of the training."""
EVALUATION_PROMPTS = 16
"""All that a recipe has; none of them is a training prompt."""
EVALUATION_SEEDS = tuple(range(1000, 1004))
"""Of the noise; the same for all rows and no seeds of training."""
CLASS_SEEDS = tuple(range(2000, 2032))
"""Of the images of the bare class, and not those of DreamBooth's class pictures."""


class Bar(NamedTuple):
    """What a default has to reach with each seed; shares of 1."""

    closed: float
    """Least share of the gap of subject fidelity that is closed."""
    lost: float
    """Largest share of prompt fidelity that is lost."""


BARS = {"dreambooth": Bar(closed=0.65, lost=0.06), "textual-inversion": Bar(closed=0.45, lost=0.12)}


class Trial(BaseModel):
    """One training: settings of a recipe, a subject, a seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: str
    """Name of the recipe."""
    row: str
    """Name of the row; no part of the key."""
    settings: dict[str, Any]
    """Fields of the recipe that the row sets."""
    subject: str
    """One of `SUBJECTS`."""
    seed: int
    """Of the training."""

    def declaration(self) -> Recipe:
        """Return the recipe as it is trained: without an evaluation of its own, whose seeds follow the training's."""
        kind = recipe_class(self.recipe)
        subject = SUBJECTS[self.subject].settings(kind)
        return kind(**{**subject, **self.settings, "seed": self.seed, "evaluation_prompts": 0})

    def prompts(self) -> list[EvaluationPrompt]:
        """Return the prompts that it is judged by."""
        recipe = self.declaration().model_copy(update={"evaluation_prompts": EVALUATION_PROMPTS})
        return recipe.judged_by

    def key(self, base_model: str, pictures: str) -> str:
        """Return a hash of all that its result depends on but the code: `base_model` and `pictures` are hashes."""
        facts = {
            "base_model": base_model,
            "pictures": pictures,
            "recipe": self.recipe,
            "settings": self.declaration().model_dump(mode="json"),
            "prompts": self.prompts(),
            "evaluation_seeds": EVALUATION_SEEDS,
            "class_seeds": CLASS_SEEDS,
        }
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def rows_of(recipe: str) -> dict[str, Settings]:
    """Return the rows of a recipe by their names: the grid's, and the recipe's defaults if they are none of these."""
    rows = dict(GRID[recipe])
    if not any(is_default(recipe, settings) for settings in rows.values()):
        rows[DECLARED] = {}
    return rows


def is_default(recipe: str, settings: Settings) -> bool:
    """Whether settings are those that the recipe declares as its defaults."""
    return declaration(recipe, settings).model_dump() == declaration(recipe, {}).model_dump()


def declaration(recipe: str, settings: Settings) -> Recipe:
    """Return a recipe with some settings for any subject."""
    subject = next(iter(SUBJECTS))
    return Trial(recipe=recipe, row="", settings=dict(settings), subject=subject, seed=0).declaration()


def trials_of(recipe: str, rows: list[str], subjects: list[str], seeds: list[int]) -> list[Trial]:
    """Return the trials of some rows of a recipe, row by row."""
    known = rows_of(recipe)
    trials = []
    for row in rows:
        for subject in subjects:
            for seed in seeds:
                trials.append(
                    Trial(recipe=recipe, row=row, settings=dict(known[row]), subject=subject, seed=seed),
                )
    return trials
