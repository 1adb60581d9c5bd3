"""Decode the bytes of an untrusted file to an upright 8-bit sRGB image, or report everything that is wrong with it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.datasets.findings import Defect, UnusableError
from orchestrator.datasets.metadata import carries_metadata, without_metadata

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 100 * 2**20
MAX_PIXELS = 100_000_000
MAX_SCALE = 4  # short side of a prepared image, in training resolutions
MAX_ASPECT = 3  # long side over short side
BITS = 8  # per channel, of what training gets
PNG_BIT_DEPTH = 24  # offset of the byte that holds it
OPAQUE = 255  # alpha
GREY_MODES = {"1", "L", "LA"}

ORIENTATION_TAG = 0x0112  # EXIF 2.3, section 4.6.4
NORMAL = 1
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF orientation to the transposition that undoes it."""
SIDEWAYS = {5, 6, 7, 8}  # width and height are swapped

Remarks = list[Defect]
"""What does not prevent training."""


class Decoded(NamedTuple):
    """An image as training gets it."""

    image: "Image.Image"
    """RGB, 8 bit, upright, without metadata."""
    width: int
    """Width in pixels of the upright original, before it was scaled down."""
    height: int
    """Its height in pixels."""
    as_is: bool
    """No pixel was changed: the file itself can be used after `without_metadata`."""
    remarks: tuple[Defect, ...]
    """What does not prevent training."""


def decode(data: bytes, *, resolution: int) -> Decoded:
    """Return the image in `data`, at most 4 training resolutions on its short side; raises UnusableError.

    The size is checked in the header, before any pixel is decoded.
    """
    image = _open(data)
    defects: list[Defect] = []
    defects += _format_defects(image, data)
    defects += _size_defects(image, resolution)
    with _decoder(defects):
        image.load()
        if _is_transparent(image):
            transparent = Defect("has transparent parts", "flatten it onto a background")
            defects.append(transparent)
        if defects:
            raise UnusableError(*defects)
        orientation, exif_remarks = _orientation(image)
        mode = "L" if image.mode in GREY_MODES else "RGB"
        converted = image.convert(mode)
        scaled = _scaled(converted, resolution)
        profile = image.info.get("icc_profile")
        in_srgb, profile_remarks = _to_srgb(scaled, profile)

    is_upright = orientation not in UPRIGHT
    was_scaled = scaled.size != image.size
    was_converted = image.mode != "RGB" or in_srgb is not scaled
    pixels_unchanged = is_upright and not was_scaled and not was_converted
    width, height = image.size
    if orientation in SIDEWAYS:
        width, height = height, width
    bare = without_metadata(data)
    size_remarks = _size_remarks(image, resolution)
    return Decoded(
        image=_upright(in_srgb, orientation),
        width=width,
        height=height,
        as_is=pixels_unchanged and not carries_metadata(bare),
        remarks=(*size_remarks, *exif_remarks, *profile_remarks),
    )


@contextmanager
def _decoder(defects: list[Defect]) -> Iterator[None]:
    """Raise whatever a decoder raises as UnusableError with one more defect; silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UnusableError, MemoryError):
        raise
    except Exception as error:  # decoders of hostile bytes raise anything: OSError, SyntaxError, struct.error, ...
        what = "is damaged and cannot be decoded"
        if "truncated" in str(error):
            what = "is truncated: its end is missing"
        damage = Defect(what, "copy it again from the original, or remove it")
        raise UnusableError(*defects, damage) from error


def _open(data: bytes) -> "Image.Image":
    """Read the header; raises UnusableError for more than MAX_PIXELS."""
    from PIL import Image

    megapixels = MAX_PIXELS // 10**6
    too_large = Defect(f"has more than {megapixels} megapixels", "scale it down")
    with _decoder([]):
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise UnusableError(too_large) from None
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise UnusableError(too_large)
    return image


def _format_defects(image: "Image.Image", data: bytes) -> Iterator[Defect]:
    """Yield what the header says that training cannot use, apart from the size."""
    is_animated = getattr(image, "is_animated", False)
    if is_animated and image.format in {"PNG", "WEBP"}:  # a JPEG with several images is a phone's HDR photo
        yield Defect("is animated", "save one frame of it as PNG or JPEG")
    if image.format == "PNG":
        bits = data[PNG_BIT_DEPTH]
        if bits > BITS:  # Pillow would silently reduce RGB to 8 bits
            yield Defect("has 16 bits per channel", "convert to 8 bits per channel")
    if image.mode == "CMYK":
        yield Defect("is in CMYK, the colours of print", "convert to sRGB")


def _is_transparent(image: "Image.Image") -> bool:
    """Return whether any pixel is not opaque, in any mode."""
    if not image.has_transparency_data:
        return False
    alpha = image.convert("RGBA").getchannel("A")
    lowest, _ = alpha.getextrema()
    return lowest != OPAQUE


def _size_defects(image: "Image.Image", resolution: int) -> Iterator[Defect]:
    """Yield why an image is too small, if it is."""
    if min(image.size) * 2 < resolution:
        size = f"{image.width}x{image.height}"
        what = f"is {size}, less than half the training resolution of {resolution}"
        yield Defect(what, "use a larger original, or a smaller resolution")


def _size_remarks(image: "Image.Image", resolution: int) -> Iterator[Defect]:
    """Yield what enlarging and cropping will do to an image."""
    size = f"{image.width}x{image.height}"
    short = min(image.size)
    long = max(image.size)
    if short < resolution:
        what = f"is {size} and will be enlarged to the training resolution of {resolution}"
        yield Defect(what, "a larger original is sharper")
    if long > MAX_ASPECT * short:
        what = f"is {size}; most of it is lost when it is cropped to a square"
        yield Defect(what, "crop it to what matters")


def _orientation(image: "Image.Image") -> tuple[int, Remarks]:
    """Return the EXIF orientation, 1 to 8, and what is wrong with the EXIF data."""
    try:
        with _decoder([]):
            exif = image.getexif()
            orientation = int(exif.get(ORIENTATION_TAG, NORMAL))
    except UnusableError:
        what = "has damaged EXIF data and is treated as upright"
        fix = "check which way up it is"
        return NORMAL, [Defect(what, fix)]
    return orientation, []


def _scaled(image: "Image.Image", resolution: int) -> "Image.Image":
    """Return the image with at most MAX_SCALE training resolutions on its short side."""
    from PIL import Image

    largest = MAX_SCALE * resolution
    short = min(image.size)
    if short <= largest:
        return image
    width = round(image.width * largest / short)
    height = round(image.height * largest / short)
    return image.resize(
        (width, height),
        Image.Resampling.LANCZOS,
        reducing_gap=3.0,  # Pillow first reduces by an integer factor, which is faster and looks the same
    )


def _to_srgb(image: "Image.Image", profile: bytes | None) -> tuple["Image.Image", Remarks]:
    """Apply an ICC profile; returns `image` itself where there is none, or none that can be applied."""
    from PIL import ImageCms

    if not profile:
        return image, []
    srgb = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        is_grey = source.profile.xcolor_space.strip() == "GRAY"
        fitting = image if is_grey else image.convert("RGB")
        converted = ImageCms.profileToProfile(
            fitting,
            source,
            srgb,
            outputMode="RGB",
        )
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        what = "has an unusable colour profile and is treated as sRGB"
        fix = "convert it to sRGB if its colours look wrong"
        return image, [Defect(what, fix)]
    return converted or image, []


def _upright(image: "Image.Image", orientation: int) -> "Image.Image":
    """Return the image as RGB with its orientation applied, and without metadata."""
    from PIL import Image

    if orientation in UPRIGHT:
        method = Image.Transpose[UPRIGHT[orientation]]
        image = image.transpose(method)
    plain = image.convert("RGB")
    plain.info = {}
    return plain
