"""Secrets where people have them, each known by its own text, and a search that finds them in any dress."""

import base64
import gzip
import io
import shutil
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

from PIL import Image, PngImagePlugin

from orchestrator.resources import BUILTIN_MODEL, SAMPLE_IMAGES

MARK = "Zq7xPLANTED9kV3w"
"""Stands in every secret: most bytes are searched for this alone."""
# Numerator and denominator of the seconds of a place on earth, as EXIF writes them.
LATITUDE = struct.pack(">II", 373_587_883, 9_999_991)


def secret(place: str, beginning: str = "") -> str:
    """Return the secret of a place: letters and digits that stand nowhere else."""
    return f"{beginning}{MARK}{place.encode().hex()}"


VARIABLES = {
    "HF_TOKEN": secret("variable-hf", "hf_"),
    "AWS_SECRET_ACCESS_KEY": secret("variable-aws"),
    "AWS_SESSION_TOKEN": secret("variable-session", "IQoJb3JpZ2luX2Vj"),
    "WANDB_API_KEY": secret("variable-wandb"),
}
FILES = {
    ".aws/credentials": "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = {}\n",
    ".netrc": "machine huggingface.co login kim password {}\n",
    ".cache/huggingface/token": "{}",
}
MODEL_FILES = {
    ".env": "HF_TOKEN={}\n",
    "notes.txt": "the password is {}\n",
    ".git/config": '[remote "origin"]\n\turl = https://kim:{}@example.org/model.git\n',
    "unet/notes.txt": "{}",
    "unet/login.json": '{{"password": "{}"}}',
    "text_encoder/.hidden.json": '{{"password": "{}"}}',
    "tokenizer/training_args.bin": "{}",
}
PICTURE_FILES = {".env": "HF_TOKEN={}\n", ".hidden.txt": "{}", ".git/config": "url = https://kim:{}@example.org\n"}
TEXTS = {"jpeg": "DateTime Artist comment XMP", "png": "tEXt zTXt iTXt eXIf", "webp": "EXIF XMP"}
"""Where the pictures say more than they show."""


def all_secrets() -> list[str]:
    """Return every secret that was planted as text."""
    files = [f"home/{name}" for name in FILES] + [f"model/{name}" for name in MODEL_FILES]
    files += [f"pictures/{name}" for name in PICTURE_FILES]
    pictures = [f"{kind} {part}" for kind, parts in TEXTS.items() for part in parts.split()]
    return [*VARIABLES.values(), *(secret(place) for place in (*files, *pictures))]


def plant_home(home: Path) -> None:
    """Write what lies in a person's home."""
    _write(home, "home", FILES)


def plant_model(folder: Path) -> None:
    """Copy the built-in model and put beside its files what people leave there."""
    shutil.copytree(BUILTIN_MODEL, folder)
    _write(folder, "model", MODEL_FILES)


def plant_pictures(folder: Path) -> None:
    """Write three of the sample's pictures with all that a camera and an editor know of them."""
    _write(folder, "pictures", PICTURE_FILES)
    jpeg, png, webp = (Image.open(path).convert("RGB") for path in sorted(SAMPLE_IMAGES.glob("*.png"))[:3])
    jpeg.save(folder / "one.jpg", exif=_exif("jpeg"), comment=secret("jpeg comment"), xmp=secret("jpeg XMP").encode())
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", secret("png tEXt"))
    texts.add_text("Author", secret("png zTXt"), zip=True)
    texts.add_itxt("Title", secret("png iTXt"), zip=True)
    exif = Image.Exif()
    exif[0x13B] = secret("png eXIf")
    png.save(folder / "two.png", pnginfo=texts, exif=exif)
    exif = Image.Exif()
    exif[0x13B] = secret("webp EXIF")
    webp.save(folder / "three.webp", exif=exif, xmp=secret("webp XMP").encode())


def _exif(kind: str) -> bytes:
    exif = Image.Exif()
    exif.endian = ">"
    exif[0x132], exif[0x13B] = secret(f"{kind} DateTime"), secret(f"{kind} Artist")
    exif.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, Fraction(*struct.unpack(">II", LATITUDE)))})
    return exif.tobytes()


def _write(folder: Path, name: str, files: dict[str, str]) -> None:
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text.format(secret(f"{name}/{file}")))


def found_in(blobs: Iterable[bytes]) -> set[str]:
    """Return the planted secrets that any of some bytes holds: as they are, packed, encoded, or within a PNG's text."""
    found = set()
    for blob in blobs:
        for part in _unpacked(blob):
            if any(form in part for form in _forms(MARK)):
                found |= {one for one in all_secrets() if any(form in part for form in _forms(one))}
            if any(form in part for form in (LATITUDE, LATITUDE[3::-1] + LATITUDE[:3:-1])):
                found.add("latitude")
    return found


def files_below(folder: Path) -> Iterator[bytes]:
    """Yield the names and the bytes of all files below a folder."""
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            yield path.read_bytes()


def _unpacked(blob: bytes) -> Iterator[bytes]:
    yield blob
    if blob.startswith(b"\x1f\x8b"):
        yield gzip.decompress(blob)
    if blob.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(blob)) as picture:
            picture.load()
            yield repr([*picture.info.items(), *picture.getexif().items()]).encode()


def _forms(text: str) -> Iterator[bytes]:
    plain = text.encode()
    yield from (plain, plain[::-1], text.encode("utf-16-le"), plain.hex().encode(), plain.hex().upper().encode())
    for shift in range(3):  # where in a group of three bytes the text begins when it is encoded within a longer one
        encoded = base64.b64encode(bytes(shift) + plain)
        inner = encoded[-(-shift * 8 // 6) : (shift + len(plain)) * 8 // 6]
        yield from (inner, inner.replace(b"+", b"-").replace(b"/", b"_"))
