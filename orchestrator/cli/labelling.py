"""A session of labelling: the page, and the job that goes on when its labels are there."""

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.cli.output import print_json, print_warning, say
from orchestrator.contract.command_line import command
from orchestrator.contract.plurals import counted
from orchestrator.contract.settlement import Settlement
from orchestrator.errors import MachineError, OrchestratorError
from orchestrator.jobs.exchanges import is_labelled, waits_for_labels
from orchestrator.jobs.job import Job
from orchestrator.labels.desk import Desk
from orchestrator.labels.exchange import Exchange
from orchestrator.labels.sending import Sender

_LOOK_SECONDS = 0.5
_LOOK_AGAIN_SECONDS = 5.0
"""Between two looks at a job whose round is complete here: each is a few calls of the service."""


class Labelled(NamedTuple):
    """What is labelled."""

    exchange: Exchange
    kept: Path
    """Where labels for a bucket are kept on this machine."""
    job: Job | None = None
    """The job that has drawn it; None for a folder."""
    starts: bool = False
    """Whether the job is started again when its labels are there."""

    def go_on(self) -> bool:
        """Start the job again if it waits and its labels are there, or say how; return whether it did either.

        A round whose labels are still being sent to a bucket does not count yet.
        """
        if self.job is None or not self._is_labelled():
            return False
        if not waits_for_labels(self.job.describe()):
            return False
        if not self.starts:
            retry = command("jobs", "retry", self.job.name)
            say(f"The labels are there. Go on with: {retry}", err=True)
            return True
        self.job.resume()
        say(f"The labels are there: {self.job.name} goes on.", err=True)
        return True

    def _is_labelled(self) -> bool:
        """Whether the newest round has its labels."""
        rounds = self.exchange.rounds()
        return bool(rounds) and is_labelled(self.exchange, rounds[-1])

    def send(self) -> None:
        """Bring the labels to the bucket that are still on this machine alone."""
        if self.exchange.folder is None:
            with Sender(self.exchange, self.kept).running():
                pass


def label_round(
    labelled: Labelled,
    number: int | None,
    people: tuple[str, ...],
    options: Mapping[str, Any],
    *,
    as_json: bool,
) -> Settlement:
    """Serve the page until it is interrupted, and return the labels of the latest round; raises MachineError."""
    _require_page_libraries()
    desk = Desk(labelled.exchange, labelled.kept, number=number, pairs=options["pairs"])
    with _looking(labelled, desk):
        _serve(desk, people, port=options["port"], opens=not options["no_browser"], as_json=as_json)
    labelled.go_on()
    return desk.settlement()


@contextmanager
def _looking(labelled: Labelled, desk: Desk) -> Iterator[None]:
    """Have the job go on as soon as its labels are there, while the block runs.

    The service is asked only once the round is complete here; what goes wrong is told once, and tried again.
    """
    ended = threading.Event()

    def look() -> None:
        gone_on: set[int] = set()
        troubles: set[str] = set()
        seconds = _LOOK_SECONDS
        while not ended.wait(seconds):
            seconds = _LOOK_SECONDS
            number = desk.manifest.round
            if number in gone_on or not desk.is_complete():
                continue
            try:
                if labelled.go_on():
                    gone_on.add(number)
            except OrchestratorError as error:
                if error.message not in troubles:
                    print_warning(error)
                troubles.add(error.message)
            seconds = _LOOK_AGAIN_SECONDS

    if labelled.job is None:
        yield
        return
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _require_page_libraries() -> None:
    """Raise MachineError when a library of the page is missing: they are an extra, which this command alone needs."""
    try:
        import fastapi  # noqa: F401  (one of the extra's)
        import jinja2  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        message = f"The page to label on needs {error.name}, which is not installed."
        raise MachineError(message, next_step='pip install "orchestrator[label]"') from error


def _serve(desk: Desk, people: tuple[str, ...], *, port: int, opens: bool, as_json: bool) -> None:
    from orchestrator.labels.server import LabelServer  # needs the extra

    server = LabelServer(desk, port)
    links = {}
    for by in people or ("",):
        links[by] = server.link(by)
    if as_json:
        print_json({"links": links, "round": desk.manifest.round})
    else:
        manifest = desk.manifest
        images = counted(len(manifest.samples), "image")
        say(f"Round {manifest.round} of {manifest.job}: {images}. Open in a browser of this machine:")
        for by, link in links.items():
            say(f"  {link}  {by}")
        say("End with Ctrl+C.")
    sys.stdout.flush()
    if opens and not as_json:
        first = next(iter(links.values()))
        _open_browser(first)
    server.run()


def _open_browser(link: str) -> None:
    """Open the link where there is a screen: on a terminal alone, a browser in text would take it over."""
    import webbrowser

    has_screen = sys.platform in {"darwin", "win32"}
    if "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ:
        has_screen = True
    if has_screen and sys.stdout.isatty():
        webbrowser.open(link)
