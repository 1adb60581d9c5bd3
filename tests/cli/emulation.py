"""Terminals for tests: a real one of any width, and an emulated one that breaks long lines when it gets narrower."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

_PIECE = re.compile(r"\x1b\[\??(\d*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Terminal:
    """Lines of text and a cursor in one of them; rows follow from the columns."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.line = 0
        self.column = 0  # in the line, which may take several rows

    def feed(self, text: str) -> None:
        """Take in what a program writes."""
        for number, code, control, words in _PIECE.findall(text):
            if words:
                self._write(words)
            elif control == "\r":
                self.column -= self.column % self.columns
            elif control == "\n":
                self._next_line()
            elif code == "J":
                self.lines[self.line] = self.lines[self.line][: self.column]
                del self.lines[self.line + 1 :]
            elif code == "A":
                for _ in range(int(number or 1)):
                    self._up()

    def rows(self) -> list[str]:
        """Return what a person sees, without the empty rows at the end."""
        rows = []
        for line in self.lines:
            rows += [line[start : start + self.columns] for start in range(0, max(1, len(line)), self.columns)]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def _write(self, words: str) -> None:
        line = self.lines[self.line].ljust(self.column)
        self.lines[self.line] = line[: self.column] + words + line[self.column + len(words) :]
        self.column += len(words)

    def _next_line(self) -> None:
        self.line += 1
        self.column = 0  # the terminal driver adds the carriage return
        if self.line == len(self.lines):
            self.lines.append("")

    def _up(self) -> None:
        if self.column >= self.columns:
            self.column -= self.columns
        elif self.line > 0:
            self.line -= 1
            rows_before = max(0, len(self.lines[self.line]) - 1) // self.columns
            self.column += rows_before * self.columns


def on_a_terminal(command: list[str], columns: int = 80, **variables: str) -> str:
    """Return what a command prints on a terminal of so many columns, with its control codes."""
    window, side = pty.openpty()
    resize(window, columns)
    environment = {**os.environ, **variables}
    text = b""
    with subprocess.Popen(command, env=environment, stdin=side, stdout=side, stderr=side) as client:
        os.close(side)
        try:
            while chunk := os.read(window, 65536):
                text += chunk
        except OSError:  # the command has closed its side
            pass
        client.wait()
    os.close(window)
    return text.decode().replace("\r\n", "\n")


def resize(window: int, columns: int) -> None:
    """Change the size of a terminal's window to so many columns and 24 rows."""
    fcntl.ioctl(window, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
