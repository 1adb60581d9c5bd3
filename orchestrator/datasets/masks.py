"""Masks of images: what of them is learned is white.

The mask of `dog.jpg` is the image `dog-masklabel.png` beside it, in any format. Without one an image's own transparency
is its mask: what is opaque is learned.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.contract.datasets import MASK_ENDING
from orchestrator.contract.plurals import counted
from orchestrator.contract.words import composed
from orchestrator.datasets.decoding import Decoded, decode, read_file
from orchestrator.datasets.findings import Findings, UnusableError
from orchestrator.datasets.listing import Listing

if TYPE_CHECKING:
    from PIL import Image

SHOWN_NAMES = 5  # of files in a message
LEAST_WHITE = 128  # of 255: nothing of a darker mask is more than half learned


class Masks:
    """The masks of a folder's images; what is wrong with them is reported."""

    def __init__(self, folder: Path, listing: Listing, findings: Findings, resolution: int, *, used: bool) -> None:
        """Find the file of each mask; `resolution` is the side of the training images in pixels."""
        self.folder = folder
        self.findings = findings
        self.resolution = resolution
        self.used = used
        self.count = len(listing.images)
        self.missing: list[str] = []
        self.files = _files_by_image(listing)
        if used:
            self._require_one_each(listing)
            self._warn_of_lonely(listing)
        else:
            self._warn_of_unused(listing.masks)

    def of(self, name: str, image: Decoded) -> "Image.Image | None":
        """Return the mask of a decoded image, in grey and of its size; None, and a finding, where there is none.

        Always None where masks are not used.
        """
        if not self.used:
            return None
        files = self.files.get(_stem(name), [])
        if len(files) > 1:  # which is a problem already
            return None
        file = next(iter(files), None)
        if file is None:
            mask = image.alpha
            where = name
        else:
            mask = self._read(file, name, image)
            where = file
        if mask is None:
            if file is None:
                self.missing.append(name)
            return None
        levels = mask.histogram()
        is_learned = any(levels[LEAST_WHITE:])
        if not is_learned:
            brightest = 0
            for level, count in enumerate(levels):
                if count:
                    brightest = level
            what = f"leaves nothing to learn: its brightest point is {brightest} of 255"
            self.findings.problem(where, what, "draw what is to be learned in white (255, not 1)")
        return mask

    def report_missing(self) -> None:
        """Report the images that have no mask, all together."""
        if not self.missing:
            return
        shown = ", ".join(self.missing[:SHOWN_NAMES])
        if len(self.missing) > SHOWN_NAMES:
            shown += ", ..."
        verb = "have"
        if len(self.missing) == 1:
            verb = "has"
        what = f"{len(self.missing)} of {counted(self.count, 'image')} {verb} no mask: {shown}"
        example = f"{Path(self.missing[0]).stem}{MASK_ENDING}.png"
        fix = f"put it beside the image, as {example}, white where it is to be learned; or leave out masked_loss"
        self.findings.problem(self.missing[0], what, fix)

    def _read(self, file: str, name: str, image: Decoded) -> "Image.Image | None":
        """Decode a mask and bring it to the size of its image; report one of another shape."""
        from PIL import ImageChops

        try:
            content = read_file(self.folder / file)
            decoded = decode(content, resolution=self.resolution)
        except UnusableError as error:
            self.findings.add_defects(file, error)
            return None
        # At the mask's size, the image's shape may differ by the rounding of one pixel.
        height = decoded.width * image.height / image.width
        if abs(height - decoded.height) > 1:
            sizes = f"{decoded.width}x{decoded.height}, and its image {name} {image.width}x{image.height}"
            self.findings.problem(file, f"is {sizes}", "save the mask in the shape of its image")
            return None
        grey = decoded.image.convert("L")
        if decoded.alpha is not None:  # white on nothing
            grey = ImageChops.multiply(grey, decoded.alpha)
        if grey.size != image.image.size:
            return grey.resize(image.image.size)
        return grey

    def _require_one_each(self, listing: Listing) -> None:
        """Report an image with several masks, and images that share a name and so a mask."""
        first_of: dict[str, str] = {}
        for image in listing.all_images:
            stem = _stem(image)
            files = self.files.get(stem, [])
            if len(files) > 1:
                listed = " and ".join(files)
                self.findings.problem(image, f"has {len(files)} masks: {listed}", "keep one of them")
            first = first_of.setdefault(stem, image)
            if files and first != image:
                what = f"has the name of {first}, whose mask it would share"
                self.findings.problem(image, what, "rename one of them")

    def _warn_of_lonely(self, listing: Listing) -> None:
        """Warn of masks that are of no image."""
        stems = set()
        for image in listing.all_images:
            stems.add(_stem(image))
        for stem, files in self.files.items():
            if stem in stems:
                continue
            for file in files:
                self.findings.warn(file, "is skipped: no image has this name", f"name a mask NAME{MASK_ENDING}.png")

    def _warn_of_unused(self, masks: Sequence[str]) -> None:
        """Warn of masks that a job does not read."""
        if not masks:
            return
        others = len(masks) - 1
        what = "is a mask, which this job does not read"
        if others:
            verb = "are"
            if others == 1:
                verb = "is"
            what = f"{what}; so {verb} {counted(others, 'other')}"
        self.findings.warn(masks[0], what, "to learn only what it shows in white: -s masked_loss=true")


def write_mask(mask: "Image.Image | None", image: Path) -> None:
    """Write the mask of a prepared image beside it, if it has one."""
    if mask is None:
        return
    path = image.with_name(f"{image.stem}{MASK_ENDING}.png")
    mask.save(path, format="PNG")


def _files_by_image(listing: Listing) -> Mapping[str, Sequence[str]]:
    """Return the files of masks by the name of their image, without the extension: one each, if all is well."""
    files: dict[str, list[str]] = defaultdict(list)
    for file in listing.masks:
        stem = _stem(file)
        image_stem = stem[: -len(MASK_ENDING)]
        files[image_stem].append(file)
    return files


def _stem(name: str) -> str:
    """Return a file name without its last extension."""
    return composed(Path(name).stem)
