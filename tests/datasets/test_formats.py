"""Images of every common format, depth and colour space come out as the colours that they mean.

Expected colours are computed here, by the formulae of the standards in numpy. The files in `heic/` were made with
pillow-heif 1.8.1, losslessly: quadrants in the colours of QUADRANTS.
"""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from orchestrator import datasets
from orchestrator.datasets.decoding import Decoded, decode
from orchestrator.datasets.findings import UnusableError
from orchestrator.datasets.heif import heif_to_png

Draw = Callable[..., Image.Image]
Folder = Any  # the class in conftest, which pytest offers as a fixture only
Array = np.ndarray[Any, Any]

HEIC = Path(__file__).parent / "heic"
QUADRANTS = [(200, 40, 30), (40, 180, 60), (30, 50, 190), (230, 230, 230)]  # row by row
SRGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
P3_TO_XYZ = np.array([[0.4866, 0.2657, 0.1982], [0.2290, 0.6917, 0.0793], [0.0, 0.0451, 1.0439]])


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def tiff(array: Array, **options: Any) -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Decoded:
    return decode(data, resolution=64)


def remarks(data: bytes) -> list[str]:
    result = decoded(data)
    return [remark.what for remark in (*result.remarks, *result.photo_remarks)]


def defect(data: bytes) -> str:
    with pytest.raises(UnusableError) as caught:
        decoded(data)
    (found,) = caught.value.defects
    assert found.fix
    return found.what


def difference(image: Image.Image, expected: Array) -> float:
    """The mean difference of a channel, 0 to 255."""
    found = np.asarray(image).astype(float)
    return float(np.abs(found - expected).mean())


def linear(levels: Array) -> Array:
    """IEC 61966-2-1."""
    values = levels / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def levels(light: Array) -> Array:
    values = np.clip(light, 0, 1)
    return np.round(255 * np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055))


def from_display_p3(colour: tuple[int, int, int]) -> Array:
    xyz = P3_TO_XYZ @ linear(np.array(colour, float))
    return levels(np.linalg.inv(SRGB_TO_XYZ) @ xyz)


def from_measured(colour: tuple[int, int, int], gamma: float) -> Array:
    """Display P3's primaries with a curve of a power."""
    xyz = P3_TO_XYZ @ (np.array(colour, float) / 255) ** (1 / gamma)
    return levels(np.linalg.inv(SRGB_TO_XYZ) @ xyz)


def from_lab(lightness: float, a: float, b: float) -> Array:
    """CIELAB under D50 to sRGB, by Bradford's adaptation."""
    fy = (lightness + 16) / 116
    cubes = np.array([fy + a / 500, fy, fy - b / 200])
    ratios = np.where(cubes > 6 / 29, cubes**3, 3 * (6 / 29) ** 2 * (cubes - 4 / 29))
    xyz = ratios * np.array([0.9642, 1.0, 0.8249])
    adapted = [
        [0.9555766, -0.0230393, 0.0631636],
        [-0.0282895, 1.0099416, 0.0210077],
        [0.0122982, -0.020483, 1.3299098],
    ]
    return levels(np.linalg.inv(SRGB_TO_XYZ) @ np.array(adapted) @ xyz)


def quadrants(image: Image.Image) -> list[tuple[int, ...]]:
    width, height = image.size
    places = [(x, y) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(image.getpixel(place)) for place in places]  # type: ignore[arg-type]


def close(found: Any, expected: Any, tolerance: int = 2) -> bool:
    return bool(np.abs(np.array(found, float) - np.array(expected, float)).max() <= tolerance)


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("TIFF", {"compression": "packbits"}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_formats_keep_their_colours(draw: Draw, format_: str, options: dict[str, Any], mode: str) -> None:
    image = draw().convert(mode)
    if mode == "1" and format_ == "JPEG":
        image = image.convert("L")
    expected = np.asarray(image.convert("RGB"), float)
    result = decoded(encoded(image, format_, **options))
    tolerance = 2 if format_ in {"AVIF", "JPEG"} else 0
    assert difference(result.image, expected) <= tolerance
    assert result.remarks == ()


def test_palettes_of_gif_bmp_and_tiff(draw: Draw) -> None:
    image = draw().quantize(64)
    expected = np.asarray(image.convert("RGB"), float)
    for format_ in ("GIF", "BMP", "TIFF", "PNG"):
        assert difference(decoded(encoded(image, format_)).image, expected) == 0


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_of_several_frames_or_pages_the_first_is_taken(folder: Folder, draw: Draw, format_: str) -> None:
    options: dict[str, Any] = {"save_all": True, "append_images": [draw(2)]}
    if format_ == "AVIF":
        options["quality"] = 100
    file = folder.add("a.img", draw(1), format=format_, **options)
    (warning,) = folder.warnings()
    assert "its first" in warning
    assert difference(decoded(file.read_bytes()).image, np.asarray(draw(1), float)) < 12  # a GIF has 256 colours


def test_16_bits_become_8_by_their_value_not_by_clipping() -> None:
    ramp = np.linspace(0, 65535, 96 * 80).astype(np.uint16).reshape(80, 96)
    expected = np.round(ramp / 257)
    colours = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)
    for data in (
        encoded(Image.fromarray(ramp), "PNG"),
        tiff(ramp),
        tiff(ramp, byteorder=">"),
        tiff(ramp, tile=(16, 16)),
    ):
        grey = decoded(data)
        assert close(np.asarray(grey.image)[..., 0], expected, 1)
        assert not grey.as_is
    for data in (tiff(colours, photometric="rgb"), png16(colours)):
        result = decoded(data)
        assert close(result.image, np.round(colours / 257), 1)
        assert not result.as_is
        assert result.remarks == ()
    inverted = tiff(ramp, photometric="miniswhite")
    assert close(np.asarray(decoded(inverted).image)[..., 0], 255 - expected, 1)


def test_a_transparent_level_of_16_bits_is_warned_of() -> None:
    data = encoded(Image.fromarray(np.linspace(0, 65535, 96 * 80).astype(np.uint16).reshape(80, 96)), "PNG")
    keyed = data[:33] + chunk(b"tRNS", struct.pack(">H", 1000)) + data[33:]
    assert remarks(keyed) == ["has a transparent level of grey, which is kept as it is"]


def png16(colours: Array) -> bytes:
    """A PNG of 16 bits per channel, which Pillow cannot write."""
    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


PNG_START = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def test_floating_point_is_read_from_0_to_1_and_refused_elsewhere(draw: Draw) -> None:
    grey = np.asarray(draw().convert("L"))
    data = tiff((grey / 255).astype(np.float32))
    assert close(np.asarray(decoded(data).image)[..., 0], grey, 1)
    assert "0 is taken as black" in remarks(data)[0]
    assert "outside 0 to 1" in defect(tiff(grey.astype(np.float32)))
    assert "outside 0 to 1" in defect(tiff(np.full((80, 96), np.nan, np.float32)))
    assert "32 bits" in defect(tiff(grey.astype(np.int32)))
    assert "of a kind that cannot be read" in defect(tiff(np.zeros((80, 96, 3), np.float32), photometric="rgb"))


def cmyk_profile(corners: dict[int, tuple[int, int, int]]) -> bytes:
    """The smallest ICC profile of a printer: CIELAB at each of the 16 corners of CMYK, 4 bits C M Y K."""
    table = bytearray()
    for corner in range(16):
        lightness, a, b = corners.get(corner, (50, 0, 0))
        table += bytes([round(lightness * 2.55), a + 128, b + 128])
    ramp = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(table) + ramp * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(lut))
    header = struct.pack(">I4sI4s4s4s12x4s", 144 + len(lut), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    illuminant = struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(68, b"\0") + illuminant.ljust(60, b"\0") + tags + lut


@pytest.mark.parametrize(("format_", "options"), [("JPEG", {"quality": 100, "subsampling": 0}), ("TIFF", {})])
def test_cmyk_becomes_srgb_by_its_profile(format_: str, options: dict[str, Any]) -> None:
    inks = {0b1000: (60, -20, -30), 0b0100: (50, 40, 0), 0b0010: (90, 0, 50), 0b0001: (0, 0, 0)}
    corners = {**inks, 0b0000: (100, 0, 0), 0b1111: (0, 0, 0)}  # as black as sRGB, so that black needs no compensation
    image = Image.new("CMYK", (96, 80), (0, 0, 0, 0))
    for number, ink in enumerate([(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255)]):
        left, top = number % 2 * 48, number // 2 * 40
        image.paste(ink, (left, top, left + 48, top + 40))
    data = encoded(image, format_, icc_profile=cmyk_profile(corners), **options)
    expected = [from_lab(*lab) for lab in inks.values()]
    assert close(quadrants(decoded(data).image), expected, 4)
    assert remarks(data) == []


def test_cmyk_without_a_profile_is_warned_of(draw: Draw) -> None:
    """JPEG stores Adobe's inks inverted; 255 is the most ink."""
    image = draw().convert("CMYK")
    inks = np.asarray(image, float) / 255
    expected = 255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])
    for format_, options in (("JPEG", {"quality": 100, "subsampling": 0}), ("TIFF", {})):
        data = encoded(image, format_, **options)
        assert difference(decoded(data).image, expected) <= 2
        assert "without a colour profile" in remarks(data)[0]


def test_lab_becomes_srgb() -> None:
    colour = (60, 20, -40)
    pixel = Image.merge(
        "LAB", [Image.new("L", (96, 80), value) for value in (153, 148, 88)]
    )  # L of 255, a + 128, b + 128
    assert close(decoded(encoded(pixel, "TIFF")).image.getpixel((5, 5)), from_lab(*colour), 3)


def test_transparent_parts_become_white_in_any_mode(folder: Folder, draw: Draw) -> None:
    red = Image.new("RGB", (64, 64), "red")
    red.paste("blue", (0, 0, 32, 64))
    folder.add("key.png", red, transparency=(255, 0, 0))
    palette = red.quantize(2)
    folder.add("palette.png", palette, transparency=palette.getpixel((60, 5)))
    folder.add("palette.gif", palette, transparency=palette.getpixel((60, 5)))
    for name in ("rgba.png", "rgba.tif", "rgba.webp", "rgba.avif"):
        with_alpha = red.convert("RGBA")
        with_alpha.paste((255, 0, 0, 0), (32, 0, 64, 64))
        options = {"lossless": True} if name.endswith("webp") else {}
        folder.add(name, with_alpha, **options)
    la = draw().convert("LA")
    la.putalpha(Image.new("L", la.size, 128))
    folder.add("z-la.png", la)
    assert [remark for remark in folder.remarks() if "duplicate" not in remark and "nearly" not in remark] == [
        f"{path.name}: has transparent parts, which become white" for path in sorted(folder.path.iterdir())
    ]
    for path in folder.path.iterdir():
        result = decoded(path.read_bytes())
        assert not result.as_is
        if path.name == "z-la.png":
            assert difference(result.image.convert("L"), (np.asarray(draw().convert("L"), float) + 255) / 2) <= 1
        else:
            assert close(result.image.getpixel((5, 5)), (0, 0, 255), 5)
            assert close(result.image.getpixel((60, 5)), (255, 255, 255), 5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["TIFF", "AVIF", "JPEG", "WEBP"])
def test_orientation_is_applied_once(orientation: int, format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (96, 80))
    for number, colour in enumerate(QUADRANTS):
        image.paste(colour, (number % 2 * 48, number // 2 * 40, 96, 80))
    options = {"compression": "tiff_lzw"} if format_ == "TIFF" else {"quality": 100}
    result = decoded(encoded(image, format_, exif=exif, **options))
    order = ["0123", "1032", "3210", "2301", "0213", "2031", "3120", "1302"][orientation - 1]
    assert close(quadrants(result.image), [QUADRANTS[int(number)] for number in order], 12)
    assert result.image.size == (result.width, result.height) == ((96, 80) if orientation < 5 else (80, 96))


@pytest.mark.parametrize("name", ["plain", "ten-bits", "second-is-primary"])
def test_heic_keeps_its_colours(name: str) -> None:
    data = (HEIC / f"{name}.heic").read_bytes()
    result = decoded(data)
    assert close(quadrants(result.image), QUADRANTS)
    assert result.remarks == ()
    assert not result.as_is


def test_a_phone_says_twice_how_a_heic_is_turned_and_it_is_turned_once() -> None:
    data = (HEIC / "rotated.heic").read_bytes()
    assert b"irot" in data
    result = decoded(data)
    assert (result.width, result.height) == result.image.size == (80, 96)
    assert close(quadrants(result.image), [QUADRANTS[number] for number in (2, 0, 3, 1)])


@pytest.mark.parametrize("name", ["display-p3", "nclx-p3"])
def test_display_p3_of_phones_becomes_srgb(name: str) -> None:
    result = decoded((HEIC / f"{name}.heic").read_bytes())
    assert close(quadrants(result.image), [from_display_p3(colour) for colour in QUADRANTS])


def test_numbers_of_heic_that_are_not_known_are_warned_of() -> None:
    data = (HEIC / "nclx-p3.heic").read_bytes()
    unknown = patched(data, b"colrnclx\0\x0c", b"colrnclx\0\x0a")
    assert "not known" in remarks(unknown)[0]
    theatre = patched(data, b"colrnclx\0\x0c", b"colrnclx\0\x0b")
    assert not close(quadrants(decoded(theatre).image), QUADRANTS)


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """The quadrants as a PNG with these chunks behind its header."""
    image = Image.new("RGB", (96, 80))
    for number, colour in enumerate(QUADRANTS):
        image.paste(colour, (48 * (number % 2), 40 * (number // 2), 48 * (number % 2) + 48, 40 * (number // 2) + 40))
    data = encoded(image, "PNG")
    return data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:]


CHRM_P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
CHRM_SRGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
ICC = (b"iCCP", b"x\0\0" + zlib.compress(SRGB_PROFILE))


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"cICP", bytes([12, 13, 0, 1]))],
        [(b"cICP", bytes([12, 13, 0, 1])), ICC],
        [(b"cHRM", CHRM_P3)],
        [(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", CHRM_P3)],
    ],
    ids=["numbers", "numbers before a profile", "primaries", "primaries and a curve"],
)
def test_colours_that_a_png_names_become_srgb(chunks: list[tuple[bytes, bytes]]) -> None:
    result = decoded(png_with(*chunks))
    assert close(quadrants(result.image), [from_display_p3(colour) for colour in QUADRANTS])
    assert (result.remarks, result.as_is) == ((), False)


@pytest.mark.parametrize(
    ("chunks", "gamma"),
    [
        ([(b"cICP", bytes([12, 8, 0, 1]))], 1.0),
        ([(b"cICP", bytes([12, 5, 0, 1]))], 1 / 2.8),
        ([(b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", CHRM_P3)], 1.0),
        ([(b"gAMA", struct.pack(">I", 55_556)), (b"cHRM", CHRM_P3)], 0.55556),
    ],
)
def test_a_curve_that_a_png_names_is_undone(chunks: list[tuple[bytes, bytes]], gamma: float) -> None:
    found = quadrants(decoded(png_with(*chunks)).image)
    assert close(found, [from_measured(colour, gamma) for colour in QUADRANTS])


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000)), (b"cHRM", CHRM_P3)],
        [(b"gAMA", struct.pack(">I", 45455)), (b"cHRM", CHRM_SRGB)],
        [(b"cICP", bytes([1, 13, 0, 1])), (b"cHRM", CHRM_P3)],
        [(b"cICP", b"")],
    ],
)
def test_a_png_that_names_srgb_keeps_its_pixels(chunks: list[tuple[bytes, bytes]]) -> None:
    result = decoded(png_with(*chunks))
    assert quadrants(result.image) == QUADRANTS
    assert result.remarks == ()


@pytest.mark.parametrize(
    ("chunk_", "words"),
    [
        ((b"cICP", bytes([9, 16, 0, 1])), "an HDR photo (PQ)"),
        ((b"cICP", bytes([8, 13, 0, 1])), "not known"),
        ((b"cICP", bytes([1, 9, 0, 1])), "not known"),
        ((b"gAMA", bytes(4)), "not known"),
        ((b"cHRM", bytes(32)), "not known"),
        ((b"cHRM", struct.pack(">8I", *[30_000] * 8)), "not known"),
    ],
)
def test_colours_that_cannot_be_converted_are_warned_of_once(chunk_: tuple[bytes, bytes], words: str) -> None:
    (remark,) = remarks(png_with(chunk_))
    assert words in remark


@pytest.mark.parametrize(("rule", "converted"), [("R03", True), ("R98", False)])
def test_a_camera_names_adobe_rgb_by_a_rule(rule: str, converted: bool) -> None:
    image = Image.new("RGB", (96, 80), (100, 180, 60))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: rule}
    data = encoded(image, "JPEG", quality=100, exif=exif)
    # Adobe RGB (1998), section 4.3.5: its primaries, and a curve with the exponent 563/256
    to_xyz = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    xyz = np.array(to_xyz) @ (np.array([100, 180, 60]) / 255) ** (563 / 256)
    expected = levels(np.linalg.inv(SRGB_TO_XYZ) @ xyz) if converted else (100, 180, 60)
    assert close(decoded(data).image.getpixel((9, 9)), expected, 3)


def test_hdr_and_transparency_of_heic_are_warned_of() -> None:
    assert "is an HDR photo (PQ)" in remarks((HEIC / "hdr.heic").read_bytes())[0]
    assert "become white" in remarks((HEIC / "transparent.heic").read_bytes())[0]


def test_the_content_decides_whatever_the_name_says(folder: Folder, draw: Draw) -> None:
    folder.add("IMG_1.JPG", (HEIC / "plain.heic").read_bytes())
    folder.add("IMG_2.HEIC", draw(1), format="JPEG")
    folder.add("IMG_3.PNG", draw(2), format="TIFF")
    folder.add("IMG_4.jpeg", draw(3), format="PNG")
    folder.add("IMG_5.tiff", draw(4), format="AVIF")
    folder.add("IMG_6", draw(5), format="GIF")
    assert len(folder.inspect().images) == 6
    assert folder.warnings() == []


def test_prepared_images_of_new_formats_are_bare_pngs(folder: Folder, draw: Draw, tmp_path: Path) -> None:
    folder.add("a.heic", (HEIC / "rotated.heic").read_bytes())
    folder.add("b.gif", draw(1), comment=b"N52-secret")
    folder.add("c.tif", draw(2), description="N52-secret")
    folder.add("d.bmp", draw(3))
    datasets.prepare(folder.path, tmp_path / "out", resolution=64)
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == ["00001.png", "00002.png", "00003.png", "00004.png"]
    for path in files:
        with Image.open(path) as image:
            assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        assert b"secret" not in path.read_bytes()


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def bombs(draw: Draw) -> dict[str, bytes]:
    image = draw()
    large = struct.pack("<HH", 60_000, 60_000)
    gif = encoded(image, "GIF")
    bmp = encoded(image, "BMP")
    size = struct.pack(">II", 96, 80)
    heic_size = struct.pack(">II", 20_000, 20_000)
    return {
        "gif": gif[:6] + large + gif[10:],
        "bmp": bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:],
        "heic": patched((HEIC / "plain.heic").read_bytes(), b"ispe\0\0\0\0" + size, b"ispe\0\0\0\0" + heic_size),
        "avif": patched(encoded(image, "AVIF"), b"ispe\0\0\0\0" + size, b"ispe\0\0\0\0" + heic_size),
    }


@pytest.mark.parametrize("format_", ["gif", "bmp", "heic", "avif"])
def test_the_size_in_the_header_is_refused_before_decoding_in_every_format(draw: Draw, format_: str) -> None:
    data = bombs(draw)[format_]
    assert defect(data) in {"has more than 100 megapixels", "is damaged and cannot be decoded"}


def test_a_tiff_of_many_strips_is_refused_by_its_size() -> None:
    side = 60_000
    offsets = 8 + 2 + 8 * 12 + 4  # behind the header and the directory
    entries = [
        (256, 3, 1, side),  # width
        (257, 3, 1, side),  # height
        (258, 3, 1, 8),  # bits
        (259, 3, 1, 5),  # LZW
        (262, 3, 1, 1),  # 0 is black
        (273, 4, side, offsets),  # of the strips
        (278, 3, 1, 1),  # rows of a strip
        (279, 4, side, offsets),  # bytes of the strips
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    data = b"II*\0\x08\0\0\0" + directory + bytes(4) + bytes(4 * side)
    assert defect(data) == "has more than 100 megapixels"


def test_camera_raw_is_no_photo_although_its_preview_could_be_read(folder: Folder, draw: Draw) -> None:
    raw = tiff(np.asarray(draw()), photometric="rgb", subfiletype=1)
    dng = tiff(np.asarray(draw()), photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)])
    folder.add("a.NEF", tiff(np.asarray(draw()), photometric="rgb"))
    folder.add("b.dng", dng)
    folder.add("b.tif", dng)
    folder.add("c.tif", raw)
    folder.add("d.tif", b"II*\0\x10\0\0\0CR\2\0")
    folder.add("c.RW2", b"IIU\0" + bytes(20))
    folder.add("d.raf", b"FUJIFILMCCD-RAW 0201")
    folder.add("e.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1")
    problems = folder.problems()
    assert len(problems) == 8
    assert all("camera raw" in problem and "JPEG" in problem for problem in problems)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"tEXt", b"prompt\0" + b"x" * (65 * 2**20)),
        (b"zTXt", b"k\0\0" + zlib.compress(bytes(50 * 2**20), 9)),
        (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(50 * 2**20), 9)),
        (b"iCCP", b"k\0\0" + zlib.compress(bytes(50 * 2**20), 9)),
        (b"iCCP", b"k\0\5garbage"),
        (b"iCCP", b"k\0\0garbage"),
        (b"zTXt", b"k\0\7garbage"),
        (b"gAMA", b"\0"),
        (b"tRNS", b"\0"),
    ],
)
def test_a_png_with_metadata_that_a_decoder_refuses_is_read_without_it(draw: Draw, kind: bytes, content: bytes) -> None:
    data = encoded(draw(), "PNG")
    result = decoded(data[:33] + chunk(kind, content) + data[33:])  # 33: behind the header
    assert result.image.tobytes() == draw().tobytes()
    assert not result.as_is
    (remark,) = result.remarks
    assert "metadata" in remark.what or "profile" in remark.what


def test_a_wrong_checksum_of_metadata_costs_no_png_and_one_of_pixels_does(draw: Draw) -> None:
    data = encoded(draw(), "PNG")
    damaged = chunk(b"tEXt", b"a\0b")[:-1] + b"!"
    for position in (33, len(data) - 12):  # before the pixels and behind them
        result = decoded(data[:position] + damaged + data[position:])
        assert result.image.tobytes() == draw().tobytes()
    broken = data[:33] + chunk(b"IDAT", b"garbage") + data[33:]
    assert "damaged" in defect(broken)


def test_a_decoder_prints_nothing_of_its_own(draw: Draw, capfd: pytest.CaptureFixture[str]) -> None:
    for compression in ("jpeg", "tiff_lzw", "tiff_deflate"):
        data = bytearray(encoded(draw(), "TIFF", compression=compression))
        data[8:60] = bytes(52)
        with pytest.raises(UnusableError):
            decoded(bytes(data))
        decoded(encoded(draw(), "TIFF", compression=compression))
    samples = struct.pack("<HHII", 277, 3, 1, 3)  # per pixel
    assert "of a kind" in defect(patched(encoded(draw(), "TIFF"), samples, struct.pack("<HHII", 277, 3, 1, 9)))
    assert capfd.readouterr() == ("", "")


def test_large_text_that_can_be_read_is_dropped_without_a_word(draw: Draw) -> None:
    text = PngInfo()
    text.add_text("workflow", "x" * 2**21)
    result = decoded(encoded(draw(), "PNG", pnginfo=text))
    assert (result.image.tobytes(), result.remarks, result.as_is) == (draw().tobytes(), (), False)


def test_orientation_survives_where_only_the_text_is_refused(draw: Draw) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(draw(), "PNG", exif=exif)
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(20 * 2**20), 9))
    result = decoded(data[:33] + bomb + data[33:])
    assert result.image.size == (80, 96)


def test_heic_without_its_decoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pi_heif.py").write_text("raise ImportError('libheif.so: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    what = "is a HEIC file, and the package pi-heif is not installed, or cannot be loaded"
    assert defect((HEIC / "plain.heic").read_bytes()) == what


def test_a_decoder_that_crashes_is_a_damaged_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pi_heif.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert defect((HEIC / "plain.heic").read_bytes()) == "is damaged and cannot be decoded"


@pytest.mark.parametrize(("pixels", "is_read"), [(96 * 80, True), (96 * 80 - 1, False)])
def test_a_heic_of_too_many_pixels_is_not_decoded(pixels: int, is_read: bool) -> None:
    data = (HEIC / "plain.heic").read_bytes()
    if is_read:
        assert Image.open(BytesIO(heif_to_png(data, ("is too large", "make it smaller"), pixels))).size
        return
    with pytest.raises(UnusableError, match="is too large"):
        heif_to_png(data, ("is too large", "make it smaller"), pixels)
