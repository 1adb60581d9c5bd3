"""The request to end a run early, kept until the run reaches a place where nothing is lost.

A signal can arrive in the middle of a step. Its handler therefore only sets a flag, which the run checks between steps.
"""

import signal
from dataclasses import dataclass
from types import FrameType


class Stopped(Exception):  # noqa: N818 - not an error: the job did what it was asked
    """The job was asked to stop and has saved what it had."""


class WaitsForLabels(Stopped):
    """A round waits for people, and the job has saved what it had: started again when they are done, it goes on."""

    def __init__(self, message: str, next_step: str) -> None:
        """Keep what is said of it: what the job waits for, and the command with which people label."""
        super().__init__(message)
        self.message = message
        self.next_step = next_step


@dataclass
class StopFlag:
    """Becomes true when the process is asked to end."""

    asked: bool = False

    def listen(self) -> None:
        """Treat SIGTERM (and Ctrl-C) as the request to save and end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self.asked = True

    def check(self) -> None:
        """Raise `Stopped` if the process was asked to end."""
        if self.asked:
            raise Stopped
