"""One attempt of a job: its machines, which work beside one another."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from sagemaker_simulator import permissions
from sagemaker_simulator.clock import Timer

from .container import Image
from .faults import FailIn, Interruption, image_pull_failure
from .job import TrainingJob
from .layout import Layout
from .machine import JobFailedError, Machine
from .storage import described

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator

__all__ = ["Attempt", "JobFailedError"]


class Attempt:
    """The machines of a job, until they are given back."""

    def __init__(self, simulator: "SageMakerSimulator", job: TrainingJob) -> None:
        self.simulator = simulator
        self.job = job
        image = simulator.image(job.request["AlgorithmSpecification"].get("TrainingImage", ""))
        hosts = job.hosts
        if image is None or not image.every_host:
            hosts = hosts[:1]
        self.machines = [Machine(simulator, job, host) for host in hosts]
        self.lost_to: Interruption | FailIn | None = None
        """What took the machines, or will."""
        self.limits: list[Timer] = []
        self._codes: dict[str, int] = {}
        """Exit codes of the machines that are done, in the order in which they were."""
        self._lock = threading.Lock()

    @property
    def is_started(self) -> bool:
        """Whether a container was started."""
        return any(machine.container is not None for machine in self.machines)

    @property
    def layout(self) -> Layout:
        """The tree of the machine that failed first, or else of the first machine."""
        for machine in self.machines:
            if machine.host == self._first_to_fail():
                return machine.layout
        return self.machines[0].layout

    def _first_to_fail(self) -> str | None:
        for host, code in self._codes.items():
            if code != 0:
                return host
        return None

    def fill(self) -> None:
        """Lay out /opt/ml of all machines and download channels and checkpoints."""
        for machine in self.machines:
            machine.fill()

    def run(
        self, on_line: Callable[[str], None], on_synced: Callable[[str], None], on_exit: Callable[[int], None]
    ) -> None:
        """Start the containers; the three are called on threads of their own, the last one once all have ended."""
        uri = self.job.request["AlgorithmSpecification"].get("TrainingImage", "")
        image = self.simulator.image(uri)
        if image is None or permissions.missing_for_image(self.job.role, uri):
            raise JobFailedError(image_pull_failure().reason)
        for machine in self.machines:
            self._run(machine, image, on_line, on_synced, on_exit)

    def _run(
        self,
        machine: Machine,
        image: Image,
        on_line: Callable[[str], None],
        on_synced: Callable[[str], None],
        on_exit: Callable[[int], None],
    ) -> None:
        def ended(code: int) -> None:
            with self._lock:
                self._codes[machine.host] = code
                is_last = len(self._codes) == len(self.machines)
                failed = self._first_to_fail()
            if code != 0 and failed == machine.host:  # a job of which one container fails is over
                for other in self.machines:
                    other.kill()
            if is_last:
                on_exit(self._codes.get(failed or "", 0))

        machine.run(image, on_line, on_synced, ended)

    def check_checkpoints(self) -> None:
        """Raise what kept checkpoints from S3."""
        for machine in self.machines:
            machine.check_checkpoints()

    def upload(self) -> None:
        """Put the model and the output data of all machines where the job's output goes."""
        kms_key = self.job.request["OutputDataConfig"].get("KmsKeyId") or None
        if kms_key and (action := permissions.missing_for_output(self.job.role, kms_key)):
            raise JobFailedError(f"ClientError: Artifact upload failed:AccessDenied ({action}): {kms_key}")
        try:
            for machine in self.machines:
                machine.upload()
        except ClientError as error:
            raise JobFailedError(f"ClientError: Artifact upload failed:{described(error)}") from error

    def terminate(self) -> None:
        """Ask the containers to end."""
        for machine in self.machines:
            machine.terminate()

    def kill(self) -> None:
        """End the containers; what they left is still copied."""
        for machine in self.machines:
            machine.kill()

    def lose_machine(self) -> None:
        """End the containers, and copy nothing any more."""
        for machine in self.machines:
            machine.lose()

    def end(self) -> None:
        """Leave nothing behind."""
        for timer in self.limits:
            timer.cancel()
        for machine in self.machines:
            machine.end()

    def close(self) -> None:
        """Leave nothing behind, and wait until all threads know (not in an action, for which they may wait)."""
        self.end()
        for machine in self.machines:
            machine.close()
