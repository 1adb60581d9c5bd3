"""From the bytes of a stranger's file to an upright 8-bit sRGB picture, or to everything that is wrong with it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.datasets.metadata import carries_metadata, without_metadata

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 100 * 2**20
MAX_PIXELS = 100_000_000
MAX_SCALE = 4  # short side of a prepared picture, in training resolutions
MAX_ASPECT = 3  # long side over short side
BITS = 8  # per channel, of what training gets
PNG_BIT_DEPTH = 24  # byte of the file that holds it
OPAQUE = 255  # alpha

ORIENTATION_TAG = 0x0112  # EXIF 2.3, section 4.6.4
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
SIDEWAYS = {5, 6, 7, 8}  # width and height change places


class Defect(NamedTuple):
    """What is wrong with one picture, and what to do."""

    what: str
    fix: str


class UnusableError(Exception):
    """A picture cannot be trained on."""

    def __init__(self, *defects: Defect) -> None:
        super().__init__(*defects)
        self.defects = defects


class Decoded(NamedTuple):
    """A picture as training gets it."""

    image: "Image.Image"
    """RGB, 8 bit, upright, nothing but pixels."""
    width: int
    """Of the upright original, before it was scaled down."""
    height: int
    as_is: bool
    """The file itself can be used once `without_metadata` has seen to it: no pixel was changed."""
    remarks: tuple[Defect, ...]
    """What training can live with."""


def decode(data: bytes, *, resolution: int) -> Decoded:
    """Return the picture in `data`, at most 4 training resolutions on its short side; raises UnusableError.

    The size is checked in the header, before any pixel is decoded.
    """
    image = _open(data)
    defects = [*_format_defects(image, data), *_size_defects(image, resolution)]
    with _decoder(defects):
        image.load()
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] != OPAQUE:
            defects.append(Defect("has transparent parts", "flatten it onto a background"))
        if defects:
            raise UnusableError(*defects)
        orientation, remarks = _orientation(image)
        scaled = _scaled(image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB"), resolution)
        plain, more_remarks = _to_srgb(scaled, image.info.get("icc_profile"))
    unchanged = image.mode == "RGB" and plain.size == image.size and plain is scaled and orientation not in UPRIGHT
    as_is = unchanged and not carries_metadata(without_metadata(data))
    width, height = image.size[::-1] if orientation in SIDEWAYS else image.size
    remarks = (*_size_remarks(image, resolution), *remarks, *more_remarks)
    return Decoded(_upright(plain, orientation), width, height, as_is, remarks)


@contextmanager
def _decoder(defects: list[Defect]) -> Iterator[None]:
    """Turn whatever a decoder raises into one more defect, and keep its warnings off the terminal."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UnusableError, MemoryError):
        raise
    except Exception as error:  # decoders of hostile bytes raise anything: OSError, SyntaxError, struct.error, ...
        what = "is cut off: its end is missing" if "truncated" in str(error) else "is damaged and cannot be decoded"
        raise UnusableError(*defects, Defect(what, "copy it again from the original, or remove it")) from error


def _open(data: bytes) -> "Image.Image":
    from PIL import Image

    too_large = Defect(f"has more than {MAX_PIXELS // 10**6} megapixels", "scale it down")
    with _decoder([]):
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise UnusableError(too_large) from None
    if image.width * image.height > MAX_PIXELS:
        raise UnusableError(too_large)
    return image


def _format_defects(image: "Image.Image", data: bytes) -> Iterator[Defect]:
    if image.format in {"PNG", "WEBP"} and getattr(image, "is_animated", False):  # a JPEG of several is a phone's HDR
        yield Defect("is animated", "save one frame of it as PNG or JPEG")
    if image.format == "PNG" and data[PNG_BIT_DEPTH] > BITS:  # Pillow would cut RGB down without a word
        yield Defect("has 16 bits per channel", "convert to 8 bits per channel")
    if image.mode == "CMYK":
        yield Defect("has printing colours (CMYK)", "convert to sRGB")


def _size_defects(image: "Image.Image", resolution: int) -> Iterator[Defect]:
    if min(image.size) * 2 < resolution:
        what = f"is {image.width}x{image.height}, less than half the training resolution of {resolution}"
        yield Defect(what, "use a larger original, or a smaller resolution")


def _size_remarks(image: "Image.Image", resolution: int) -> Iterator[Defect]:
    if min(image.size) < resolution:
        what = f"is {image.width}x{image.height} and will be enlarged to the training resolution of {resolution}"
        yield Defect(what, "a larger original is sharper")
    if max(image.size) > MAX_ASPECT * min(image.size):
        what = f"is {image.width}x{image.height}; most of it is lost when it is cropped to a square"
        yield Defect(what, "crop it to what matters")


def _orientation(image: "Image.Image") -> tuple[int, tuple[Defect, ...]]:
    try:
        with _decoder([]):
            return int(image.getexif().get(ORIENTATION_TAG, 1)), ()
    except UnusableError:
        return 1, (Defect("has damaged EXIF data and is taken to be upright", "check which way up it is"),)


def _scaled(image: "Image.Image", resolution: int) -> "Image.Image":
    from PIL import Image

    largest, short = MAX_SCALE * resolution, min(image.size)
    if short <= largest:
        return image
    size = (round(image.width * largest / short), round(image.height * largest / short))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _to_srgb(image: "Image.Image", profile: bytes | None) -> tuple["Image.Image", tuple[Defect, ...]]:
    from PIL import ImageCms

    if not profile:
        return image, ()
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        fitting = image if source.profile.xcolor_space.strip() == "GRAY" else image.convert("RGB")
        converted = ImageCms.profileToProfile(fitting, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        what = "has a colour profile that does not fit and is taken to be sRGB"
        return image, (Defect(what, "convert it to sRGB if its colours look wrong"),)
    return converted or image, ()


def _upright(image: "Image.Image", orientation: int) -> "Image.Image":
    """Return the picture as RGB and turned the right way, without anything but its pixels."""
    from PIL import Image

    turned = image.transpose(Image.Transpose[UPRIGHT[orientation]]) if orientation in UPRIGHT else image
    plain = turned.convert("RGB")
    plain.info = {}
    return plain
