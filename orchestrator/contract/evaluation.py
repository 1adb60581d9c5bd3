"""The settings of an evaluation: a finished adapter beside its base model, on prompts and seeds training did not use.

They travel as a recipe's do, one hyperparameter each, so that a job that measures is planned, priced, watched and
stopped like one that trains. Its prompts, the adapter and the pictures to compare with are channels.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.contract.adapter import EMBEDDING, FULL, LORA, PEFT, PIVOTAL
from orchestrator.contract.datasets import NOTHING, DatasetKind
from orchestrator.contract.evaluation_result import EVALUATE
from orchestrator.contract.footprint import Footprint, ModelSize
from orchestrator.contract.generation import MAX_SEED
from orchestrator.contract.prompts import EvaluationPrompt
from orchestrator.contract.recipe import Recipe

ADAPTER_CHANNEL = "adapter"
REFERENCE_CHANNEL = "reference"
PROMPTS_CHANNEL = "prompts"
DINO_CHANNEL = "dino"

KINDS = frozenset({LORA, FULL, EMBEDDING, PEFT, PIVOTAL})
"""What can be measured: kinds of adapters that draw from a prompt alone."""
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
    """Prompts that ask for what was learned."""
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

    def images(self, seeds: int) -> int:
        """Return how many images both models draw together, with so many seeds."""
        return 2 * seeds * (len(self.prompts) + len(self.unrelated))

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Everything that text encoders read, each with its name in messages."""
        found = []
        for number, prompt in enumerate(self.prompts, start=1):
            found.append((f"prompt {number}", prompt.after))
        for number, text in enumerate(self.unrelated, start=1):
            found.append((f"unrelated prompt {number}", text))
        return found


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

    def footprint(self, size: ModelSize) -> Footprint:  # noqa: ARG002 - it depends on no size
        """Return what it takes beside drawing: an adapter's weights are few, or take the place of the model's own."""
        return Footprint(trained=0, samples=0, kept=0.0, text=False)

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
