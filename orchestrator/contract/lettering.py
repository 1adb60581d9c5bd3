"""Letters on contact sheets: which font has them, and where a text is broken into lines.

Pillow's own font, the same on every machine, has little more than ASCII. A text that it lacks letters for is written in
a font of the machine, and a letter that no font has as its code, never as an empty box. Fonts come from Pillow, which
the contract does not import: here they are anything that measures text and renders it to bytes.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Generic, NamedTuple, Protocol, SupportsBytes, TypeVar

from orchestrator.contract.words import composed

FOLDERS = (
    "~/.fonts",
    "~/.local/share/fonts",
    "/usr/local/share/fonts",
    "/usr/share/fonts",
    "~/Library/Fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
FONT_FILE = re.compile(r"\.(ttf|otf|ttc)$", re.IGNORECASE)
STYLED = re.compile(r"bold|italic|oblique|condensed|light|black|thin|mono|serif", re.IGNORECASE)
NO_LETTERS = re.compile(r"lastresort|adobeblank", re.IGNORECASE)  # these have a box for every letter
PREFERRED = re.compile(r"dejavusans|notosans|unifont", re.IGNORECASE)
MAX_FONTS = 400  # are tried for a letter

ABSENT = ("\U0010ffff", "\U00011c3f")  # hardly a font has these: a letter and a mark, so they show a font's boxes
JOINERS = {"\u200c", "\u200d"}
SELECTORS = {chr(code) for code in range(0xFE00, 0xFE10)}  # of a letter's variant
INVISIBLE = JOINERS | SELECTORS  # they have no shape of their own
CUT = " ..."
LEFT_OUT = "... "
CONTEXT = 16  # letters of a shared beginning that stay before what tells two labels apart
CODES = "Letters that no font of this machine has are written as their codes, such as \\u72ac."
"""What a sheet says once where that is so."""


class Font(Protocol):
    """What is needed of a font."""

    def getlength(self, text: str, /) -> float:
        """Return the width of a text in pixels."""

    def getmask(self, text: str, /) -> SupportsBytes:
        """Return the pixels of a text."""


F = TypeVar("F", bound=Font)


class Run(NamedTuple, Generic[F]):
    """A part of a text in one font."""

    font: F
    """Has all letters of the text."""
    text: str
    """Letters that no font has stand there as their codes."""


class Room(NamedTuple):
    """What there is room for in a label."""

    letters: int
    """In a line of the first font."""
    width: int
    """Of a line, pixels."""
    lines: int
    """Of a label."""


@cache
def font_files() -> tuple[Path, ...]:
    """Return the font files of this machine, upright ones of wide coverage first."""
    found = []
    for folder in FOLDERS:
        top = os.path.expanduser(folder)  # noqa: PTH111  (the method of Path raises for a user without a home)
        for parent, _, names in os.walk(top):
            for name in names:
                if FONT_FILE.search(name) and not NO_LETTERS.search(name):
                    path = Path(parent, name)
                    found.append(path)
    found.sort(key=_rank)
    return tuple(found)


class _Rank(NamedTuple):
    """Orders font files: the smallest is tried first."""

    is_styled: bool
    """Bold, italic or the like."""
    is_unknown: bool
    """Not one of those that are known to have many letters."""
    name: str
    """Of the file."""
    path: Path
    """Its whole path, for files of one name."""


def _rank(path: Path) -> _Rank:
    styled = STYLED.search(path.stem)
    preferred = PREFERRED.search(path.stem)
    return _Rank(
        is_styled=styled is not None,
        is_unknown=preferred is None,
        name=path.name,
        path=path,
    )


def load_fonts(own: F, load: Callable[[Path], F]) -> Iterator[F]:
    """Yield a font, and behind it those of the machine that `load` can read."""
    yield own
    for path in font_files()[:MAX_FONTS]:
        try:
            yield load(path)
        except (OSError, ValueError, ImportError):  # a bitmap font of another size, or a damaged file
            continue


class Lettering(Generic[F]):
    """Some fonts to write with: the first is taken where it has all letters.

    Which letters a font has is found out by rendering them, and kept: a font shows the same box for all that it lacks.
    """

    def __init__(self, fonts: Iterable[F], *, shapes: bool) -> None:
        """Take fonts, which are loaded when they are needed; `shapes`: text from right to left can be rendered."""
        self._source = iter(fonts)
        first = next(self._source)
        self._loaded = [first]
        self._shapes = shapes
        self._known: dict[tuple[int, str], bool] = {}

    def is_plain(self, text: str) -> bool:
        """Return whether the first font has all letters of a text."""
        return self._has_all(0, text)

    def is_complete(self, text: str) -> bool:
        """Return whether some font has each letter of a text, so that none is written as its code."""
        letters = set(composed(text)) - INVISIBLE
        return all(self._number_with(letter) is not None for letter in letters)

    def runs(self, text: str) -> list[Run[F]]:
        """Return a text in one font if one has all its letters, or else in several, from left to right."""
        text = composed(text)  # fonts have more composed letters than accents
        for number, font in enumerate(self._fonts()):
            if self._has_all(number, text):
                return [Run(font, text)]
        runs: list[Run[F]] = []
        current = 0
        for letter in text:
            if letter in INVISIBLE and current == 0:
                continue  # what it joins or varies is written as a code
            written = letter
            found: int | None = current
            if not self._has_all(current, letter):
                found = self._number_with(letter)
            if found is None:
                found = 0
                written = escape(letter)
            if runs and found == current:
                before = runs.pop()
                written = before.text + written
            current = found
            runs.append(Run(self._loaded[current], written))
        return _in_visual_order(runs)

    def width(self, text: str) -> int:
        """Return the width of a text in pixels."""
        width = 0.0
        for run in self.runs(text):
            width += run.font.getlength(run.text)
        return round(width)

    def wrap(self, text: str, width: int, lines: int) -> list[str]:
        """Break a text into lines no wider than `width` pixels: at spaces, or within words that are wider.

        At most `lines` lines are returned, the last with an ellipsis where text is left out.
        """
        finished: list[str] = []
        line = ""
        words = composed(text).split()
        for word in words:
            joined = f"{line} {word}".strip()
            if self.width(joined) <= width:
                line = joined
                continue
            if line:
                finished.append(line)
                line = ""
            for cluster in clusters(word):
                longer = line + cluster
                if line and self.width(longer) > width:
                    finished.append(line)
                    longer = cluster
                line = longer
        finished.append(line)

        def fits(line: str) -> bool:
            return self.width(line) <= width

        return cut(finished, lines, fits)

    def shortened(self, text: str, width: int) -> str:
        """Return a text in one line of `width` pixels, with an ellipsis where its end is missing."""
        if self.width(text) <= width:
            return text
        (line,) = self.wrap(text, width, 1)
        return line

    def labels(self, texts: Sequence[str], room: Room) -> list[list[str]]:
        """Return the lines of each label; what a label that is too long begins with as another does is left out."""
        labels = []
        for text in texts:
            lines = self._label_lines(text, room)
            if len(lines) > room.lines:
                others = [other for other in texts if other != text]
                end = what_differs(text, others)
                lines = self._label_lines(end, room)
            label = self._cut_label(lines, room)
            labels.append(label)
        return labels

    def _label_lines(self, text: str, room: Room) -> list[str]:
        """Break a text into lines: by letters in the first font, or by pixels where letters are wide."""
        if self.is_plain(text):
            lines = wrap(text, room.letters)
            widest = max(map(self.width, lines), default=0)
            if widest <= room.width:
                return lines
        return self.wrap(text, room.width, len(text))

    def _cut_label(self, lines: list[str], room: Room) -> list[str]:
        """Return at most as many lines as there is room for, the last with an ellipsis where some are missing."""

        def fits(line: str) -> bool:
            if self.is_plain(line) and len(line) > room.letters:
                return False
            return self.width(line) <= room.width

        return cut(lines, room.lines, fits)

    def _fonts(self) -> Iterator[F]:
        """Yield all fonts, each loaded once."""
        number = 0
        while True:
            if number == len(self._loaded):
                following = next(self._source, None)
                if following is None:
                    return
                self._loaded.append(following)
            yield self._loaded[number]
            number += 1

    def _number_with(self, letter: str) -> int | None:
        """Return the number of the first font that has a letter, or None."""
        for number, _ in enumerate(self._fonts()):
            if self._has_all(number, letter):
                return number
        return None

    def _has_all(self, number: int, text: str) -> bool:
        """Return whether a font has all letters of a text; the fonts up to it are loaded."""
        letters = set(text) - {" "}
        for letter in letters:
            key = (number, letter)
            can_show = self._known.get(key)
            if can_show is None:
                font = self._loaded[number]
                can_show = self._can_show(font, letter)
                self._known[key] = can_show
            if not can_show:
                return False
        return True

    def _can_show(self, font: F, letter: str) -> bool:
        """Return whether a font has a letter; invisible ones that turn the text around are not shown."""
        if letter in INVISIBLE:
            return font is not self._loaded[0]  # Pillow's own shows a box
        category = unicodedata.category(letter)
        if category.startswith("C"):
            return False
        needs_shaping = category.startswith("M") or _is_from_right(letter)
        if needs_shaping and not self._shapes:
            return False
        shown = _pixels(font, letter)
        for absent in ABSENT:
            box = _pixels(font, absent)
            if shown == box:
                return False
        return True


def _pixels(font: Font, letter: str) -> bytes:
    """Return how a font shows a letter; equal letters, equal bytes."""
    mask = font.getmask(letter)
    return bytes(mask)


def _is_from_right(letter: str) -> bool:
    """Return whether a letter is of a script that is written from right to left."""
    direction = unicodedata.bidirectional(letter)
    return direction in {"R", "AL"}


def _in_visual_order(runs: list[Run[F]]) -> list[Run[F]]:
    """Return runs as they stand from left to right: neighbours that are written from right to left change places."""
    ordered: list[Run[F]] = []
    turned: list[Run[F]] = []
    for run in runs:
        if any(map(_is_from_right, run.text)):
            turned.insert(0, run)
            continue
        ordered += turned
        ordered.append(run)
        turned = []
    return ordered + turned


def escape(letter: str) -> str:
    r"""Return a letter in ASCII: without its accent, or as its code, such as \u72ac."""
    decomposed = unicodedata.normalize("NFKD", letter)
    bare = decomposed[0]
    if bare.isascii() and bare.isprintable():
        return bare
    code = letter.encode("unicode_escape")
    return code.decode("ascii")


def clusters(word: str) -> Iterator[str]:
    """Yield letters with what belongs to them: accents, vowel signs, joined signs."""
    cluster = ""
    before = ""
    for letter in word:
        category = unicodedata.category(letter)
        is_mark = category.startswith("M")
        is_joined = letter in JOINERS or before in JOINERS
        if cluster and not is_mark and not is_joined:
            yield cluster
            cluster = ""
        cluster += letter
        before = letter
    if cluster:
        yield cluster


def what_differs(text: str, others: Iterable[str]) -> str:
    """Return a text without most of the longest beginning that it shares with one of the others."""
    shared = 0
    for other in others:
        alike = 0
        for letter, another in zip(text, other, strict=False):
            if letter != another:
                break
            alike += 1
        shared = max(shared, alike)
    start = shared - CONTEXT
    if start <= 0:
        return text
    word = text.find(" ", start, shared) + 1  # whole words stay
    return LEFT_OUT + text[word or start :]


def cut(lines: list[str], most: int, fits: Callable[[str], bool]) -> list[str]:
    """Return at most so many lines, the last with an ellipsis where some are missing, if it `fits`."""
    if len(lines) <= most:
        return lines
    *kept, last = lines[:most]
    while last and not fits(last + CUT):
        last = last[:-1]
    return [*kept, last.rstrip() + CUT]
