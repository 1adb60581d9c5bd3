"""What files are, by their first bytes and, where those say nothing, by their names."""

import re
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.model_file import LFS_POINTER
from orchestrator.datasets.findings import Defect

SIGNATURE_BYTES = 64  # enough for every signature below
SUPPORTED = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|GIF8[79]a|II[*+]\0|MM\0[*+]|BM....\0\0\0\0"
    rb"|....ftyp(hei[cxms]|hev[cxms]|mif1|msf1|avi[fs])",
    re.DOTALL,
)
TIFF = re.compile(rb"II[*+]\0|MM\0[*+]")
UNSUPPORTED = {
    "JPEG XL": re.compile(rb"\0\0\0\x0cJXL |\xff\x0a"),
    "JPEG 2000": re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    "Photoshop": re.compile(rb"8BPS"),
    "OpenEXR": re.compile(rb"\x76\x2f\x31\x01"),
    "camera raw": re.compile(rb"II\*\0....CR|IIU\0|IIRO|IIRS|MMOR|FUJIFILMCCD-RAW|FOVb|....ftypcrx ", re.DOTALL),
}
CAMERA_RAW = re.compile(
    r"\.(3fr|arw|cr[23w]|dcr|dng|erf|iiq|k25|kdc|mef|mrw|nef|nrw|orf|pef|raf|raw|rw[2l]|sr2|srf|srw|x3f)$",
    re.IGNORECASE,
)
IMAGE_EXTENSION = re.compile(
    r"\.(png|apng|jpe?g|jpe|jfif|webp|gif|tiff?|bmp|dib|hei[cf]s?|hif|avifs?|jxl|jp2|j2k|psd|psb|exr|hdr|tga|ico|svg"
    r"|p[bgnp]m|xcf|eps)$|" + CAMERA_RAW.pattern,
    re.IGNORECASE,
)
OTHER_IMAGES = re.compile(r"\.(jxl|jp2|j2k|psd|psb|exr|hdr|tga|ico|svg|p[bgnp]m|xcf|eps)$", re.IGNORECASE)
CONVERT = "convert it to PNG or JPEG"
POINTER = Defect("is a git-LFS pointer, not the file itself", "in the folder: git lfs pull")


class _ForeignKind(NamedTuple):
    """Files that people have beside their images."""

    name: re.Pattern[str]
    """Matches the ends of their names."""
    what: str
    """What they are."""
    fix: str
    """How to use what is in them."""


def _ending(*extensions: str) -> re.Pattern[str]:
    joined = "|".join(extensions)
    return re.compile(rf"\.({joined})$", re.IGNORECASE)


_TABLE_FIX = "save it as metadata.csv with the columns file_name and text"
FOREIGN = (
    _ForeignKind(
        _ending("csv", "tsv", "tab", "xlsx?", "xlsm", "ods", "numbers"),
        "is skipped: captions are read from a table of the name metadata.csv or metadata.jsonl alone",
        _TABLE_FIX,
    ),
    _ForeignKind(
        _ending("parquet", "arrow", "feather", "db", "sqlite3?"),
        "is skipped: this kind of table is not read",
        f"write its images as files, and {_TABLE_FIX.replace('save it', 'its captions')}",
    ),
    _ForeignKind(
        _ending("jsonl?", "ndjson"),
        "is skipped: captions in JSON are read from metadata.jsonl alone",
        'write them there, a line for each image: {"file_name": "a.jpg", "text": "what it shows"}',
    ),
    _ForeignKind(
        _ending("npz", "npy", "pt", "pth", "safetensors", "ckpt", "pkl"),
        "is skipped: numbers of another trainer, such as encoded images",
        "remove it; images are encoded anew",
    ),
    _ForeignKind(
        _ending("tags?", "cap", "prompt", "desc", "captions"),
        "is skipped: captions are read from .txt and .caption files",
        "end its name in .txt to use it as the caption of its image",
    ),
    _ForeignKind(
        _ending("toml", "ya?ml", "ini", "cfg"),
        "is skipped: settings of another program",
        "give what it says as options of this command: -s FIELD=VALUE",
    ),
    _ForeignKind(
        _ending("zip", "tar", "t?gz", "bz2", "xz", "7z", "rar", "tbz2?", "txz", "zst"),
        "is skipped: an archive",
        "unpack it, and name the folder with the images",
    ),
    _ForeignKind(
        _ending("mov", "mp4", "m4v", "avi", "mkv", "webm", "3gp"),
        "is skipped: a video",
        "save a frame of it as PNG to use that",
    ),
    _ForeignKind(
        _ending("xmp", "aae", "pp3", "dop"),
        "is skipped: edits of a photo that only the program which made them applies",
        "export the edited photo to use the edits",
    ),
)
_UNKNOWN = Defect("is skipped: neither an image nor a caption", "move it out of the folder")
_IRREGULAR = Defect("is skipped: not a regular file", "move it out of the folder")


def unsupported_image(name: str, start: bytes) -> Defect | None:
    """Return why a file is no image that can be used, or None: it can be used, or nothing says that it is an image."""
    for format_, signature in UNSUPPORTED.items():
        if signature.match(start):
            return Defect(f"is a {format_} file, which is not supported", CONVERT)
    if TIFF.match(start) and CAMERA_RAW.search(name):
        return Defect("is a camera raw file, which is not supported", CONVERT)
    if SUPPORTED.match(start) or not IMAGE_EXTENSION.search(name):
        return None
    return _no_image(name, start)


def _no_image(name: str, start: bytes) -> Defect:
    """Return why a file with an image's extension is none."""
    if not start:
        return Defect("is empty", "copy it again from the original, or remove it")
    if start.startswith(LFS_POINTER):
        return POINTER
    if OTHER_IMAGES.search(name) or CAMERA_RAW.search(name):
        extension = Path(name).suffix
        return Defect(f"is in a format that is not supported ({extension})", CONVERT)
    return Defect("is not an image, despite its extension", "copy it again from the original, or remove it")


def foreign_file(path: Path) -> Defect:
    """Return what a file is that is neither an image nor a caption, and what to do with it."""
    if not path.is_file():
        return _IRREGULAR
    for kind in FOREIGN:
        if kind.name.search(path.name):
            return Defect(kind.what, kind.fix)
    return _UNKNOWN
