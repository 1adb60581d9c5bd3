"""The entry of every training job: one process for each device of each host, brought up together by torchrun.

SageMaker describes the hosts of a job in `resourceconfig.json`. The processes meet at the first of them, which the
others find by its name (torchrun's rendezvous); without the file this machine is the only host. A job of one process
needs no torchrun and runs in this process.
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from entrypoints import train
from entrypoints.runtime import libraries, process
from entrypoints.runtime.hosts import hosts_of, processes_of_host
from entrypoints.runtime.stop import StopFlag, Stopped, WaitsForLabels
from orchestrator.contract.adapter import MANIFEST_FILE
from orchestrator.contract.environment import (
    EXIT_STOPPED,
    EXIT_WAITING,
    STOP_GRACE_SECONDS,
    Environment,
    Hosts,
)

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

RENDEZVOUS_PORT = 29400
SAVING_SECONDS = 20
"""Of the time between SIGTERM and SIGKILL, left for SageMaker to copy the last checkpoint."""


def main() -> int:
    """Run the job in the folder `ORCHESTRATOR_ML_ROOT` on all devices and return its exit status."""
    stop = StopFlag()
    stop.listen()
    libraries.apply_settings()
    # Inherited values would make this process one of somebody else's group; torchrun sets its own.
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    environment = Environment.from_variables()
    environment.failure_file.unlink(missing_ok=True)  # of an earlier attempt
    return train.exit_status(environment, lambda: run(environment, stop))


def run(environment: Environment, stop: StopFlag) -> None:
    """Run the job in this process, or in several."""
    processes = processes_of_host()
    hosts = hosts_of(environment)
    stop.check()
    if processes * len(hosts.hosts) == 1:
        train.run_recipe(environment, stop)
    else:
        run_together(environment, hosts, processes, stop)


def run_together(
    environment: Environment,
    hosts: Hosts,
    processes: int,
    stop: StopFlag,
) -> None:
    """Start this host's processes and wait for all of them.

    Raises Stopped when they were asked to end, or wait for people, and TrainingError when one has failed. One that
    could has reported the failure already, and then nothing is added to it.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from entrypoints.runtime.failures import TrainingError

    process.resume_collector()
    name_interface(hosts)
    config = launch_config(hosts, processes)
    already_published = published_at(environment)
    try:
        start_and_wait(config, stop)
    except SignalException as error:
        if environment.failure_file.exists():
            raise TrainingError("lost-process", "A process failed while the job was being stopped.") from error
        if published_at(environment) != already_published:
            return  # the request to end came when all was done
        raise Stopped from error
    except ChildFailedError as error:
        # A process that stops as it was asked to has an exit status of its own, which torchrun takes for a failure. It
        # then ends the others.
        codes = {failure.exitcode for failure in error.failures.values()}
        if EXIT_WAITING in codes:
            raise WaitsForLabels("A round waits for labels.", "python -m orchestrator label JOB") from error
        ended_by_stop = {EXIT_STOPPED, -signal.SIGTERM, -signal.SIGKILL}
        if EXIT_STOPPED in codes and codes <= ended_by_stop and not environment.failure_file.exists():
            raise Stopped from error
        _, failure = error.get_first_failure()
        raise TrainingError(
            "lost-process",
            f"A process of this job (number {failure.local_rank} on its host) {ending_of(failure)}.",
            "If the host was short of memory, lower batch_size. Resume the job with: "
            "python -m orchestrator jobs retry JOB",
        ) from error


def start_and_wait(config: "LaunchConfig", stop: StopFlag) -> None:
    """Start the processes and wait for them; raises as torchrun does when they fail or are to end."""
    from torch.distributed.launcher.api import elastic_launch

    os.environ[train.LAUNCHER_VARIABLE] = str(os.getpid())
    start = elastic_launch(config, sys.executable)
    # Until torchrun sets handlers of its own, nothing runs that would have to be saved: a signal ends this process. The
    # first process of a container ignores signals without a handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(EXIT_STOPPED))
    stop.check()
    try:
        start("-u", "-m", "entrypoints.train")
    finally:
        stop.listen()  # torchrun's handlers stay, and would raise in the middle of a report


def launch_config(hosts: Hosts, processes: int) -> "LaunchConfig":
    """Return torchrun's configuration for this host."""
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=len(hosts.hosts),
        max_nodes=len(hosts.hosts),
        nproc_per_node=processes,
        local_addr=hosts.current,
        max_restarts=0,  # a job that loses a process fails, and can be resumed from its checkpoint
        shutdown_timeout=STOP_GRACE_SECONDS - SAVING_SECONDS,
        **rendezvous(hosts),
    )


def ending_of(failure: "ProcessFailure") -> str:
    """Return in words how a process ended that had no chance to report it."""
    if failure.exitcode < 0:
        return f"was ended by {failure.signal_name()}"
    return f"ended with exit code {failure.exitcode}"


def published_at(environment: Environment) -> int:
    """Return when the adapter of this host was published, in nanoseconds; 0 if there is none."""
    manifest = environment.model / MANIFEST_FILE
    if not manifest.exists():
        return 0
    return manifest.stat().st_mtime_ns


def rendezvous(hosts: Hosts) -> dict[str, Any]:
    """Return the fields of `LaunchConfig` that say where the processes meet.

    On one host that is any free port, so that several jobs can train on it. Several hosts need one that all know.
    """
    if len(hosts.hosts) == 1:
        return {
            "run_id": "job",
            "rdzv_backend": "c10d",
            "rdzv_endpoint": "localhost:0",
        }
    first_host = hosts.hosts[0]
    port = os.environ.get("MASTER_PORT", RENDEZVOUS_PORT)
    return {
        "run_id": "job",
        "rdzv_backend": "static",
        "rdzv_endpoint": f"{first_host}:{port}",
        "rdzv_configs": {"rank": hosts.number},
    }


def name_interface(hosts: Hosts) -> None:
    """Tell gloo and NCCL which network the hosts share: they guess, and may choose one without a route."""
    if hosts.network_interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", hosts.network_interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", hosts.network_interface)


if __name__ == "__main__":
    process.run(main)
