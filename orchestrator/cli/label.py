"""`label`: people's judgement of the images that a job has drawn."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.completion import job_names
from orchestrator.cli.output import json_option, print_facts, print_json, print_warning, say
from orchestrator.contract.command_line import command
from orchestrator.contract.plurals import counted

if TYPE_CHECKING:
    from orchestrator.cli.labelling import Labelled
    from orchestrator.contract.settlement import Settlement
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
@click.option("--close", "closes", is_flag=True, help="Have the job go on with the labels that the round has now.")
@click.option(
    "--retry/--no-retry",
    default=None,
    help="Start a job that waits again when its labels are there; on SageMaker it is not unless asked.",
)
@click.option(
    "--export",
    "pairs_folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write the pairs that people prefer, which rlhf learns from with algorithm=dpo, and open no page.",
)
@json_option
def label(
    job: str,
    number: int | None,
    people: tuple[str, ...],
    as_json: bool,
    **given: Any,
) -> None:
    """Label the images of a job's round: rate each from 1 to 5, or choose the better of two.

    The page opens in a browser and is reached from this machine alone. Keys 1 to 5 rate, 1 and 2 or the arrows choose,
    space skips, U takes back. Every label is on the disk before the next image comes: a session that ends goes on where
    it ended. Several people can label at once, each in a browser of their own.

    \b
    label my-job
    label my-job --by ada --by ben --pairs
    label my-job --show
    label my-job --collect --show --retry
    label ./exchange --export ./pairs

    A job that has ended until its labels are there is started again when they are. One on SageMaker, which costs money,
    only with --retry.
    """  # noqa: D301  (\b is click's mark for lines to leave as they are)
    from orchestrator.cli.labelling import label_round
    from orchestrator.settings import Settings

    settings = Settings.from_environment()
    if given["pairs_folder"] is not None and (given["closes"] or given["shows"]):
        raise click.UsageError("--export writes pairs and does nothing else: leave --show and --close out.")
    if given["collect"]:
        _collect(settings, quiet=as_json)
    labelled = _labelled(job, settings, retry=given["retry"])
    if given["pairs_folder"] is not None:
        _export(labelled.exchange, number, given["pairs_folder"], as_json=as_json)
        return
    labelled.send()
    if given["shows"] or given["closes"]:
        chosen = labelled.exchange.newest() if number is None else number
        if given["closes"]:
            labelled.exchange.close(chosen)
        _print_settlement(labelled.exchange.settled(chosen), as_json=as_json)
        if given["closes"] or given["retry"]:
            labelled.go_on()
        return
    settlement = label_round(labelled, number, people, given, as_json=as_json)
    if not as_json:
        _print_settlement(settlement, as_json=False)


def _labelled(job: str, settings: "Settings", *, retry: bool | None) -> "Labelled":
    """Return what is labelled: the exchange of a job, or the one in a folder.

    A word is a folder's path when it has a separator, or when a folder of that name here has rounds in it; the name of
    a job otherwise, of which the first letters are enough.
    """
    from orchestrator.cli.labelling import Labelled
    from orchestrator.contract.labels import ROUNDS_FOLDER
    from orchestrator.labels.exchange import exchange_in
    from orchestrator.settings import typed_path
    from orchestrator.targets.local.queue import Turn
    from orchestrator.targets.opening import open_targets

    folder = typed_path(job)
    is_path = os.sep in job or (folder / ROUNDS_FOLDER).is_dir()
    if is_path and folder.is_dir():
        return Labelled(exchange_in(folder), folder)
    from orchestrator.jobs.exchanges import exchange_of
    from orchestrator.jobs.job import find
    from orchestrator.targets.names import LOCAL_TARGETS

    targets = open_targets(settings, print_warning, Turn.ALONE)
    found = find(job, targets)
    is_free = found.target.name in LOCAL_TARGETS
    starts = is_free if retry is None else retry
    exchange = exchange_of(found.target, found.name)
    return Labelled(exchange, settings.labels / found.name, found, starts=starts)


def _export(exchange: "Exchange", number: int | None, folder: Path, *, as_json: bool) -> None:
    """Write the pairs of a round, or of all."""
    from orchestrator.contract.command_line import command
    from orchestrator.labels.preferences import export_preferences

    rounds = exchange.rounds() if number is None else [number]
    exported = export_preferences(exchange, rounds, folder)
    if as_json:
        print_json(exported._asdict())
        return
    say(f"Wrote {counted(exported.pairs, 'pair')} of {counted(exported.pictures, 'picture')} to {folder}.")
    learn = command("submit", "rlhf", "-s", "algorithm=dpo", "--images", str(folder))
    say(f"Learn from them with: {learn}")


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
