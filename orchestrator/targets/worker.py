"""The process that runs one attempt of a local job and outlives the client that started it.

`python -m orchestrator.targets.worker JOB_FOLDER` does what the service does around a container: it lays out
`/opt/ml`, starts the training process, keeps its log, and publishes what it left in the model folder. It inherits
the job's lock from its parent and hands it on to the training process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest
from orchestrator.contract.environment import CACHE_VARIABLE, EXIT_STOPPED, ROOT_VARIABLE
from orchestrator.contract.events import ATTEMPT_PHASE, Failed, Phase, parse
from orchestrator.requests import BUNDLE_CHANNEL, channel_uris, folder_of
from orchestrator.storage import copy_tree_into_place, write_atomically
from orchestrator.targets.base import JobStatus
from orchestrator.targets.job_folder import AttemptState, JobFolder

_EXIT_KILLED = "The training process was ended by {signal}. {advice}"
_OUT_OF_MEMORY = "That is what the system does when memory runs out: lower batch_size or resolution."


def main(job_path: str, lock_descriptor: str, cache: str) -> None:
    """Run one attempt to its end; whatever happens is written into the job's state."""
    job = JobFolder(Path(job_path))
    state = AttemptState(started=datetime.now(UTC), worker_pid=os.getpid())
    job.write_state(state)
    code = None
    try:
        _lay_out(job)
        process = _start_training(job, int(lock_descriptor), Path(cache))
        state = state.model_copy(update={"training_pid": process.pid})
        job.write_state(state)
        _pass_on_stop(job, process)
        failed = _keep_log(job, process.stdout or ())
        code = process.wait()
        ending = _ending(job, code, failed)
    except OSError as error:
        reason = f"The job could not be run on this machine: {error}. Next: free disk space, then submit with --resume"
        ending = {"status": JobStatus.FAILED, "failure_reason": reason}
    job.write_state(state.model_copy(update={"ended": datetime.now(UTC), "exit_code": code, **ending}))


def _lay_out(job: JobFolder) -> None:
    """Make `/opt/ml` as the service makes it; checkpoints of an earlier attempt stay."""
    environment, request = job.environment, job.request()
    for folder in (environment.model, environment.samples):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    environment.checkpoints.mkdir(exist_ok=True)
    environment.failure_file.unlink(missing_ok=True)
    write_atomically(environment.hyperparameters_file, json.dumps(request["HyperParameters"]))
    data = environment.root / "input" / "data"
    data.mkdir(parents=True, exist_ok=True)
    for channel, uri in channel_uris(request).items():
        (data / channel).unlink(missing_ok=True)
        (data / channel).symlink_to(folder_of(uri), target_is_directory=True)


def _start_training(job: JobFolder, lock_descriptor: int, cache: Path) -> subprocess.Popen[str]:
    request = job.request()
    variables = {
        "PYTHONPATH": str(folder_of(channel_uris(request)[BUNDLE_CHANNEL])),
        "PYTHONDONTWRITEBYTECODE": "1",
        ROOT_VARIABLE: str(job.environment.root),
        CACHE_VARIABLE: str(cache),
    }
    entrypoint = request["AlgorithmSpecification"]["ContainerEntrypoint"]
    return subprocess.Popen(
        [sys.executable, *entrypoint[1:]],
        env={**os.environ, **variables},
        cwd=job.environment.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[lock_descriptor],
        text=True,
        errors="replace",
    )


def _pass_on_stop(job: JobFolder, process: subprocess.Popen[str]) -> None:
    def stop(*_: object) -> None:
        process.terminate()

    signal.signal(signal.SIGTERM, stop)
    if job.stop_requested():  # asked before the handler stood
        stop()


def _keep_log(job: JobFolder, lines: Iterable[str]) -> Failed | None:
    failed = None
    _end_last_line(job.log)
    with job.log.open("a", buffering=1) as log:
        log.write(Phase(name=ATTEMPT_PHASE).model_dump_json() + "\n")
        for line in lines:
            log.write(line)
            event = parse(line)
            failed = event if isinstance(event, Failed) else failed
    return failed


def _end_last_line(log: Path) -> None:
    """Close a line that a killed attempt left open, so that the next one begins its own."""
    with log.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def _ending(job: JobFolder, code: int, failed: Failed | None) -> dict[str, Any]:
    """Say how the attempt ended, and publish the adapter if it ended well."""
    if code == EXIT_STOPPED or (code == -signal.SIGTERM and job.stop_requested()):
        return {"status": JobStatus.STOPPED}
    if code == 0:
        return _publish(job)
    if failed is not None:
        next_step = f" Next: {failed.next_step}" if failed.next_step else ""
        return {"status": JobStatus.FAILED, "failure_reason": f"{failed.message}{next_step}"}
    return {"status": JobStatus.FAILED, "failure_reason": _silent_reason(job, code)}


def _silent_reason(job: JobFolder, code: int) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return _EXIT_KILLED.format(signal=name, advice=_OUT_OF_MEMORY if code == -signal.SIGKILL else "")
    return f"The training process ended with exit code {code}. Next: python -m orchestrator jobs logs {job.name}"


def _publish(job: JobFolder) -> dict[str, Any]:
    """Verify what training left and put it in its place, whole or not at all."""
    source, place = job.environment.model, folder_of(job.request()["OutputDataConfig"]["S3OutputPath"])
    damaged = AdapterManifest.read(source).damaged_files(source)
    if damaged:
        reason = f"The adapter came out damaged: {', '.join(damaged)}. Next: submit with --resume"
        return {"status": JobStatus.FAILED, "failure_reason": reason}
    copy_tree_into_place(source, place)
    if AdapterManifest.read(place) != AdapterManifest.read(source):
        reason = f"An adapter of another job is in the way: {place / MANIFEST_FILE}. Next: submit with another --name"
        return {"status": JobStatus.FAILED, "failure_reason": reason}
    return {"status": JobStatus.COMPLETED}


if __name__ == "__main__":
    # The client waits for this process; the job goes on in a child that init adopts.
    if os.fork() == 0:
        main(*sys.argv[1:])
