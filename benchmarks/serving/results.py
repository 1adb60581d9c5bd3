"""What a row of the table has found, and the folder that keeps it until the row is measured again."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

MET = "met"
MISSED = "MISSED"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Figure(_Part):
    """A number, and what it should be."""

    what: str
    """What was measured, in words: "against load and unload for each request"."""
    value: float
    unit: str = ""
    """Stands behind the value: "x" for a ratio, "ms", "%"."""
    bar: float | None = None
    """None for a figure that only is told."""
    at_least: bool = False
    """Whether more is better."""

    @property
    def is_met(self) -> bool:
        """Whether the value is as good as its bar; a figure without one always is."""
        if self.bar is None:
            return True
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    @property
    def verdict(self) -> str:
        """The word for it; none without a bar."""
        if self.bar is None:
            return ""
        return MET if self.is_met else MISSED

    @property
    def bar_text(self) -> str:
        """The bar with its direction."""
        if self.bar is None:
            return ""
        return f"{'>=' if self.at_least else '<='} {shown(self.bar)}{self.unit}"

    @property
    def value_text(self) -> str:
        """The value with its unit."""
        return f"{shown(self.value)}{self.unit}"


class Found(_Part):
    """What a row has found."""

    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    """The numbers that the figures come from, and how they were measured: a sentence each."""


class Row(_Part):
    """A measured row."""

    name: str
    found: Found
    quick: bool
    """Whether it was measured with small numbers, to try it out."""
    date: str
    """UTC, to the minute."""
    seconds: float
    """That it took."""
    load: float
    """Average number of running processes in the minute before it began."""
    commit: str
    """Of the code that was measured; with a plus when files had been changed."""

    @property
    def is_met(self) -> bool:
        """Whether every bar is met."""
        return all(figure.is_met for figure in self.found.figures)


class Kept:
    """A folder with the latest result of each row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str) -> Path:
        """Return where a row's result lies."""
        return self.folder / f"{name}.json"

    def keep(self, row: Row) -> None:
        """Keep a result in the place of the one before."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file(row.name).write_text(row.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def find(self, name: str) -> Row | None:
        """Return a row's result; None when it was not measured, or is of another version of this benchmark."""
        try:
            return Row.model_validate_json(self.file(name).read_bytes())
        except (OSError, ValidationError):
            return None


def shown(value: float) -> str:
    """Return a number with three digits that count, and no more than it needs."""
    if value == 0 or float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 100:  # noqa: PLR2004 - three digits
        return f"{value:,.0f}"
    return f"{value:.3g}"
