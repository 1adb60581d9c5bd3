"""Follow a training job to its end: its log and the service's stages, in the order in which they happened.

The service reports stage and log separately, each with a delay. A container prints only in the stage "Training": that
stage is shown before the lines that were read with it, and every other stage after them.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.aws.client import Aws
from orchestrator.contract.events import Phase
from orchestrator.targets.base import JobStatus
from orchestrator.targets.sagemaker.cloudwatch import TrainingLog
from orchestrator.targets.sagemaker.training_jobs import TrainingJobs

_TRAINING = "Training"


class Following:
    """Reads what is new of one training job, again and again."""

    def __init__(
        self,
        aws: Aws,
        jobs: TrainingJobs,
        attempt: str,
        poll_seconds: float,
    ) -> None:
        self.ended = False
        """Whether the job has ended and everything was yielded."""
        self._aws = aws
        self._jobs = jobs
        self._attempt = attempt
        self._poll_seconds = poll_seconds
        self._log: TrainingLog | None = None
        self._shown = 0
        """Number of stages that were yielded."""

    def news(self) -> Iterator[str]:
        """Yield the log's new lines and, as events, the new stages of the service.

        Raises the errors of `calling`; the next call yields what was not yielded before.
        """
        described = self._jobs.describe(self._attempt)  # before the log, so that its last lines are not missed
        ended = JobStatus(described["TrainingJobStatus"]).is_final
        if ended:
            time.sleep(self._poll_seconds)  # the last lines reach CloudWatch a little after the job's end
        stages = described.get("SecondaryStatusTransitions", [])
        printing = self._shown  # number of stages up to the last in which the container prints
        for number, stage in enumerate(stages, start=1):
            if stage["Status"] == _TRAINING:
                printing = number
        yield from self._new_stages(stages[:printing])
        yield from self._new_lines(described)
        yield from self._new_stages(stages)
        self.ended = ended

    def _new_stages(self, stages: Sequence[Any]) -> Iterator[str]:
        for stage in stages[self._shown :]:
            self._shown += 1
            phase = Phase(name=stage["Status"], at=stage["StartTime"])
            yield phase.model_dump_json()

    def _new_lines(self, described: Any) -> Iterator[str]:
        if self._log is None:
            self._log = log_of(self._aws, described)
        yield from self._log.fresh_lines()


def log_of(aws: Aws, described: Any) -> TrainingLog:
    """Return the log of a training job by its description."""
    return TrainingLog(aws, described["TrainingJobName"], described["CreationTime"])
