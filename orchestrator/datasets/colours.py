"""From whatever a decoder returns to 8-bit sRGB: depth, transparency, print colours, colour profiles."""

from io import BytesIO
from typing import TYPE_CHECKING, cast

from orchestrator.datasets.findings import Defect, Remarks, unusable

if TYPE_CHECKING:
    from PIL import Image

OPAQUE = 255  # alpha
GREY_MODES = {
    "1",
    "L",
    "LA",
    "La",
}
UNCONVERTED_MODES = {"CMYK", "LAB"}  # a profile says what their colours are
DEEP_GREY = "I;16"  # and I;16B, of the other byte order
MAX_LEVEL = 255
MAX_DEEP_LEVEL = 65535
WHITE_IS_ZERO_TAG = 262  # TIFF 6.0, section 8, PhotometricInterpretation

FLATTENED = Defect("has transparent parts, which become white", "flatten it onto another background to choose one")
KEPT_OPAQUE = Defect("has a transparent level of grey, which is kept as it is", "flatten it onto a background")
FLOATING = Defect("has floating-point values: 0 is taken as black, 1 as white", "check its brightness")
PRINT_COLOURS = Defect(
    "is in CMYK, the colours of print, without a colour profile",
    "convert it to sRGB if its colours look wrong",
)
BAD_PROFILE = Defect(
    "has an unusable colour profile and is treated as sRGB",
    "convert it to sRGB if its colours look wrong",
)


def eight_bit(image: "Image.Image") -> tuple["Image.Image", Remarks]:
    """Return an image of 8 bits per channel without transparency: L, RGB, CMYK or LAB; raises UnusableError."""
    if image.mode.startswith(DEEP_GREY):
        grey = _from_deep_grey(image)
        if image.info.get("transparency") is None:
            return grey, []
        return grey, [KEPT_OPAQUE]
    if image.mode == "F":
        return _from_floats(image), [FLOATING]
    if image.mode == "I":
        what = "has numbers of 32 bits: how bright they are is unknown"
        raise unusable(what, "convert it to 8 or 16 bits per channel")
    if image.mode in UNCONVERTED_MODES:
        return image, []
    mode = "L" if image.mode in GREY_MODES else "RGB"
    if alpha_of(image) is not None:
        page = _flattened(image)
        return page.convert(mode), [FLATTENED]
    return image.convert(mode), []


def _from_deep_grey(image: "Image.Image") -> "Image.Image":
    """Return 16-bit grey as 8-bit grey; Pillow's own conversion clips."""
    from PIL import ImageOps

    scale = MAX_LEVEL / MAX_DEEP_LEVEL
    deep = image.convert("I")
    scaled = deep.point(lambda level: level * scale + 0.5)
    grey = scaled.convert("L")
    tags = getattr(image, "tag_v2", {})
    if tags.get(WHITE_IS_ZERO_TAG) == 0:  # of other depths Pillow inverts it
        return ImageOps.invert(grey)
    return grey


def _from_floats(image: "Image.Image") -> "Image.Image":
    """Return floating-point grey as 8-bit grey; raises UnusableError outside 0 to 1."""
    darkest, brightest = _extrema(image)
    if not (0 <= darkest <= brightest <= 1):  # also where one is not a number
        what = "has floating-point values outside 0 to 1: how bright they are is unknown"
        raise unusable(what, "convert it to 8 or 16 bits per channel")
    scaled = image.point(lambda level: level * MAX_LEVEL + 0.5)
    return scaled.convert("L")


def _extrema(image: "Image.Image") -> tuple[float, float]:
    """Return the smallest and the largest value of an image of one channel."""
    smallest, largest = cast("tuple[float, float]", image.getextrema())  # typed for any number of channels
    return smallest, largest


def alpha_of(image: "Image.Image") -> "Image.Image | None":
    """Return how opaque each pixel of an image of 8 bits is, in any mode; None where all are."""
    if image.mode.startswith(DEEP_GREY) or not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    lowest, _ = _extrema(alpha)
    return None if lowest == OPAQUE else alpha


def _flattened(image: "Image.Image") -> "Image.Image":
    """Return the image on white."""
    from PIL import Image

    with_alpha = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(with_alpha, mask=with_alpha)
    return page


def to_srgb(image: "Image.Image", profile: bytes | None) -> tuple["Image.Image", Remarks]:
    """Apply an ICC profile; returns `image` itself where there is none, or none that can be applied."""
    from PIL import ImageCms

    if image.mode == "LAB":  # a profile of its own: CIELAB says how a colour looks
        lab = ImageCms.createProfile("LAB")
        profile = ImageCms.ImageCmsProfile(lab).tobytes()
    if profile is None:
        if image.mode == "CMYK":
            return image, [PRINT_COLOURS]
        return image, []
    srgb = ImageCms.createProfile("sRGB")
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        fitting = image
        if space == "RGB":
            fitting = image.convert("RGB")
        converted = ImageCms.profileToProfile(
            fitting,
            source,
            srgb,
            outputMode="RGB",
        )
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return image, [BAD_PROFILE]
    return converted or image, []
