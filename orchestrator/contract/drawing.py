"""What client and container agree on about drawing images: an order for some, and how many are drawn at once.

The number at once decides how images come out to the last bit, because another batch rounds differently; and the client
needs it to estimate a job's memory.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.contract.words import NewWord

PIXELS_AT_ONCE_CPU = 32 * 64 * 64
"""Enough to fill two cores."""
PIXELS_AT_ONCE_GPU = 4 * 512 * 512
MOST_DRAWN = 64
"""Images of one order."""
MAX_SEED = 2**32 - 1


def images_at_once(size: int, *, gpu: bool) -> int:
    """Return how many square images with a side of `size` pixels make a batch; at least one."""
    pixels = PIXELS_AT_ONCE_GPU if gpu else PIXELS_AT_ONCE_CPU
    return max(1, pixels // size**2)


class DrawOrder(BaseModel):
    """Images of one prompt to draw with a finished adapter, on this machine and without a job."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    adapter: Path
    """Folder of the adapter."""
    base_model: str
    """The model it was trained on, as messages name it."""
    base_folder: Path | None
    """Folder of that model; None to fetch it from the Hugging Face Hub, or take it from its cache."""
    base_revision: str | None = None
    """Commit or branch of a model of the Hub."""
    weight: float = Field(1.0, ge=-10, le=10)
    """Strength of the adapter: 0 is the base model, 1 the adapter as it was trained."""
    prompt: str = Field(min_length=1, max_length=2500)
    """What to draw."""
    word: NewWord | None = None
    """The word that the adapter has learned; None when any prompt shows what was learned."""
    seed: int = Field(ge=0, le=MAX_SEED)
    """Seed of the first image; each further one has the next number."""
    count: int = Field(1, ge=1, le=MOST_DRAWN)
    """Number of images."""
    steps: int = Field(ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(ge=1, le=100)
    """Scale of classifier-free guidance."""
    size: int = Field(ge=32, le=2048, multiple_of=8)
    """Side of the square images, pixels."""

    @model_validator(mode="after")
    def _check_seeds(self) -> Self:
        last = self.seed + self.count - 1
        if last > MAX_SEED:
            raise ValueError(f"the last image would have the seed {last}; the highest is {MAX_SEED}")
        return self

    @property
    def seeds(self) -> list[int]:
        """Seed of each image."""
        return list(range(self.seed, self.seed + self.count))

    def file(self, seed: int) -> str:
        """Return the name of the file that holds the image of a seed."""
        return f"{seed}.png"
