"""Follow a training job to its end: its log and the service's stages, in the order in which they happened.

The service reports stage and log separately, each with a delay. A container prints only in the stage "Training": that
stage is shown before the lines that were read with it, and every other stage after them.
"""

import time
from collections.abc import Iterator
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
        self._shown_stage = ""

    def news(self) -> Iterator[str]:
        """Yield the log's new lines and, as events, the new stage of the service.

        Raises the errors of `calling`; the next call yields what was not yielded before.
        """
        described = self._jobs.describe(self._attempt)  # before the log, so that its last lines are not missed
        ended = JobStatus(described["TrainingJobStatus"]).is_final
        if ended:
            time.sleep(self._poll_seconds)  # the last lines reach CloudWatch a little after the job's end
        stage = described["SecondaryStatus"]
        if stage == _TRAINING:
            yield from self._new_stage(stage)
            yield from self._new_lines(described)
        else:
            yield from self._new_lines(described)
            yield from self._new_stage(stage)
        self.ended = ended

    def _new_stage(self, stage: str) -> Iterator[str]:
        if stage != self._shown_stage:
            self._shown_stage = stage
            yield Phase(name=stage).model_dump_json()

    def _new_lines(self, described: Any) -> Iterator[str]:
        if self._log is None:
            self._log = log_of(self._aws, described)
        yield from self._log.fresh_lines()


def log_of(aws: Aws, described: Any) -> TrainingLog:
    """Return the log of a training job by its description."""
    return TrainingLog(aws, described["TrainingJobName"], described["CreationTime"])
