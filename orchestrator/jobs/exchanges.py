"""Where the rounds of a job lie that people label: in its checkpoints, which come back when it starts again."""

from collections.abc import Callable, Sequence

from orchestrator.contract.labels import EXCHANGE_FOLDER
from orchestrator.errors import JobError
from orchestrator.jobs.job import Job
from orchestrator.labels.exchange import Exchange
from orchestrator.storage import FolderStore, folder_of
from orchestrator.targets.base import Target


def exchange_of(job: Job) -> Exchange:
    """Return the exchange of a job; it has no rounds before the job has drawn some.

    A job that was started over has other checkpoints in the account, and so another exchange.
    """
    uri = job.target.checkpoints(job.name)
    if uri.startswith("file:"):
        return Exchange(FolderStore(folder_of(uri) / EXCHANGE_FOLDER))
    store = job.target.store
    prefix = store.name(f"{uri.rstrip('/')}/{EXCHANGE_FOLDER}/")
    return Exchange(store, prefix)


def finder(targets: Sequence[Target]) -> Callable[[str], Exchange | None]:
    """Return a function from the whole name of a job to its exchange, or None when there is no such job."""

    def find(name: str) -> Exchange | None:
        for target in targets:
            try:
                if target.has(name):
                    return exchange_of(Job(target, name))
            except JobError:  # no name that a job may have, or deleted just now
                continue
        return None

    return find
