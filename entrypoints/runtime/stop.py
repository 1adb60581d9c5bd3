"""The request to end a run early, kept until the run reaches a place where nothing is lost.

A signal can arrive in the middle of a step. Its handler therefore only sets a flag, which the run checks between steps.
"""

import signal
from dataclasses import dataclass
from types import FrameType


class Stopped(Exception):  # noqa: N818 - not an error: the job did what it was asked
    """The job was asked to stop and has saved what it had."""


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
