"""The entry of a job that draws a batch: each device of each host draws its share of the samples.

An image is kept with the checkpoints as soon as its batch is drawn, in a file that appears by a rename and is named by
all that the image depends on. A job that lost a worker, or all of them, therefore draws only what is missing; and
because batches do not depend on what is there already, or on the number of workers, its images are the same bytes.
When its workers are done, a host leaves their images with an index (`orchestrator/contract/batch_result.py`).
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from entrypoints import train
from entrypoints.batches.inputs import base_folder, settings_of
from entrypoints.batches.kept import kept_folder
from entrypoints.batches.publication import publish
from entrypoints.batches.share import draw_share
from entrypoints.batches.worker import Worker
from entrypoints.runtime import libraries, process
from entrypoints.runtime.hosts import hosts_of, processes_of_host
from entrypoints.runtime.stop import StopFlag, Stopped
from orchestrator.contract.environment import EXIT_STOPPED, Environment
from orchestrator.contract.events import Warned, emit

if TYPE_CHECKING:
    from entrypoints.runtime.failures import TrainingError


def main(arguments: Sequence[str] = ()) -> int:
    """Draw the job in the folder `ORCHESTRATOR_ML_ROOT` and return the exit status.

    Without arguments this is the entry of a host; with those of a `Worker` it is one of its processes.
    """
    libraries.apply_settings()
    environment = Environment.from_variables()
    stop = StopFlag()
    stop.listen()
    if arguments:
        train.end_with_launcher()
        worker = Worker(*map(int, arguments))
        return train.exit_status(environment, lambda: draw_share(environment, worker, stop))
    environment.failure_file.unlink(missing_ok=True)  # of an earlier attempt
    return train.exit_status(environment, lambda: run(environment, stop))


def run(environment: Environment, stop: StopFlag) -> None:
    """Have this host's workers draw, and leave their images.

    Raises Stopped when the job was asked to end, and TrainingError when a worker has failed.
    """
    processes = processes_of_host()
    hosts = hosts_of(environment)
    first = Worker(hosts.number * processes, len(hosts.hosts) * processes, 0, processes)
    workers = first.host
    stop.check()
    if len(workers) == 1:
        draw_share(environment, first, stop)
    else:
        base_folder(environment, settings_of(environment))  # a model of the Hub is fetched, and its commit noted, once
        draw_together(environment, workers, stop)
    publish(environment, hosts, workers)


def draw_together(
    environment: Environment,
    workers: Sequence[Worker],
    stop: StopFlag,
) -> None:
    """Have workers draw, each in a process of its own. One that is killed ends no other, and is started again.

    Raises Stopped when they were asked to end, and TrainingError when one has failed, or is killed again before any
    image is drawn. One that could has reported the failure already, and then nothing is added to it.
    """
    folder = kept_folder(environment)
    folder.mkdir(parents=True, exist_ok=True)
    left = workers
    while left:
        before = set(folder.iterdir())
        codes = start_and_wait(left, stop)
        killed = []
        for worker, code in zip(left, codes, strict=True):
            has_drawn = set(folder.iterdir()) > before
            if code < 0 and has_drawn and not stop.asked:
                killed.append(worker)
                emit(Warned(message=f"{_ending(worker, code)}. It is started again."))
            elif code not in (0, EXIT_STOPPED) and not stop.asked:
                raise _lost(worker, code)
        if stop.asked or EXIT_STOPPED in codes:
            raise Stopped
        left = killed


def start_and_wait(workers: Sequence[Worker], stop: StopFlag) -> list[int]:
    """Start a process for each worker, wait for all, and return their exit codes; a request to end is passed on."""
    variables = {**os.environ, train.LAUNCHER_VARIABLE: str(os.getpid())}
    started = []
    for worker in workers:
        arguments = map(str, worker)
        process_of_worker = subprocess.Popen(
            [sys.executable, "-u", "-m", "entrypoints.draw_batch", *arguments],
            env=variables,
        )
        started.append(process_of_worker)

    def pass_on(*_: object) -> None:
        stop.asked = True
        for one in started:
            one.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    if stop.asked:  # before there was somebody to pass it on to
        pass_on()
    codes = []
    for one in started:
        codes.append(one.wait())
    stop.listen()
    return codes


def _ending(worker: Worker, code: int) -> str:
    """Return in words how a worker ended that has not drawn its share."""
    ending = f"ended with exit code {code}"
    if code < 0:
        ending = f"was ended by {signal.Signals(-code).name}"
    return f"Worker {worker.number + 1} of {worker.workers} {ending}"


def _lost(worker: Worker, code: int) -> "TrainingError":
    """Return the failure for a worker that has not drawn its share."""
    from entrypoints.runtime.failures import TrainingError

    return TrainingError(
        "lost-process",
        f"{_ending(worker, code)}; what it and the others have drawn is kept.",
        "If the host was short of memory, start fewer workers. Draw what is missing with: "
        "python -m orchestrator jobs retry JOB",
    )


if __name__ == "__main__":
    process.run(lambda: main(sys.argv[1:]))
