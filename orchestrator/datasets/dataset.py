"""The values that `prepare` returns."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.problem import Problem


class Picture(BaseModel):
    """A picture that can be trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    file: Path
    """Its file, relative to the dataset's folder."""
    width: int
    """Pixels from left to right, once it is upright."""
    height: int
    """Pixels from top to bottom, once it is upright."""
    caption: str | None = None
    """What it shows, in words; None when nobody said."""


class Dataset(BaseModel):
    """A folder of pictures that passed inspection."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    folder: Path
    """Where the pictures lie."""
    resolution: int
    """Side of the training pictures in pixels."""
    pictures: tuple[Picture, ...]
    """In the order of their file names."""
    warnings: tuple[Problem, ...] = ()
    """What a person should know and training can live with, in the order of the file names."""
