"""The hosts of a job, and how many processes each of them runs."""

import os

from orchestrator.contract.environment import RANKS_VARIABLE, Environment, Hosts


def processes_of_host() -> int:
    """Return how many processes of a job run on this host: one for each GPU, or as many as the variable says."""
    chosen = os.environ.get(RANKS_VARIABLE)
    if not chosen:
        import torch  # takes seconds, and must come after the settings of libraries

        return max(1, torch.cuda.device_count())
    if not chosen.isdecimal() or int(chosen) < 1:
        from entrypoints.runtime.failures import TrainingError

        raise TrainingError(
            "settings",
            f'{RANKS_VARIABLE} is "{chosen}", and must be a number of processes, from 1.',
            "Correct or remove the variable, then submit again.",
        )
    return int(chosen)


def hosts_of(environment: Environment) -> Hosts:
    """Read the job's hosts. Raises TrainingError when their file is not as SageMaker describes it."""
    try:
        return environment.hosts()
    except ValueError as error:
        from entrypoints.runtime.failures import TrainingError

        raise TrainingError(
            "settings",
            f"The list of hosts {environment.resource_config_file} cannot be read: {error}",
            "SageMaker writes this file: try again with python -m orchestrator jobs retry JOB",
        ) from error
