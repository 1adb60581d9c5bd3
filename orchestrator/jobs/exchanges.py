"""Where the rounds of a job lie that people label: in its checkpoints, which come back when it starts again."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from orchestrator.contract.command_line import command
from orchestrator.contract.labels import EXCHANGE_FOLDER, WAITS
from orchestrator.contract.plurals import counted
from orchestrator.errors import JobError
from orchestrator.labels.exchange import Exchange
from orchestrator.storage import FolderStore, folder_of
from orchestrator.targets.base import JobDescription, JobStatus, Target


def exchange_of(target: Target, name: str) -> Exchange:
    """Return the exchange of a job; it has no rounds before the job has drawn some.

    A job that was started over has other checkpoints in the account, and so another exchange.
    """
    uri = target.checkpoints(name)
    if uri.startswith("file:"):
        return Exchange(FolderStore(folder_of(uri) / EXCHANGE_FOLDER))
    store = target.store
    prefix = store.name(f"{uri.rstrip('/')}/{EXCHANGE_FOLDER}/")
    return Exchange(store, prefix)


def finder(targets: Sequence[Target]) -> Callable[[str], Exchange | None]:
    """Return a function from the whole name of a job to its exchange, or None when there is no such job."""

    def find(name: str) -> Exchange | None:
        for target in targets:
            try:
                if target.has(name):
                    return exchange_of(target, name)
            except JobError:  # no name that a job may have, or deleted just now
                continue
        return None

    return find


def waits_for_labels(description: JobDescription) -> bool:
    """Whether a job has ended until people have labelled its round."""
    if description.status is not JobStatus.STOPPED:
        return False
    return WAITS in (description.failure_reason or "")


def is_labelled(exchange: Exchange, number: int) -> bool:
    """Whether a job goes on with the labels that a round has."""
    if exchange.closed(number) is not None:
        return True
    manifest = exchange.manifest(number)
    return exchange.settled(number).is_enough(manifest.deadline, datetime.now(UTC))


def require_labels(target: Target, description: JobDescription) -> None:
    """Raise JobError when a job would end again at once, because the labels that it waits for are not there."""
    if not waits_for_labels(description):
        return
    name = description.name
    exchange = exchange_of(target, name)
    rounds = exchange.rounds()
    if not rounds or is_labelled(exchange, rounds[-1]):
        return
    missing = len(exchange.settled(rounds[-1]).missing)
    raise JobError(
        f"The job {name} waits for labels of {counted(missing, 'image')} of round {rounds[-1]}.",
        next_step=f"{command('label', name)}  # with --close it goes on with those that there are",
    )
