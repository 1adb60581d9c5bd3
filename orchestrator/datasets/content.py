"""Warn of images that show nothing, and of too few of them."""

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.contract.plurals import counted
from orchestrator.datasets.findings import Defect, Findings, Remarks

if TYPE_CHECKING:
    from PIL import Image

FEWEST = 3  # DreamBooth's authors use 3 to 5, https://arxiv.org/abs/2208.12242
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


def warn_of_few(folder: Path, count: int, findings: Findings) -> None:
    """Warn of fewer images than a subject can be learned from."""
    if count >= FEWEST:
        return
    verb = "is" if count == 1 else "are"
    what = f"there {verb} only {counted(count, 'image')}: training learns the background and the pose too"
    findings.warn(
        f"{folder.resolve().name}/", what, "add some that show the same subject elsewhere; 4 to 20 are common"
    )
