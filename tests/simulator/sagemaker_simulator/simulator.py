"""The simulator: its state, what a test may set, and the one place where a call is answered."""

import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config

from . import permissions, registry, roles
from .calls import Call, Record, RecordedCall
from .clock import Clock, ManualClock, WallClock
from .errors import ServiceError
from .faults import FaultPlan
from .hosting.hosting import Hosting
from .hosting.runtime import Asked
from .operations import OPERATIONS
from .roles import Actor
from .training.container import Image
from .training.driver import JobDriver
from .training.faults import Interruption, JobFault
from .training.job import TrainingJob
from .training.machine import Machine
from .training.timeline import Timeline
from .validation import LOADER, output_faults, validate
from .waiting import Waiting
from .wire import Answer, to_wire

USER_AGENT = "sagemaker-simulator"
"""Marks the simulator's own calls to S3 and CloudWatch, which are neither recorded nor given faults."""


class SimulatorError(Exception):
    """The simulator itself went wrong."""


class SageMakerSimulator(Waiting):
    """A SageMaker for tests. Close it, or use it as a context manager."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        timeline: Timeline | None = None,
        images: Mapping[str, Image] | None = None,
        root_variable: str = "ORCHESTRATOR_ML_ROOT",
        spot_saving: float = 0.7,
        check_roles: bool = True,
        seed: int = 0,
    ) -> None:
        """Make one.

        Args:
            clock: `ManualClock` (the test's) unless told otherwise; `WallClock` runs by itself.
            timeline: How long stages of jobs take; without waits on a clock that runs by itself.
            images: How images are run, by URI; an image that is not there cannot be pulled. None: any image runs with
                this interpreter.
            root_variable: Environment variable that tells the container where its /opt/ml is.
            spot_saving: Part of the price that spot capacity saves.
            check_roles: Refuse jobs whose role moto's IAM does not have, or which SageMaker may not assume.
            seed: Of the order in which checkpoint files are copied.
        """
        super().__init__()
        self.clock = clock or ManualClock()
        self.timeline = timeline or (Timeline.immediate() if isinstance(self.clock, WallClock) else Timeline())
        self.images = images
        self.root_variable = root_variable
        self.spot_saving = spot_saving
        self.check_roles = check_roles
        self.seed = seed
        self.folder = Path(tempfile.mkdtemp(prefix="sagemaker-"))
        self.endpoint: str | None = None
        """Where moto is, when it is not in this process's mock."""
        self.requests = Record()
        self.faults = FaultPlan()
        self.quotas: dict[str, int] = {}
        """Instances by quota name, such as `ml.g5.xlarge for spot training job usage`; no entry, no limit."""
        self.capacity: dict[str, int] = {}
        """Instances that can be had, by type; no entry, as many as one likes."""
        self.seconds_per_call: dict[str, float] = {}
        """How far each call of an operation moves a manual clock: for clients that poll."""
        self.list_lag_seconds = 0.0
        """How old a job has to be for lists to name it: what the service promises of its lists is not written down."""
        self.tags: dict[str, dict[str, str]] = {}
        self.creating = threading.Lock()
        self.hosting = Hosting(self)
        """Endpoints, and what a test may do to them."""
        self.errors: list[Exception] = []
        """What broke inside; `close` raises it."""
        self.closed = False
        self._jobs: dict[tuple[str, str], dict[str, TrainingJob]] = defaultdict(dict)
        self._drivers: dict[int, JobDriver] = {}
        self._job_faults: list[tuple[str | None, JobFault]] = []
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._making_clients = threading.Lock()
        self._log_lines: dict[int, list[str]] = defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close()
        if error is None:
            self.require_faults_happened()

    def close(self) -> None:
        """End every container and thread; raises what broke inside."""
        if self.closed:
            return
        self.closed = True
        for driver in self._drivers.values():
            driver.close()
        self.hosting.close()
        self.clock.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.errors:
            raise SimulatorError(f"The simulator broke: {self.errors!r}") from self.errors[0]

    # What a test may ask for

    def inject(self, fault: JobFault, job: str | None = None) -> None:
        """Let a fault befall the job of a name, or the next job that is created."""
        self._job_faults.append((job, fault))

    def require_faults_happened(self) -> None:
        """Raise AssertionError when a planned fault has not happened, of a request, a job or an endpoint."""
        self.faults.require_used()
        waiting = [fault for _, fault in self._job_faults]
        for driver in self._drivers.values():
            waiting += driver.faults
        waiting += [fault for _, fault in self.hosting.faults]
        assert not waiting, f"Planned faults did not befall anything: {waiting}."

    def job(self, name: str) -> TrainingJob:
        """Return a job by name, of whatever account and region."""
        for jobs in self._jobs.values():
            if name in jobs:
                return jobs[name]
        raise KeyError(name)

    def machines(self, name: str) -> list[Machine]:
        """Return the machines that a job has now, in the order of its hosts: what lies on them, and containers."""
        attempt = self.driver(self.job(name)).attempt
        return [] if attempt is None else attempt.machines

    def interrupt(self, name: str, *, notice: bool = False) -> None:
        """Take a spot job's capacity back now, while its container runs."""
        job = self.job(name)
        if not job.is_spot or not self.driver(job).is_working:
            raise SimulatorError(f"{name} is no spot job whose container runs.")
        self.driver(job).take_machine(Interruption(notice=notice))

    def show(self, name: str, status: str, secondary: str, message: str = "") -> None:
        """Make a job show a status, for clients that have to know them all; its course goes on from where it was."""
        self.job(name).enter(status, secondary, message, self.clock.now())
        self.changed()

    def log_lines(self, name: str) -> list[str]:
        """Return what a job's containers have printed."""
        return list(self._log_lines[id(self.job(name))])

    # For the transports

    def answer(self, call: Call, recorded: RecordedCall) -> dict[str, Any]:
        """Carry out a call and return its answer as it goes over the wire; raises ServiceError."""
        if isinstance(self.clock, ManualClock) and (seconds := self.seconds_per_call.get(call.operation)):
            self.clock.advance(seconds)
        permissions.check_caller(call, self.tags)
        validate(call.operation, call.parameters)
        if call.operation not in OPERATIONS:
            raise ServiceError("UnknownOperationException", f"The simulator does not know {call.operation} yet.", 501)
        answer: dict[str, Any] = to_wire(OPERATIONS[call.operation](self, call))
        recorded.committed = True
        if faults := output_faults(call.operation, answer):
            raise SimulatorError(f"The answer of {call.operation} is not what the model says: {faults}")
        return answer

    def invoke(self, call: Call, asked: Asked, recorded: RecordedCall) -> Answer:
        """Carry out a call to the runtime API; raises ServiceError."""
        if isinstance(self.clock, ManualClock) and (seconds := self.seconds_per_call.get(call.operation)):
            self.clock.advance(seconds)
        permissions.check_caller(call, self.tags)
        return self.hosting.runtime.answer(call, asked, recorded)

    # For the operations and the jobs

    def jobs(self, account: str, region: str) -> dict[str, TrainingJob]:
        return self._jobs[account, region]

    def drive(self, driver: JobDriver) -> JobDriver:
        self._drivers[id(driver.job)] = driver
        return driver

    def driver(self, job: TrainingJob) -> JobDriver:
        return self._drivers[id(job)]

    def is_any_working(self) -> bool:
        """Whether some job's container works now, or that of an endpoint begins or ends."""
        return self.hosting.is_busy or any(driver.is_working for driver in list(self._drivers.values()))

    def job_faults(self, name: str) -> list[JobFault]:
        """Return the faults meant for a new job, which are its own from now on."""
        mine = [fault for meant, fault in self._job_faults if meant in {None, name}]
        self._job_faults = [(meant, fault) for meant, fault in self._job_faults if meant not in {None, name}]
        return mine

    def has_capacity(self, job: TrainingJob) -> bool:
        """Return whether the instances a job asks for can be had."""
        resources = job.request["ResourceConfig"]
        limit = self.capacity.get(resources["InstanceType"])
        taken = sum(
            driver.job.request["ResourceConfig"]["InstanceCount"]
            for driver in list(self._drivers.values())
            if driver.holds_instances
            and driver.job.request["ResourceConfig"]["InstanceType"] == resources["InstanceType"]
        )
        return limit is None or taken + resources["InstanceCount"] <= limit

    def image(self, uri: str) -> Image | None:
        """Return how an image is run, also for the digest of one that is known by its tag; None for any other."""
        if self.images is None:
            return Image()
        found = [self.images.get(name) for name in registry.names(uri)]
        return next((image for image in found if image is not None), None)

    def trusts_service(self, actor: Actor) -> bool:
        return not self.check_roles or roles.trusts_service(actor.role, actor.arn)

    def client_for(self, actor: Actor, service: str) -> Any:
        """Return a client that may do what a job's or a model's role may."""
        of = (actor.role, actor.region, service)
        with self._making_clients:
            if of not in self._clients:
                self._clients[of] = self._client(*of)
            return self._clients[of]

    def _client(self, role: str, region: str, service: str) -> Any:
        session = boto3.session.Session(region_name=region, **roles.assume(role, region))
        session._session.register_component("data_loader", LOADER)
        config = Config(user_agent_extra=USER_AGENT, retries={"mode": "standard", "max_attempts": 3})
        return session.client(service, endpoint_url=self.endpoint, config=config)

    def role_variables(self, actor: Actor) -> dict[str, str]:
        """Return the role's credentials as a container gets them; an isolated one gets none."""
        if actor.is_isolated:
            return {}
        credentials = roles.assume(actor.role, actor.region)
        variables = {name.upper(): value for name, value in credentials.items()}
        return variables | ({"AWS_ENDPOINT_URL": self.endpoint} if self.endpoint else {})

    def note(self, job: TrainingJob, line: str) -> None:
        """Remember a line a container printed."""
        self._log_lines[id(job)].append(line)
        self.changed()

    def guarded(self, step: Callable[[], None]) -> None:
        """Run a thread's work; what goes wrong is known to `close`."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - raised again by close
            self.errors.append(error)
            self.changed()
