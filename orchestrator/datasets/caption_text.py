"""The text of captions: read from untrusted files, on one line, without control characters.

The lines of a caption file are joined. Other trainers may read the first line alone, so the join is warned of.
"""

from pathlib import Path

from orchestrator.contract.model_file import LFS_POINTER
from orchestrator.datasets.file_kinds import POINTER
from orchestrator.datasets.findings import unusable
from orchestrator.terminal import is_control

MAX_CAPTION = 1000  # characters
MAX_CAPTION_BYTES = 16 * 1024


def read_text(path: Path, limit: int) -> str:
    """Return the text of a UTF-8 file of at most `limit` bytes; raises UnusableError."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        fix = "allow reading it (chmod u+r), or remove it"
        raise unusable(what, fix) from None
    if len(data) > limit:
        what = f"is longer than {limit} bytes"
        raise unusable(what, "shorten it")
    if data.startswith(LFS_POINTER):
        raise unusable(POINTER.what, POINTER.fix)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise unusable("is not UTF-8 text", "save it as UTF-8") from None


def lines_of(text: str) -> int:
    """Return how many lines of a caption file hold text."""
    return sum(1 for line in text.splitlines() if line.strip())


def one_line(text: str) -> str:
    """Return a caption on one line, empty when there is none; raises UnusableError."""
    caption = " ".join(text.split())
    length = len(caption)
    if length > MAX_CAPTION:
        what = f"the caption has {length} characters; at most {MAX_CAPTION} are allowed"
        fix = "shorten it; the text encoder reads about 75 words"
        raise unusable(what, fix)
    for character in caption:
        if is_control(character):
            what = "the caption holds control characters"
            raise unusable(what, "write it as plain UTF-8 text")
    return caption
