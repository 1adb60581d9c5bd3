"""The settings of an evaluation: a finished adapter beside its base model, on prompts and seeds training did not use.

They travel as a recipe's do, one hyperparameter each, so that a job that measures is planned, priced, watched and
stopped like one that trains. Its prompts, the adapter and the pictures to compare with are channels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.contract.adapter import CONTROLNET, EMBEDDING, FULL, LORA, PEFT, PIVOTAL
from orchestrator.contract.datasets import NOTHING, DatasetKind
from orchestrator.contract.evaluation_result import EVALUATE
from orchestrator.contract.footprint import Footprint, ModelSize
from orchestrator.contract.generation import MAX_SEED
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipe import Recipe
from orchestrator.contract.samples import MOST_PROMPTS as MOST_ROWS

ADAPTER_CHANNEL = "adapter"
REFERENCE_CHANNEL = "reference"
PROMPTS_CHANNEL = "prompts"
DINO_CHANNEL = "dino"

KINDS = frozenset({CONTROLNET, LORA, FULL, EMBEDDING, PEFT, PIVOTAL})
"""Kinds of adapters that can be measured."""
FIRST_SEED = 1000
"""Training draws its own images from lower seeds, unless somebody has chosen others."""
MOST_SEEDS = 16
MOST_PROMPTS = 32
"""Each is a row of the contact sheet."""
MOST_UNRELATED = 8
MOST_LETTERS = 1000
"""Of a prompt; a text encoder reads far less."""
PROMPTS_FILE = "prompts.json"


class EvaluationPrompts(BaseModel):
    """What an evaluation draws."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: tuple[EvaluationPrompt, ...] = Field(min_length=1, max_length=MOST_PROMPTS)
    """Prompts that ask for what was learned; of a ControlNet one for each reference picture, in their order."""
    unrelated: tuple[str, ...] = Field((), max_length=MOST_UNRELATED)
    """Prompts that do not, for drift."""
    are_captions: bool = False
    """Whether the former are captions of pictures that the adapter was trained on."""

    def write(self, folder: Path) -> None:
        """Write them into the folder of their channel."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROMPTS_FILE).write_text(self.model_dump_json(indent=2), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "EvaluationPrompts":
        """Read them from the folder of their channel."""
        return cls.model_validate_json((folder / PROMPTS_FILE).read_bytes())

    def images(self, seeds: int, conditions: Sequence[str] = ()) -> int:
        """Return how many images both models draw together, with so many seeds and kinds of condition maps."""
        times = 2
        if conditions:
            times = 1 + len(ways_of(conditions))  # one is the base model
        return times * seeds * (len(self.prompts) + len(self.unrelated))

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Everything that text encoders read, each with its name in messages."""
        found = []
        for number, prompt in enumerate(self.prompts, start=1):
            found.append((f"prompt {number}", prompt.after))
        for number, text in enumerate(self.unrelated, start=1):
            found.append((f"unrelated prompt {number}", text))
        return found


class Way(NamedTuple):
    """A way in which a ControlNet is shown maps."""

    kinds: tuple[str, ...]
    """Kinds of the maps that it is shown at once."""
    is_own: bool = True
    """Whether they are of the picture that the image is compared with; else of another."""


def ways_of(conditions: Sequence[str]) -> list[Way]:
    """Return how a ControlNet is shown maps of some kinds: each alone, its own and another's, then the first two."""
    ways = []
    for kind in conditions:
        ways.append(Way((kind,)))
        ways.append(Way((kind,), is_own=False))
    if len(conditions) > 1:
        ways.append(Way(tuple(conditions[:2])))
    return ways


def most_pictures(conditions: Sequence[str]) -> int:
    """Return how many pictures a ControlNet draws anew: each is a row of the contact sheet for each way."""
    rows = [way for way in ways_of(conditions) if way.is_own]
    return min(MOST_PROMPTS, MOST_ROWS // len(rows))


class Evaluation(Recipe):
    """Draw with an adapter and with its base model alone, and measure both.

    It trains nothing: what every recipe has for training (steps, checkpoints, validation) stays as it is by default.
    """

    summary: ClassVar[str] = "measure an adapter beside its base model"
    dataset: ClassVar[DatasetKind] = NOTHING
    entry: ClassVar[str] = "entrypoints.evaluate"
    trains: ClassVar[bool] = False

    adapter: str = Field(min_length=1, max_length=200)
    """The adapter, by its name or that of its folder."""
    weight: float = Field(1.0, ge=-10, le=10)
    """Strength of the adapter: 0 is the base model, 1 the adapter as it was trained."""
    conditions: tuple[str, ...] = ()
    """Kinds of the maps that a ControlNet is shown; empty for an adapter that is none."""
    given_map: str | None = None
    """The kind of map that its given conditions are, if it is known."""
    first_seed: int = Field(FIRST_SEED, ge=0, le=MAX_SEED - MOST_SEEDS)
    """Seed of the first image of each prompt; each further one has the next number."""
    seeds: int = Field(4, ge=1, le=MOST_SEEDS)
    """Images of each prompt, with the adapter and without."""
    images: int = Field(1, ge=1)
    """Images that it draws in all, from which its duration is estimated."""
    resamples: int = Field(2000, ge=100, le=100_000)
    """Resamples of each bootstrap; they are drawn from the setting `seed`."""

    @classmethod
    def recipe_name(cls) -> str:
        """Return the name of the work."""
        return EVALUATE

    def footprint(self, size: ModelSize) -> Footprint:
        """Return what it takes beside drawing: a ControlNet, if it is one.

        The weights of other adapters are few, or take the place of the model's own.
        """
        added = size.control if self.conditions else 0
        return Footprint(trained=0, added=added, samples=0, kept=0.0, text=False)

    @property
    def all_seeds(self) -> list[int]:
        """Seed of each image of a prompt."""
        return list(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def images_drawn(self) -> int:
        """How many images it draws: by both models, of every prompt and seed."""
        return self.images

    @property
    def memory_advice(self) -> str:
        """What is left to do where memory is too small."""
        return "use a larger machine: an evaluation draws as training did, and has nothing to lower"
