"""Condition pictures of images, which a ControlNet is shown: `conditions/name.png` belongs to `name.jpg`."""

import os
from collections import defaultdict
from pathlib import Path

from orchestrator.contract.datasets import CONDITIONS_FOLDER
from orchestrator.contract.plurals import counted
from orchestrator.contract.words import composed
from orchestrator.datasets.file_kinds import IMAGE_EXTENSION
from orchestrator.datasets.findings import Findings
from orchestrator.datasets.listing import IGNORED, MAX_IMAGES, Listing, link_problem
from orchestrator.errors import DatasetError
from orchestrator.terminal import printable

SHOWN = 5
"""Condition pictures without an image that a message names."""
_MOST_ENTRIES = 2 * MAX_IMAGES
_ROUNDING = 0.01
"""Part of a side by which a condition may differ from its image scaled to it, and at least one pixel."""

_GIVE = "give each picture one, or have them computed: -s 'conditions=[\"canny\"]'"

Size = tuple[int, int]
"""Width and height in pixels."""


def has_conditions(folder: Path) -> bool:
    """Return whether a data set brings condition pictures."""
    try:
        with os.scandir(folder / CONDITIONS_FOLDER) as entries:
            return any(IMAGE_EXTENSION.search(entry.name) for entry in entries)
    except (OSError, ValueError):  # none, or the path of the data set is wrong, which its inspection says
        return False


def find_conditions(folder: Path, listing: Listing, findings: Findings) -> dict[str, Path]:
    """Return the condition picture of each image by its file name, and report images without one, or with several.

    Raises DatasetError where there is no folder of conditions that can be read.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for name in _names(folder):
        stem = _stem(name)
        by_stem[stem].append(name)
    found: dict[str, Path] = {}
    for image in listing.all_images:
        names = by_stem.pop(_stem(image), [])
        if len(names) == 1:
            condition = Path(CONDITIONS_FOLDER) / names[0]
            what = link_problem(folder / condition, folder)
            if what:
                findings.problem(str(condition), what, "replace the link by the picture itself, or remove it")
            else:
                found[image] = condition
        elif names:
            listed = " and ".join(names)
            findings.problem(image, f"has {len(names)} conditions: {listed}", "keep one of them")
        else:
            wanted = f"{CONDITIONS_FOLDER}/{Path(image).stem}.png"
            findings.problem(image, f"has no condition: there is no {wanted}", f"add {wanted}")
    _check_images_differ(listing, findings)
    left_over: list[str] = []
    for names in by_stem.values():
        left_over += names
    _warn_of_left_over(left_over, findings)
    return found


def shape_misfit(condition: Size, image: Size) -> str:
    """Return how the shape of a condition differs from its image's, or an empty text where it does not.

    Their sizes may differ: both are scaled to that of training.
    """
    width, height = condition
    image_width, image_height = image
    expected = width * image_height / image_width
    difference = abs(height - expected)
    if difference <= max(1.0, _ROUNDING * expected):
        return ""
    return f"is {width}x{height}, which is not the shape of its picture ({image_width}x{image_height})"


def _names(folder: Path) -> list[str]:
    """Return the names of the condition pictures; raises DatasetError where there are none or too many."""
    shown = printable(str(folder / CONDITIONS_FOLDER))
    names: list[str] = []
    try:
        with os.scandir(folder / CONDITIONS_FOLDER) as entries:
            for entry in entries:
                if not IGNORED.match(entry.name) and IMAGE_EXTENSION.search(entry.name):
                    names.append(entry.name)
                if len(names) > _MOST_ENTRIES:
                    raise DatasetError(f"{shown} holds more than {_MOST_ENTRIES} pictures.", next_step=_GIVE)
    except FileNotFoundError:
        raise DatasetError(
            f"There is no folder {shown} with the conditions of the pictures.", next_step=_GIVE
        ) from None
    except OSError as error:
        message = f"The conditions in {shown} cannot be read: {error.strerror}."
        raise DatasetError(message, next_step="fix the folder's permissions (chmod u+rx), then submit again") from None
    if not names:
        raise DatasetError(f"There are no pictures in {shown}.", next_step=_GIVE)
    return sorted(names)


def _check_images_differ(listing: Listing, findings: Findings) -> None:
    """Report images that share a name, and so a condition: they differ by their extension alone."""
    first_of: dict[str, str] = {}
    for image in listing.all_images:
        first = first_of.setdefault(_stem(image), image)
        if first != image:
            findings.problem(image, f"has the name of {first}, whose condition it would share", "rename one of them")


def _warn_of_left_over(names: list[str], findings: Findings) -> None:
    """Warn of conditions that belong to no image."""
    if not names:
        return
    shown = ", ".join(names[:SHOWN])
    what = f"{counted(len(names), 'condition')} without an image of the same name: {shown}"
    findings.warn(f"{CONDITIONS_FOLDER}/", what, "name each like its picture, or remove it")


def _stem(name: str) -> str:
    """Return a file name without its last extension."""
    return composed(Path(name).stem)
