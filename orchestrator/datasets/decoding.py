"""Decode the bytes of an untrusted file to an upright 8-bit sRGB image, or report everything that is wrong with it."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.datasets.colours import alpha_of, eight_bit, to_srgb
from orchestrator.datasets.content import content_remarks
from orchestrator.datasets.findings import Defect, Remarks, UnusableError, unusable
from orchestrator.datasets.heif import DAMAGED, heif_to_png, is_boxed, is_heif
from orchestrator.datasets.metadata import PNG_SIGNATURE, carries_metadata, salvaged, without_metadata
from orchestrator.datasets.named_colours import camera_profile, measured_profile, numbered_profile, numbers_in

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
COPIED = {"PNG", "JPEG", "MPO", "WEBP"}  # what training reads itself; a phone's JPEG with several images is an MPO
CAMERA_FORMATS = {"JPEG", "MPO"}
ANIMATED = {"PNG", "WEBP", "GIF", "AVIF"}
STDERR = 2  # file descriptor, of code in C too
MAX_BYTES = 100 * 2**20
MAX_PIXELS = 100_000_000
MAX_SCALE = 4  # short side of a prepared image, in training resolutions
MAX_ASPECT = 3  # long side over short side
BITS = 8  # per channel, of what training gets
PNG_BIT_DEPTH = 24  # offset of the byte that holds it

# TIFF 6.0, section 8; Adobe DNG specification, chapter 4.
SUBFILE_TYPE_TAG = 254
IS_PREVIEW = 1
DNG_VERSION_TAG = 50706

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

TRUNCATED = Defect("is truncated: its end is missing", "copy it again from the original, or remove it")
UNKNOWN_TIFF = Defect("is damaged, or a TIFF of a kind that cannot be read", "save it as PNG")
CAMERA_RAW = Defect("is a camera raw file: what can be read of it is a small preview", "export the photo as JPEG")
TOO_LARGE = Defect(f"has more than {MAX_PIXELS // 10**6} megapixels", "scale it down")
DROPPED = Defect(
    "has damaged or very large metadata, which is dropped",
    "check its colours, and which way up it is",
)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else what it logs of damaged files goes to the terminal


class DamagedError(UnusableError):
    """A decoder cannot read an image."""


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
    """What does not prevent training: of the file."""
    photo_remarks: tuple[Defect, ...]
    """The same of what it shows and of its size, where it is a photo and not a map or a mask of one."""
    alpha: "Image.Image | None"
    """How opaque the image was, in mode L and of its size; None where it was opaque everywhere."""


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file; raises UnusableError when it is too large or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise unusable(what, "allow reading it (chmod u+r)") from None
    if len(data) > MAX_BYTES:
        megabytes = MAX_BYTES // 2**20
        raise unusable(f"is larger than {megabytes} MB", "save it smaller")
    return data


def decode(data: bytes, *, resolution: int, too_small: Defect | None = None) -> Decoded:
    """Return the image in `data`, at most 4 training resolutions on its short side; raises UnusableError.

    An image of less than half the resolution is refused; `too_small` is how, where nothing is trained.

    The size is checked in the header, before any pixel is decoded. Of several images in a file the first is taken.
    Metadata that a decoder refuses does not cost the image.
    """
    if is_heif(data):
        png = heif_to_png(data, TOO_LARGE, MAX_PIXELS)
        return _decode(png, resolution, too_small, original=data)
    try:
        return _decode(data, resolution, too_small, original=data)
    except DamagedError as error:
        damage = error
    for candidate in salvaged(data):
        try:
            decoded = _decode(candidate, resolution, too_small, original=data)
        except UnusableError:
            continue
        remarks = (*decoded.remarks, DROPPED)
        return decoded._replace(remarks=remarks)
    raise damage


def _decode(data: bytes, resolution: int, too_small: Defect | None, *, original: bytes) -> Decoded:
    """Return the image in `data`, which is the original file or was made of it; raises UnusableError."""
    image = _open(data)
    defects = list(_size_defects(image, resolution, too_small))
    with _decoder(defects):
        format_remarks = list(_format_remarks(image))
        _load(image)
        if defects:
            raise UnusableError(*defects)
        orientation, exif_remarks = _orientation(image)
        plain, mode_remarks = eight_bit(image)
        scaled = _scaled(plain, resolution)
        profile, coding_remarks = _profile(image, original)
        in_srgb, profile_remarks = to_srgb(scaled, profile)
        alpha = alpha_of(image)
        if alpha is not None:
            alpha = _turned(_scaled(alpha, resolution), orientation)

    is_upright = orientation not in UPRIGHT
    was_scaled = scaled.size != image.size
    was_converted = image.mode != "RGB" or in_srgb is not scaled
    pixels_unchanged = is_upright and not was_scaled and not was_converted
    is_copied = data is original and image.format in COPIED and not _is_deep_png(image, data)
    width, height = image.size
    if orientation in SIDEWAYS:
        width, height = height, width
    bare = without_metadata(data)
    remarks: Remarks = [*format_remarks, *exif_remarks, *mode_remarks, *coding_remarks, *profile_remarks]
    photo_remarks: Remarks = [*_size_remarks(image, resolution), *content_remarks(in_srgb)]
    plain = _turned(in_srgb, orientation).convert("RGB")
    plain.info = {}  # no metadata
    return Decoded(
        image=plain,
        width=width,
        height=height,
        as_is=is_copied and pixels_unchanged and not carries_metadata(bare),
        remarks=tuple(remarks),
        photo_remarks=tuple(photo_remarks),
        alpha=alpha,
    )


@contextmanager
def _decoder(defects: list[Defect]) -> Iterator[None]:
    """Raise whatever a decoder raises as DamagedError with one more defect; silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UnusableError, MemoryError):
        raise
    except Exception as error:  # decoders of hostile bytes raise anything: OSError, SyntaxError, struct.error, ...
        damage = TRUNCATED if "truncated" in str(error) else DAMAGED
        raise DamagedError(*defects, damage) from error


def _open(data: bytes) -> "Image.Image":
    """Read the header; raises UnusableError for more than MAX_PIXELS, and for a preview in place of a photo."""
    from PIL import Image, UnidentifiedImageError

    with _decoder([]):
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise UnusableError(TOO_LARGE) from None
        except UnidentifiedImageError:
            if data.startswith((b"II", b"MM")):
                raise UnusableError(UNKNOWN_TIFF) from None
            raise
        if _is_camera_raw(image):
            raise UnusableError(CAMERA_RAW)
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise UnusableError(TOO_LARGE)
    return image


def _load(image: "Image.Image") -> None:
    """Decode the pixels. libtiff also prints what it finds wrong; that is kept from the terminal."""
    if image.format != "TIFF":
        image.load()
        return
    stderr = os.dup(STDERR)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), STDERR)
        image.load()
    finally:
        os.dup2(stderr, STDERR)
        os.close(stderr)


def _is_camera_raw(image: "Image.Image") -> bool:
    """Return whether the first image of a TIFF is the preview of another: most camera raw files are TIFFs."""
    tags = getattr(image, "tag_v2", {})
    subfile_type = tags.get(SUBFILE_TYPE_TAG, 0)
    return DNG_VERSION_TAG in tags or bool(subfile_type & IS_PREVIEW)


def _format_remarks(image: "Image.Image") -> Iterator[Defect]:
    """Yield that a file holds more images than the one that is taken."""
    is_animated = getattr(image, "is_animated", False)
    if is_animated and image.format in ANIMATED:
        yield Defect("is animated; its first frame is used", "save another frame as PNG to use that")
    if is_animated and image.format == "TIFF":
        yield Defect("has several pages; its first one is used", "save another page as PNG to use that")


def _is_deep_png(image: "Image.Image", data: bytes) -> bool:
    """Return whether a PNG has more than 8 bits per channel, which Pillow reduces without a word."""
    return image.format == "PNG" and data[PNG_BIT_DEPTH] > BITS


def _size_defects(image: "Image.Image", resolution: int, too_small: Defect | None) -> Iterator[Defect]:
    """Yield why an image is too small, if it is."""
    if min(image.size) * 2 < resolution:
        size = f"{image.width}x{image.height}"
        limit = f"less than half the resolution of {resolution}"
        fix = "use a larger original, or a smaller resolution"
        if too_small is not None:
            limit, fix = too_small
        yield Defect(f"is {size}, {limit}", fix)


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


def _profile(image: "Image.Image", original: bytes) -> tuple[bytes | None, Remarks]:
    """Return the image's ICC profile, empty where it has one that cannot be unpacked; None for sRGB."""
    numbers = None
    if is_boxed(original) or original.startswith(PNG_SIGNATURE):
        numbers = numbers_in(original)
    has_profile = "icc_profile" in image.info
    if has_profile and (numbers is None or is_boxed(original)):  # in a PNG the numbers come first
        return image.info["icc_profile"] or b"", []
    if numbers is not None:
        return numbered_profile(*numbers)
    if image.format in CAMERA_FORMATS:
        return _camera_profile(image), []
    return measured_profile(image.info)


def _camera_profile(image: "Image.Image") -> bytes | None:
    """Return the profile that EXIF data name; None for sRGB, and where they are damaged, which is told already."""
    try:
        with _decoder([]):
            return camera_profile(image.getexif())
    except UnusableError:
        return None


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


def _turned(image: "Image.Image", orientation: int) -> "Image.Image":
    """Return the image with its orientation applied."""
    from PIL import Image

    if orientation not in UPRIGHT:
        return image
    return image.transpose(Image.Transpose[UPRIGHT[orientation]])
