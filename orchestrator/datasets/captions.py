"""Captions of images: `name.txt` or `name.caption` beside `name.jpg`, and the tables of `caption_tables.py`.

Several sources may say the same of an image. Where they differ nothing is chosen: that is a problem to be fixed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.plurals import counted
from orchestrator.contract.words import composed
from orchestrator.datasets.caption_tables import read_table
from orchestrator.datasets.caption_text import MAX_CAPTION_BYTES, lines_of, one_line, read_text
from orchestrator.datasets.findings import Findings, UnusableError
from orchestrator.datasets.listing import Listing

SHOWN_CHARACTERS = 60  # of a caption in a message
SHOWN_NAMES = 5  # of files in a message

Repeats = dict[str, int]
"""Image file name to the number of images that it counts as; only those that count as several."""
Sources = dict[str, dict[str, str]]
"""Image file name to its captions, by the name of the file that each comes from."""


class Captions(NamedTuple):
    """What is written of images, by file name."""

    texts: Mapping[str, str]
    repeats: Repeats


def read_captions(folder: Path, listing: Listing, findings: Findings) -> Captions:
    """Return the captions by image file name and report what is wrong with them.

    Runs of white space, line ends too, become one space.
    """
    repeats: Repeats = {}
    sources: Sources = defaultdict(dict)
    _add_text_files(folder, listing, findings, sources)
    for table in listing.caption_tables:
        in_table = read_table(folder, table, listing.all_images, findings)
        for image, caption in in_table.captions.items():
            sources[image][table] = caption
        repeats |= in_table.repeats
    texts: dict[str, str] = {}
    for image, by_source in sorted(sources.items()):
        texts[image] = next(iter(by_source.values()))
        _check_equal(image, by_source, findings)
    _warn_of_missing(listing.images, texts, findings)
    return Captions(texts, repeats)


def _check_equal(image: str, by_source: Mapping[str, str], findings: Findings) -> None:
    """Report an image whose sources say different things."""
    different: dict[str, str] = {}  # caption to the first file with it
    for source, caption in by_source.items():
        different.setdefault(caption, source)
    if len(different) == 1:
        return
    parts = []
    for caption, source in different.items():
        parts.append(f"{_quoted(caption)} in {source}")
    listed = ", ".join(parts)
    findings.problem(image, f"has {len(parts)} captions: {listed}", "keep one of them")


def _quoted(caption: str) -> str:
    """Return a caption for a message, shortened."""
    shown = caption[:SHOWN_CHARACTERS]
    if len(caption) > SHOWN_CHARACTERS:
        shown += "..."
    return f'"{shown}"'


def _warn_of_missing(
    images: tuple[str, ...],
    captions: Mapping[str, str],
    findings: Findings,
) -> None:
    """Warn when some images have a caption and others do not."""
    missing = [name for name in images if name not in captions]
    if not captions or not missing:
        return
    count = len(missing)
    shown = ", ".join(missing[:SHOWN_NAMES])
    if count > SHOWN_NAMES:
        shown += ", ..."
    verb = "has" if count == 1 else "have"
    what = f"{count} of {counted(len(images), 'image')} {verb} no caption: {shown}"
    findings.warn(missing[0], what, "caption them too")


def _add_text_files(
    folder: Path,
    listing: Listing,
    findings: Findings,
    sources: Sources,
) -> None:
    """Read every `name.txt` and `name.caption`.

    It applies to all images with that name, whatever their extension, and `name.jpg.txt` to `name.jpg` alone. Unusable
    images count too, so that a caption is not reported because of its image.
    """
    images_by_name: dict[str, list[str]] = defaultdict(list)
    for image in listing.all_images:
        images_by_name[_stem(image)].append(image)
        images_by_name[composed(image)].append(image)

    joined = []
    for file in listing.caption_files:
        images = images_by_name.get(_stem(file))
        if images is None:
            what = "is skipped: no image has this name"
            findings.warn(file, what, "name a caption file like its image")
            continue
        try:
            text = read_text(folder / file, MAX_CAPTION_BYTES)
            caption = one_line(text)
        except UnusableError as error:
            findings.add_defects(file, error)
            continue
        if not caption:
            findings.warn(file, "has no caption", "write one, or remove it")
            continue
        if lines_of(text) > 1:
            joined.append(file)
        for image in images:
            sources[image][file] = caption
    _warn_of_joined(joined, findings)


def _warn_of_joined(files: Sequence[str], findings: Findings) -> None:
    """Warn of caption files of several lines, which may be meant as one caption or as a choice of them."""
    if not files:
        return
    what = "has several lines, which are joined to one caption"
    others = len(files) - 1
    if others:
        verb = "has" if others == 1 else "have"
        what = f"{what}; so {verb} {counted(others, 'other')}"
    findings.warn(files[0], what, "leave only the line to train on, if they are captions to choose from")


def _stem(name: str) -> str:
    """Return a file name without its last extension."""
    return composed(Path(name).stem)
