"""What a recipe learns from: the folders a person names, and the channels they become."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.environment import TRAINING_CHANNEL

CAPTIONS_FILE = "metadata.jsonl"
"""Captions beside the pictures, a JSON object a line: {"file_name": "00001.png", "text": "a photo of sks dog"}."""
IMAGES = "images"
"""The input that holds training pictures."""


class DatasetKind(BaseModel):
    """One kind of data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """What people call it."""
    inputs: Mapping[str, str]
    """Name of each input, as a job file has it, to the channel its files arrive by."""


SUBJECT_PHOTOS = DatasetKind(name="subject photos", inputs={IMAGES: TRAINING_CHANNEL})
"""A handful of pictures of one subject, captioned or not."""
NOTHING = DatasetKind(name="nothing", inputs={})
"""No files at all: the recipe's own prompts are all it needs."""
