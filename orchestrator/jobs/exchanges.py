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
    if not rounds:
        raise JobError(
            f"The job {name} waits for labels of a round that is gone from {exchange.place}: its checkpoints have "
            "expired or were deleted, so it cannot go on.",
            next_step="submit it again with --restart",
        )
    newest = rounds[-1]
    if is_labelled(exchange, newest):
        return
    settlement = exchange.settled(newest)
    images = counted(len(settlement.unfinished), "image")
    next_step = command("label", name)
    if settlement.first_at is not None:
        close = command("label", name, "--close")
        next_step = f"{next_step}; or go on with those that there are: {close}"
    raise JobError(f"The job {name} waits for labels of {images} of round {newest}.", next_step=next_step)


def has_labels(target: Target, description: JobDescription) -> bool:
    """Whether the labels that a job waits for are there."""
    try:
        require_labels(target, description)
    except JobError:
        return False
    return True


def has_rounds(target: Target, name: str) -> bool:
    """Whether people were asked about images of a job: what they have said must not be thrown away unasked."""
    return bool(exchange_of(target, name).rounds())
