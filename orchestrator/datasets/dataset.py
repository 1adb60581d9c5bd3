"""The values that `prepare` returns."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.problem import Problem


class InspectedImage(BaseModel):
    """An image file that passed inspection and can be trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path
    """Its path, relative to the dataset's folder."""
    width: int
    """Width in pixels after the EXIF orientation is applied."""
    height: int
    """Height in pixels after the EXIF orientation is applied."""
    caption: str | None = None
    """Its caption; None without one."""
    repeats: int = 1
    """As how many images it counts."""
    condition: Path | None = None
    """The picture that a ControlNet is shown of it, relative to the dataset's folder; None without one."""


class Dataset(BaseModel):
    """A folder of images that passed inspection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    """The folder that was inspected."""
    resolution: int
    """Side of the training images in pixels."""
    images: tuple[InspectedImage, ...]
    """Every image, sorted by file name."""
    warnings: tuple[Problem, ...] = ()
    """Findings that do not prevent training, sorted by file name."""
    told: tuple[Problem, ...] = ()
    """Those of the images by the names of the prepared files: what a job is told of a person's files."""
