"""The index of the images that a run draws: `samples/index.json`, beside the PNG files it lists.

A finished adapter has one, and so has a run that draws validation prompts. Contact sheets, sweeps and pages are views
of it. Whoever reads the index of an adapter made elsewhere trusts nothing in it: names lead nowhere but into the folder
of samples, and there are limits on the number of images and on the bytes and pixels of each.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SAMPLES_FOLDER = "samples"
INDEX_FILE = "index.json"
CELL = 128
"""Side of an image on a contact sheet, pixels; smaller and larger ones are scaled to it."""

MOST_REAL = 8
"""Training pictures that are kept with the samples: enough to compare with."""
MOST_IMAGES = 4096
MOST_PROMPTS = 64
"""Each is a row of a contact sheet; a recipe draws at most 16."""
MOST_INDEX_BYTES = 16 * 2**20
MOST_IMAGE_BYTES = 16 * 2**20
"""A PNG of noise, 2048 x 2048 pixels, has 12.6 MB."""
MOST_IMAGE_PIXELS = 2048 * 2048
"""A recipe's largest resolution."""
WITHOUT_WORDS = "without words"
"""Stands for an empty prompt."""
_LONGEST_PROMPT = 4000  # characters; a recipe's fields hold 2500

Source = Literal["before", "after", "real", "condition"]


class SampleImage(BaseModel):
    """One image."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.png$", max_length=100)
    """Name of the PNG file beside the index."""
    source: Source
    """What made it: the base model ("before"), the adapter ("after"), or a camera ("real", a training picture).

    Or what a ControlNet was shown ("condition") for the prompt.
    """
    prompt: str = Field("", max_length=_LONGEST_PROMPT)
    """As the model was asked; empty for a training picture."""
    text: str = Field("", max_length=_LONGEST_PROMPT)
    """The prompt without the subject's own word: equal for adapters that have different words."""
    seed: int | None = None
    """Of its generator."""
    step: int | None = None
    """Optimizer steps done when it was drawn; None for the finished adapter."""


class SampleIndex(BaseModel):
    """All images of a folder, in the order in which they were drawn."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: int = 1
    """Version of this layout."""
    images: tuple[SampleImage, ...] = Field((), max_length=MOST_IMAGES)
    """What the files show."""

    @model_validator(mode="after")
    def _limit_prompts(self) -> Self:
        """Refuse an index of so many prompts that a contact sheet of it would not fit into memory."""
        finished = {image.text for image in self.images if image.step is None}
        if len(finished) > MOST_PROMPTS:
            raise ValueError(f"{len(finished)} prompts; at most {MOST_PROMPTS} are shown")
        return self


def parse_index(data: bytes) -> SampleIndex:
    """Read an index that was made anywhere; raises ValueError when it is too long or no index."""
    if len(data) > MOST_INDEX_BYTES:
        raise ValueError(f"the index has {len(data)} bytes; at most {MOST_INDEX_BYTES} are read")
    return SampleIndex.model_validate_json(data)
