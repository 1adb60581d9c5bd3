"""`label`: people's judgement of the images that a job has drawn."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.completion import job_names
from orchestrator.cli.output import json_option, print_facts, print_json, print_warning, say
from orchestrator.contract.command_line import command
from orchestrator.contract.plurals import counted

if TYPE_CHECKING:
    from orchestrator.contract.settlement import Settlement
    from orchestrator.labels.desk import Desk
    from orchestrator.labels.exchange import Exchange
    from orchestrator.settings import Settings


@click.command()
@click.argument("job", metavar="JOB|FOLDER", shell_complete=job_names)
@click.option(
    "--round", "number", type=click.IntRange(0), help="Which round; the newest, and then the next, when left out."
)
@click.option(
    "--by", "people", metavar="NAME", multiple=True, help="Who labels; can be repeated. The page asks otherwise."
)
@click.option("--pairs", is_flag=True, help="Choose the better of two images of a prompt, instead of rating each.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the page; any free one when left out.")
@click.option("--no-browser", is_flag=True, help="Print the link and open no browser.")
@click.option("--show", "shows", is_flag=True, help="Show how far the labels are, and open no page.")
@click.option(
    "--collect", is_flag=True, help="First fetch the labels that other tools have sent to the account's queue."
)
@json_option
def label(
    job: str,
    number: int | None,
    people: tuple[str, ...],
    shows: bool,
    collect: bool,
    as_json: bool,
    **page: bool | int,
) -> None:
    """Label the images of a job's round: rate each from 1 to 5, or choose the better of two.

    The page opens in a browser and is reached from this machine alone. Keys 1 to 5 rate, 1 and 2 or the arrows choose,
    space skips, U takes back. Every label is on the disk before the next image comes: a session that ends goes on where
    it ended. Several people can label at once, each in a browser of their own.

    \b
    label my-job
    label my-job --by ada --by ben --pairs
    label my-job --show
    label ./exchange

    A job on SageMaker reads labels when it starts: see `jobs retry`.
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.settings import Settings

    settings = Settings.from_environment()
    if collect:
        _collect(settings, quiet=as_json)
    exchange, kept = _exchange(job, settings)
    if shows:
        chosen = exchange.newest() if number is None else number
        _print_settlement(exchange.settled(chosen), as_json=as_json)
        return
    desk = _desk(exchange, kept, number, pairs=bool(page["pairs"]))
    _serve(desk, people, port=int(page["port"]), opens=not page["no_browser"], as_json=as_json)
    if not as_json:
        _print_settlement(desk.settlement(), as_json=False)


def _exchange(job: str, settings: "Settings") -> "tuple[Exchange, Path]":
    """Return the exchange of a job, or the one in a folder, and where labels for a bucket are kept on this machine.

    A word is a folder's path when it has a separator, or when a folder of that name here has rounds in it; the name of
    a job otherwise, of which the first letters are enough.
    """
    from orchestrator.contract.labels import ROUNDS_FOLDER
    from orchestrator.labels.exchange import exchange_in
    from orchestrator.settings import typed_path
    from orchestrator.targets.opening import open_targets

    folder = typed_path(job)
    is_path = os.sep in job or (folder / ROUNDS_FOLDER).is_dir()
    if is_path and folder.is_dir():
        return exchange_in(folder), folder
    from orchestrator.jobs.exchanges import exchange_of
    from orchestrator.jobs.job import find

    found = find(job, open_targets(settings, print_warning))
    return exchange_of(found), settings.labels / found.name


def _desk(exchange: "Exchange", kept: Path, number: int | None, *, pairs: bool) -> "Desk":
    """Open the desk; raises MachineError when a library of the page is missing.

    The client itself does without them: they are an extra, and imported by this command alone.
    """
    from orchestrator.errors import MachineError

    try:
        import fastapi  # noqa: F401  (one of the extra's)
        import jinja2  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        message = f"The page to label on needs {error.name}, which is not installed."
        raise MachineError(message, next_step='pip install "orchestrator[label]"') from error
    from orchestrator.labels.desk import Desk

    return Desk(exchange, kept, number=number, pairs=pairs)


def _serve(desk: "Desk", people: tuple[str, ...], *, port: int, opens: bool, as_json: bool) -> None:
    from orchestrator.labels.server import LabelServer

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


def _collect(settings: "Settings", *, quiet: bool) -> None:
    """Fetch what other tools have sent to the account's queue, for all jobs.

    What cannot be stored is told and stays in the queue. Raises AccountError for an account without one.
    """
    from orchestrator.aws.client import Aws
    from orchestrator.errors import AccountError
    from orchestrator.jobs.exchanges import finder
    from orchestrator.labels.queue import LabelQueue
    from orchestrator.targets.opening import open_targets

    account = settings.account()
    if account.label_queue_url is None:
        raise AccountError("The account has no queue for labels.", next_step=command("infra", "up", "--labels"))
    queue = LabelQueue(Aws(account.region), account.label_queue_url)
    collected = queue.collect(finder(open_targets(settings, print_warning)))
    if not quiet:
        say(f"Fetched {counted(collected.labels, 'label')} in {counted(collected.messages, 'message')}.", err=True)
    for problem in collected.left:
        say(f"Warning: {problem.render()}", err=True)


def _print_settlement(settlement: "Settlement", *, as_json: bool) -> None:
    """Print how far the labels of a round are."""
    if as_json:
        print_json(settlement.model_dump(mode="json"))
        return
    people = ", ".join(settlement.people)
    rated = len(settlement.ratings)
    compared = len(settlement.choices)
    missing = len(settlement.missing)
    facts = [
        ("round", str(settlement.round)),
        ("people", people or "nobody yet"),
        ("rated", counted(rated, "image")),
        ("compared", counted(compared, "pair")),
        ("without a label", counted(missing, "image")),
    ]
    if settlement.alpha is not None:
        alpha = f"{settlement.alpha:.2f} (Krippendorff's alpha, ordinal)"
        facts.append(("agreement", alpha))
    if settlement.equal_choices is not None:
        share = f"{settlement.equal_choices:.0%}"
        facts.append(("equal choices", share))
    counts = {
        "not of this round": settlement.unknown,
        "of two prompts": settlement.mismatched,
        "sent twice": settlement.repeated,
        "replaced": settlement.replaced,
        "taken back": settlement.withdrawn,
        "late": len(settlement.late),
        "damaged lines": len(settlement.damaged),
    }
    for name, count in counts.items():
        if count > 0:
            facts.append((name, str(count)))
    print_facts(facts)
    for line in settlement.damaged:
        say(f"  {line.file}, line {line.line}: {line.why}")
