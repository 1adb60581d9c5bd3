"""What an inspection has found so far, in words that are safe to print."""

from orchestrator.contract.problem import Problem
from orchestrator.terminal import printable

LONGEST = 200  # characters of a name or a message; a file name has at most 255 bytes


def _shown(text: str) -> str:
    return printable(text) if len(text) <= LONGEST else printable(text[:LONGEST]) + "..."


class Findings:
    """A collector: checks add to it and go on, so that everything is reported at once."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []

    def problem(self, where: str, what: str, fix: str) -> None:
        """Note something that must be mended before training."""
        self._problems.append(Problem(where=_shown(where), what=_shown(what), fix=_shown(fix)))

    def warn(self, where: str, what: str, fix: str) -> None:
        """Note something that training can live with."""
        self._warnings.append(Problem(where=_shown(where), what=_shown(what), fix=_shown(fix)))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What must be mended, sorted by file name; findings of one file stay in the order they were made."""
        return tuple(sorted(self._problems, key=lambda problem: problem.where))

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What training can live with, in the same order."""
        return tuple(sorted(self._warnings, key=lambda warning: warning.where))
