"""The course of one training job: stage after stage on the clock, the container in the middle."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from sagemaker_simulator import permissions
from sagemaker_simulator.clock import Timer

from .attempt import Attempt, JobFailedError
from .faults import FailIn, Interruption, JobFault, capacity_shortage
from .job import REASON_LIMIT, TrainingJob

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator

GRACE_SECONDS = 120  # between SIGTERM and SIGKILL
_DEFAULT_RUNTIME = 24 * 3600
_Kind = TypeVar("_Kind", FailIn, Interruption)


class JobDriver:
    """Moves a job through its stages; everything here runs as an action of the clock unless it says otherwise."""

    def __init__(self, simulator: "SageMakerSimulator", job: TrainingJob, faults: list[JobFault]) -> None:
        if any(isinstance(fault, Interruption) for fault in faults) and not job.is_spot:
            raise ValueError(f"{job.name} does not run on spot capacity: it cannot be interrupted.")
        self.simulator = simulator
        self.clock = simulator.clock
        self.timeline = simulator.timeline
        self.job = job
        self.faults = faults
        self.attempt: Attempt | None = None
        self.next: Timer | None = None
        """The end of the current stage; the container's stage has none."""
        self._instances_since: datetime | None = None
        self._wait_limit: Timer | None = None
        self._stop: tuple[str, str] | None = None
        """Secondary status and message in which a job that is being stopped will end."""
        self._work_done = False
        self._uploaded = False

    @property
    def holds_instances(self) -> bool:
        return self._instances_since is not None

    @property
    def is_working(self) -> bool:
        """Whether a container runs."""
        return self.attempt is not None and self.attempt.is_started and not self._work_done

    # The way to the container

    def start(self) -> None:
        """Begin the first attempt."""
        if self.job.is_spot:
            wait = self.job.request["StoppingCondition"]["MaxWaitTimeInSeconds"]
            self._wait_limit = self.clock.after(wait, self._guarded(lambda: self.end_early("MaxWaitTimeExceeded")))
        self._begin("Starting")

    def _begin(self, secondary: str) -> None:
        self.job.attempts += 1
        self._enter(secondary, "Starting the training job")
        self._then("Starting", self.timeline.starting, self._wait_for_capacity)

    def _wait_for_capacity(self) -> None:
        self._enter(self._name("Pending", "LaunchingMLInstances"), "Training job waiting for capacity...")
        self._then("Pending", self.timeline.pending, lambda: self._launch(self.timeline.capacity_patience))

    def _launch(self, patience: float) -> None:
        if not self.simulator.has_capacity(self.job):
            message = "Insufficient capacity error from EC2 while launching instances, retrying!"
            self._enter(self._name("Pending", "LaunchingMLInstances"), message)
            if patience <= 0 and not self.job.is_spot:
                raise JobFailedError(capacity_shortage().reason)
            pause = self.timeline.capacity_retry
            self._then("Pending", pause, lambda: self._launch(patience - pause))
            return
        if action := self._missing_to_launch():
            raise JobFailedError(f"ClientError: The role {self.job.role} is not authorized to perform: {action}")
        self._instances_since = self.clock.now()
        self._enter(self._name("Pending", "PreparingTrainingStack"), "Preparing the instances for training...")
        self._then("Preparing", self.timeline.preparing, self._download)

    def _missing_to_launch(self) -> str | None:
        """Return an action the role lacks to have the instances the job asks for."""
        job, volume_key = self.job, self.job.request["ResourceConfig"].get("VolumeKmsKeyId")
        missing = permissions.missing_for_volume(job.role, volume_key) if volume_key else None
        if missing is None and "VpcConfig" in job.request:
            missing = permissions.missing_for_vpc(job.role, job.region, job.request["VpcConfig"])
        return missing

    def _download(self) -> None:
        self._instances_since = self.clock.now()  # from here on they are paid for
        self.job.started = self.job.started or self._instances_since
        self.attempt = Attempt(self.simulator, self.job)
        runtime = self.job.request["StoppingCondition"].get("MaxRuntimeInSeconds", _DEFAULT_RUNTIME) - self.job.worked
        self._limit(runtime, lambda: self.end_early("MaxRuntimeExceeded"))
        self._enter("Downloading", "Downloading input data...")
        self.attempt.fill()
        self._then("Downloading", self.timeline.downloading, self._pull_image)

    def _pull_image(self) -> None:
        self._enter(self._name("Downloading", "DownloadingTrainingImage"), "Downloading the training image...")
        self._then("Image", self.timeline.image, self._train)

    # The container

    def _train(self) -> None:
        self.next = None
        self._enter("Training", "Training image download completed. Training in progress.")
        if self.attempt is not None:
            self.attempt.run(self._logged, self._synced, self._left)
        if (fault := self._coming(Interruption)) and fault.after_seconds is not None:
            self._limit(fault.after_seconds, lambda: self.take_machine(fault))
        if (failure := self._coming(FailIn, "Training")) and failure.when_logged is None:
            self.take_machine(failure)

    def _logged(self, line: str) -> None:
        """Note a line (on the thread that reads the log)."""
        self.simulator.note(self.job, line)
        for fault in (self._coming(Interruption), self._coming(FailIn, "Training")):
            if fault is not None and fault.when_logged and fault.when_logged in line:
                self.take_machine(fault)

    def _synced(self, name: str) -> None:
        """Note a checkpoint file that arrived (on the thread that copies)."""
        fault = self._coming(Interruption)
        if fault is not None and fault.when_synced and fault.when_synced in name:
            self.take_machine(fault)

    def take_machine(self, fault: Interruption | FailIn) -> None:
        """Let a fault take the instances from under the container now (on any thread)."""
        attempt = self.attempt
        if attempt is None or not self.is_working or attempt.lost_to is not None:
            return
        with suppress(ValueError):  # one that was not planned
            self.faults.remove(fault)
        attempt.lost_to = fault
        if isinstance(fault, Interruption) and fault.notice:
            attempt.terminate()
            self._limit(GRACE_SECONDS, attempt.kill)
        else:
            attempt.lose_machine()

    def _left(self, code: int) -> None:
        """Hand the end of the container over to the clock (on the thread that waited for it)."""
        self.clock.post(self._guarded(lambda: self._exited(code)))

    def _exited(self, code: int) -> None:
        attempt = self.attempt
        if attempt is None:
            return
        self._work_done = True
        attempt.check_checkpoints()
        if self._stop is not None:
            self._then("Uploading", 0, self._upload)
        elif isinstance(attempt.lost_to, Interruption):
            self._interrupted()
        elif attempt.lost_to is not None:
            self._fail(attempt.lost_to)
        elif code != 0:
            raise JobFailedError(f"AlgorithmError: {attempt.layout.failure()[:REASON_LIMIT]}, exit code: {code}")
        else:
            worked = (self.clock.now() - self.job.transitions[-1].start).total_seconds()
            self._then("Uploading", max(0, self.timeline.training - worked), self._upload)

    def _interrupted(self) -> None:
        self._leave_instances()
        self._enter("Interrupted", "Training job interrupted: spot capacity was taken back")
        self._then("", self.timeline.restart, lambda: self._begin(self.timeline.retry_status))

    # The ways out

    def _upload(self) -> None:
        status = "InProgress" if self._stop is None else "Stopping"
        self.job.enter(status, "Uploading", "Uploading generated training model", self.clock.now())
        if self.attempt is not None:
            self.attempt.upload()
        self._uploaded = True
        self._then("", self.timeline.uploading, self._finish)

    def _finish(self) -> None:
        if self._stop is None:
            self._end("Completed", "Completed", "Training job completed")
        else:
            self._end("Stopped", *self._stop)

    def _end(self, status: str, secondary: str, message: str) -> None:
        self._leave_instances()
        if self._wait_limit is not None:
            self._wait_limit.cancel()
        self.job.finish(status, secondary, message, self.clock.now())
        self.simulator.changed()

    def _fail(self, fault: FailIn) -> None:
        retries = self.job.request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)
        if fault.retriable and self.job.attempts <= retries:
            self._leave_instances()
            self._begin(self.timeline.retry_status)
        else:
            self._fail_with(fault.reason, fault.message)

    def _fail_with(self, reason: str, message: str = "Training job failed") -> None:
        self.job.failure_reason = reason[:REASON_LIMIT]
        self._end("Failed", "Failed", message)

    def _leave_instances(self) -> None:
        if self._instances_since is not None and self.attempt is not None:
            self.job.worked += (self.clock.now() - self._instances_since).total_seconds()
        self._instances_since = None
        self._work_done = False
        if self.attempt is not None:
            self.attempt.end()
            self.attempt = None

    def stop(self) -> None:
        """Stop the job because somebody asked for it."""
        self._begin_stop("Stopped", "Training job stopped")

    def end_early(self, secondary: str) -> None:
        """Stop the job at one of its limits."""
        if self._stop is None:
            self._begin_stop(secondary, f"Training job stopped: {secondary}")

    def _begin_stop(self, secondary: str, message: str) -> None:
        self._stop = (secondary, message)
        self.job.enter("Stopping", "Stopping", "Stopping the training job", self.clock.now())
        if self.is_working and self.attempt is not None:
            self.attempt.terminate()
            self._limit(GRACE_SECONDS, self.attempt.kill)
            self.simulator.changed()
        elif self._work_done and not self._uploaded:
            self._then("", 0, self._upload)
        else:
            self._then("", self.timeline.stopping, self._finish)

    def close(self) -> None:
        """End whatever runs (the simulator is closed)."""
        if self.attempt is not None:
            self.attempt.close()

    # Small change

    def _name(self, today: str, once: str) -> str:
        return once if self.timeline.retired_statuses else today

    def _enter(self, secondary: str, message: str) -> None:
        self.job.enter("InProgress", secondary, message, self.clock.now())
        self.simulator.changed()

    def _then(self, stage: str, seconds: float, step: Callable[[], None]) -> None:
        """Take the next step when this stage has lasted so long, if it is not the one to fail in."""
        if self.next is not None:
            self.next.cancel()
        fault = self._coming(FailIn, stage)
        if fault is not None:
            self.faults.remove(fault)
        self.next = self.clock.after(seconds, self._guarded(step if fault is None else lambda: self._fail(fault)))
        self.simulator.changed()

    def _limit(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen to this attempt, if it lasts so long."""
        if self.attempt is not None:
            self.attempt.limits.append(self.clock.after(seconds, self._guarded(action)))

    def _coming(self, kind: type[_Kind], stage: str | None = None) -> _Kind | None:
        for fault in list(self.faults):
            if isinstance(fault, kind) and (stage is None or getattr(fault, "stage", stage) == stage):
                return fault
        return None

    def _guarded(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a step after which a failure is the job's end and a bug is known to the simulator."""

        def run() -> None:
            if self.job.is_final or self.simulator.closed:
                return
            try:
                step()
            except JobFailedError as failed:
                self._fail_with(str(failed))
            except Exception as error:  # noqa: BLE001 - raised again by the simulator's close
                self.simulator.errors.append(error)
                self._fail_with(f"InternalServerError: the simulator broke: {error!r}")

        return run
