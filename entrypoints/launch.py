"""The entry of every training job: one process for each device of each host, brought up together by torchrun.

SageMaker describes the hosts of a job in `resourceconfig.json`. The processes meet at the first of them, which the
others find by its name (torchrun's rendezvous); without the file this machine is the only host. A job of one process
needs no torchrun and runs in this process.
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import os
import sys
from typing import Any

from entrypoints import train
from orchestrator.contract.environment import (
    EXIT_FAILED,
    EXIT_STOPPED,
    RANKS_VARIABLE,
    STOP_GRACE_SECONDS,
    Environment,
    Hosts,
)

RENDEZVOUS_PORT = 29400
SAVING_SECONDS = 20
"""Of the time between SIGTERM and SIGKILL, left for SageMaker to copy the last checkpoint."""


def main() -> int:
    """Run the job in the folder `ORCHESTRATOR_ML_ROOT` on all devices and return its exit status."""
    train.apply_settings()
    # Inherited values would make this process one of somebody else's group; torchrun sets its own.
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        os.environ.pop(name, None)
    environment = Environment.from_variables()
    hosts = environment.hosts()
    processes = processes_of_host()
    if processes * len(hosts.hosts) == 1:
        return train.main()
    return run_together(environment, hosts, processes)


def processes_of_host() -> int:
    """Return how many processes train on this host: one for each GPU, or as many as the variable says."""
    import torch

    chosen = os.environ.get(RANKS_VARIABLE)
    if chosen:
        return int(chosen)
    return max(1, torch.cuda.device_count())


def run_together(environment: Environment, hosts: Hosts, processes: int) -> int:
    """Start this host's processes, wait for all of them, and return the exit status of the job."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    name_interface(hosts)
    config = LaunchConfig(
        min_nodes=len(hosts.hosts),
        max_nodes=len(hosts.hosts),
        nproc_per_node=processes,
        local_addr=hosts.current,
        max_restarts=0,  # a job that loses a process fails, and can be resumed from its checkpoint
        shutdown_timeout=STOP_GRACE_SECONDS - SAVING_SECONDS,
        **rendezvous(hosts),
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", "entrypoints.train")
    except SignalException:
        # This host was asked to stop, and its processes have ended, for that reason or for another.
        if environment.failure_file.exists():
            return EXIT_FAILED
        return EXIT_STOPPED
    except ChildFailedError as error:
        # A process that stops as it was asked to has an exit status of its own, which torchrun takes for a failure.
        _, failure = error.get_first_failure()
        if failure.exitcode == EXIT_STOPPED:
            return EXIT_STOPPED
        return EXIT_FAILED
    return 0


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
    sys.exit(main())
