"""The entry of every training job: one process for each device of each host, brought up together by torchrun.

SageMaker describes the hosts of a job in `resourceconfig.json`. The first of them is the rendezvous, which the others
find by its name; without the file this machine is the only host. A job of one process needs neither and is trained in
this one.
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
SAVING_SECONDS = 20  # of the grace are left for the service to copy the last checkpoint


def main() -> int:
    """Run the job described below `ORCHESTRATOR_ML_ROOT` on all devices and return its exit status."""
    train.apply_settings()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):  # left over from whoever started this; torchrun sets its own
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
    return int(chosen) if chosen else max(1, torch.cuda.device_count())


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
        max_restarts=0,  # a job that lost a process ends, and is resumed from its checkpoint
        shutdown_timeout=STOP_GRACE_SECONDS - SAVING_SECONDS,
        **rendezvous(hosts),
    )
    try:
        elastic_launch(config, sys.executable)("-u", "-m", "entrypoints.train")
    except SignalException:  # this host was asked to stop, and its processes have ended
        return EXIT_FAILED if environment.failure_file.exists() else EXIT_STOPPED
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return EXIT_STOPPED if failure.exitcode == EXIT_STOPPED else EXIT_FAILED
    return 0


def rendezvous(hosts: Hosts) -> dict[str, Any]:
    """Return where the processes meet: on one host at any free port, else at the first host's fixed one."""
    if len(hosts.hosts) == 1:
        return {"run_id": "job", "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    port = os.environ.get("MASTER_PORT", RENDEZVOUS_PORT)
    endpoint = f"{hosts.hosts[0]}:{port}"
    return {
        "run_id": "job",
        "rdzv_backend": "static",
        "rdzv_endpoint": endpoint,
        "rdzv_configs": {"rank": hosts.number},
    }


def name_interface(hosts: Hosts) -> None:
    """Tell gloo and NCCL which network the hosts share: they would guess, and may choose one that leads nowhere."""
    if hosts.network_interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", hosts.network_interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", hosts.network_interface)


if __name__ == "__main__":
    sys.exit(main())
