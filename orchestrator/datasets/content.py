"""Warn of images that show nothing, and of too few of them."""

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.contract.datasets import Fewest
from orchestrator.contract.plurals import counted
from orchestrator.datasets.findings import Defect, Findings, Remarks

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL = (64, 64)  # averages noise away
LEAST_DEVIATION = 3.0  # of 255, of each channel; a foggy photo has 8 and more
DARK = 16
LIGHT = 239


def content_remarks(image: "Image.Image") -> Remarks:
    """Return that an RGB image is of one colour, or nearly, if it is."""
    from PIL import Image, ImageStat

    thumbnail = image.resize(THUMBNAIL, Image.Resampling.BOX)
    statistics = ImageStat.Stat(thumbnail)
    if max(statistics.stddev) >= LEAST_DEVIATION:
        return []
    colour = "of one colour"
    if max(statistics.mean) < DARK:
        colour = "black"
    if min(statistics.mean) > LIGHT:
        colour = "white"
    what = f"is {colour} all over, or nearly so: training learns nothing from it"
    return [Defect(what, "remove it, or copy it again from the original")]


def warn_of_few(folder: Path, count: int, fewest: Fewest, findings: Findings) -> None:
    """Warn of fewer images than can be learned from."""
    if count >= fewest.images:
        return
    verb = "is" if count == 1 else "are"
    what = f"there {verb} only {counted(count, 'image')}: {fewest.otherwise}"
    findings.warn(f"{folder.resolve().name}/", what, fewest.advice)
