"""What client and container agree on about drawing images: an order for some, and how many are drawn at once.

The number at once decides how images come out to the last bit, because another batch rounds differently; and the client
needs it to estimate a job's memory.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.generation import Generation
from orchestrator.contract.words import NewWord

PIXELS_AT_ONCE_CPU = 32 * 64 * 64
"""Enough to fill two cores."""
PIXELS_AT_ONCE_GPU = 4 * 512 * 512


def images_at_once(size: int, height: int | None = None, *, gpu: bool) -> int:
    """Return how many images make a batch, at least one: square ones, or as wide as `size` and of another height."""
    pixels = PIXELS_AT_ONCE_GPU if gpu else PIXELS_AT_ONCE_CPU
    return max(1, pixels // (size * (height or size)))


class DrawOrder(BaseModel):
    """A generation to draw on this machine, and where on it everything is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: Generation
    """What to draw."""
    folders: Mapping[str, Path]
    """Folder of each adapter, embedding and ControlNet of the generation, by its name there."""
    base_model: str
    """The model they were trained on, as messages name it."""
    base_folder: Path | None
    """Folder of that model; None to fetch it from the Hugging Face Hub, or take it from its cache."""
    base_revision: str | None = None
    """Commit or branch of a model of the Hub."""
    words: tuple[NewWord, ...] = ()
    """The words that its adapters and embeddings have learned; none when any prompt shows what was learned."""
    map_weights: Mapping[str, Path] = {}
    """Folder with the weights of each kind of condition map that a network computes."""

    def file(self, number: int) -> str:
        """Return the name of the file that holds an image of the generation, which are counted from 0."""
        return f"{number}.png"
