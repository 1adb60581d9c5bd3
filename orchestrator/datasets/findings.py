"""Problems and warnings that an inspection collects, with text that is safe to print."""

from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.contract.problem import Problem
from orchestrator.terminal import printable

MAX_SHOWN = 200  # characters of a name or a message; a file name has at most 255 bytes


class Defect(NamedTuple):
    """What is wrong with a file, and what to do."""

    what: str
    """The defect, to follow the name of the file: "is empty"."""
    fix: str
    """What to do, as a command: "remove it"."""


Remarks = list[Defect]
"""What does not prevent training."""


class UnusableError(Exception):
    """An image or a caption cannot be used."""

    def __init__(self, *defects: Defect) -> None:
        super().__init__(*defects)
        self.defects = defects


def unusable(what: str, fix: str) -> UnusableError:
    """Return the error for a file with one defect."""
    defect = Defect(what, fix)
    return UnusableError(defect)


class Findings:
    """Collects problems and warnings, so that one inspection reports all of them."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []

    def problem(self, where: str, what: str, fix: str) -> None:
        """Add something that must be fixed before training."""
        found = _printable_problem(where, what, fix)
        self._problems.append(found)

    def warn(self, where: str, what: str, fix: str) -> None:
        """Add something that does not prevent training."""
        found = _printable_problem(where, what, fix)
        self._warnings.append(found)

    def add_defects(
        self,
        where: str,
        error: UnusableError,
        *,
        line: int | None = None,
    ) -> None:
        """Add every defect of a file, or of one of its lines, as a problem."""
        prefix = "" if line is None else f"line {line}: "
        for defect in error.defects:
            self.problem(where, f"{prefix}{defect.what}", defect.fix)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems, sorted by file name; those of one file stay in the order they were added."""
        return _by_file(self._problems)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """All warnings, in the same order."""
        return _by_file(self._warnings)


def _printable_problem(where: str, what: str, fix: str) -> Problem:
    return Problem(
        where=_shortened(where),
        what=_shortened(what),
        fix=_shortened(fix),
    )


def _shortened(text: str) -> str:
    """Return a printable text of at most MAX_SHOWN characters of `text`."""
    shown = printable(text[:MAX_SHOWN])
    if len(text) > MAX_SHOWN:
        shown += "..."
    return shown


def _by_file(findings: Iterable[Problem]) -> tuple[Problem, ...]:
    in_order = sorted(findings, key=lambda finding: finding.where)
    return tuple(in_order)
