"""What a terminal can show, and lines at its end that are redrawn in place.

The cursor rests before the lines. When a window gets narrower, the terminal breaks each of them in two; a display that
leaves its cursor behind what it drew would erase the second half only.
"""

import locale
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

import click

_SECONDS_BETWEEN_DRAWINGS = 0.25
_HIDE_CURSOR = "\x1b[?25l"
_SHOW_CURSOR = "\x1b[?25h"
_ERASE = "\r\x1b[J"  # from the cursor to the end of the screen
_NO_SIZE = os.terminal_size((80, 24))


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person sees what is written at once, and control codes work."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def size_of(stream: TextIO) -> os.terminal_size:
    """Return the columns and rows of the terminal behind a stream; 80 x 24 where it does not know."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return _NO_SIZE
    if size.columns <= 0 or size.lines <= 0:
        return _NO_SIZE
    return size


def shows_unicode(stream: TextIO) -> bool:
    """Return whether the stream and the person's locale have more than ASCII."""
    encodings = {stream.encoding, locale.getencoding()}
    for encoding in encodings:
        name = str(encoding).lower()
        if name.replace("-", "").replace("_", "") != "utf8":
            return False
    # Python writes UTF-8 in the locale C, where a terminal need not understand it.
    asked = os.environ.get("LC_ALL") or os.environ.get("LANG")
    return asked not in {"C", "POSIX"}


def styled(text: str, stream: TextIO, colour: str, *, bold: bool = False) -> str:
    """Return the text in a colour, if the stream is a terminal and the person has not set NO_COLOR."""
    if not is_terminal(stream) or os.environ.get("NO_COLOR"):
        return text
    return click.style(text, fg=colour, bold=bold)


def width_of(text: str) -> int:
    """Return how many columns a text takes: a Chinese character or an emoji takes two, an accent of its own none."""
    import wcwidth

    return wcwidth.width(text)


def padded(text: str, width: int) -> str:
    """Return the text with spaces behind it, to so many columns."""
    missing = width - width_of(text)
    return text + " " * missing


def shortened(text: str, width: int, ellipsis: str) -> str:
    """Return the text, cut to so many columns with an ellipsis at its end when it is longer."""
    import wcwidth

    if width_of(text) <= width:
        return text
    room = max(0, width - len(ellipsis))
    kept = wcwidth.clip(text, 0, room)
    return kept.rstrip() + ellipsis


class LiveLines:
    """Lines that are redrawn in place below text that scrolls; safe to use from several threads.

    `lines` is called with the columns and rows there are, several times a second; each line has to fit.
    """

    def __init__(self, stream: TextIO, lines: Callable[[int, int], Sequence[str]]) -> None:
        self._stream = stream
        self._lines = lines
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._drawn: object = None
        self._thread = threading.Thread(target=self._redraw, daemon=True)

    def __enter__(self) -> Self:
        self._stream.write(_HIDE_CURSOR)
        self._draw()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        try:
            self._thread.join()
        finally:  # another Ctrl-C must not leave the terminal without its cursor
            self._stream.write(f"{_ERASE}{_SHOW_CURSOR}")
            self._stream.flush()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Keep the lines as they are while what they show is changed."""
        with self._lock:
            yield

    def print(self, text: str) -> None:
        """Print a line above, which stays."""
        with self._lock:
            self._stream.write(f"{_ERASE}{text}\n")
            self._drawn = None
            self._draw()

    def _redraw(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_DRAWINGS):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            size = size_of(self._stream)
            lines = self._lines(size.columns, size.lines)
            drawing = (size, list(lines))
            if drawing == self._drawn:
                return
            self._drawn = drawing
            text = "\n".join(lines)
            up = ""
            rows_up = len(lines) - 1
            if rows_up > 0:
                up = f"\x1b[{rows_up}A"
            self._stream.write(f"{_ERASE}{text}{up}\r")
            self._stream.flush()
