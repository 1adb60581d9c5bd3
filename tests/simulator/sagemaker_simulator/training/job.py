"""A training job as DescribeTrainingJob shows it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

REASON_LIMIT = 1024  # characters, from the model
FINAL = frozenset({"Completed", "Failed", "Stopped"})
# The fields of CreateTrainingJob that come back as they were sent; Tags do not.
_ECHOED = (
    "TrainingJobName",
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "StoppingCondition",
    "CheckpointConfig",
    "DebugHookConfig",
    "DebugRuleConfigurations",
    "TensorBoardOutputConfig",
    "ExperimentConfig",
    "ProfilerConfig",
    "ProfilerRuleConfigurations",
    "Environment",
    "RetryStrategy",
    "RemoteDebugConfig",
    "InfraCheckConfig",
    "MlflowConfig",
    "ModelPackageConfig",
)
_FLAGS = ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining")


def local_volume(resources: dict[str, Any]) -> dict[str, Any]:
    """Return what the service may say of a disk that is built in, though nobody ordered a volume."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    type_name = resources.get("InstanceType", "").removeprefix("ml.")
    size = INSTANCE_TYPES.get(type_name, {}).get("InstanceStorageInfo", {}).get("TotalSizeInGB")
    return {} if size is None else {"VolumeSizeInGB": size, "VolumeKmsKeyId": "alias/aws/ebs"}


@dataclass
class Transition:
    """A secondary status while it lasted."""

    status: str
    start: datetime
    message: str
    end: datetime | None = None


@dataclass
class TrainingJob:
    """Everything the service knows of a job."""

    request: dict[str, Any]
    arn: str
    account: str
    region: str
    created: datetime
    status: str = "InProgress"
    secondary: str = "Starting"
    failure_reason: str | None = None
    transitions: list[Transition] = field(default_factory=list)
    modified: datetime | None = None
    started: datetime | None = None
    """When the first attempt was on its instances."""
    ended: datetime | None = None
    worked: float = 0
    """Seconds on instances, of all attempts that ended."""
    saving: float = 0
    """The part of the price that spot capacity saves."""
    metrics: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    attempts: int = 0

    @property
    def name(self) -> str:
        return str(self.request["TrainingJobName"])

    @property
    def role(self) -> str:
        return str(self.request["RoleArn"])

    @property
    def hosts(self) -> list[str]:
        """The names of its hosts."""
        count = self.request["ResourceConfig"]["InstanceCount"]
        return [f"algo-{number}" for number in range(1, count + 1)]

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def is_deleting(self) -> bool:
        """Whether it is about to vanish; until then its name is taken."""
        return self.status == "Deleting"

    @property
    def is_spot(self) -> bool:
        return bool(self.request.get("EnableManagedSpotTraining"))

    @property
    def is_isolated(self) -> bool:
        return bool(self.request.get("EnableNetworkIsolation"))

    @property
    def output(self) -> str:
        """Where all output goes, without a slash at the end."""
        return f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"

    @property
    def is_compressed(self) -> bool:
        return bool(self.request["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP")

    def enter(self, status: str, secondary: str, message: str, now: datetime) -> None:
        """Go on to another status; a new message within the same secondary status replaces the old one."""
        last = self.transitions[-1] if self.transitions else None
        if last is not None and last.status == secondary:
            last.message = message
        else:
            if last is not None:
                last.end = now
            self.transitions.append(Transition(secondary, now, message))
        self.status, self.secondary, self.modified = status, secondary, now

    def finish(self, status: str, secondary: str, message: str, now: datetime) -> None:
        """Reach a status that is the last."""
        self.enter(status, secondary, message, now)
        self.transitions[-1].end = now
        if self.started is not None:
            self.ended = now

    def describe(self) -> dict[str, Any]:
        """Return the answer of DescribeTrainingJob, times as datetimes."""
        answer = {name: self.request[name] for name in _ECHOED if name in self.request}
        answer |= {name: self.request.get(name, False) for name in _FLAGS}
        answer |= self._with_defaults()
        answer |= {
            "TrainingJobArn": self.arn,
            "TrainingJobStatus": self.status,
            "SecondaryStatus": self.secondary,
            "ModelArtifacts": {"S3ModelArtifacts": f"{self.output}/model{'.tar.gz' if self.is_compressed else '/'}"},
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "SecondaryStatusTransitions": [_transition(one) for one in self.transitions],
            "ProfilingStatus": "Disabled",
        }
        return answer | self._outcome()

    def _with_defaults(self) -> dict[str, Any]:
        """Return the members that the service completes with its own defaults: nobody sent those."""
        algorithm = {"EnableSageMakerMetricsTimeSeries": False, **self.request["AlgorithmSpecification"]}
        channels = []
        for channel in self.request.get("InputDataConfig", []):
            channels.append({"CompressionType": "None", "RecordWrapperType": "None", **channel})
        completed: dict[str, Any] = {
            "AlgorithmSpecification": algorithm,
            "ProfilerConfig": {"DisableProfiler": False, **self.request.get("ProfilerConfig", {})},
            "ResourceConfig": {**local_volume(self.request["ResourceConfig"]), **self.request["ResourceConfig"]},
        }
        if channels:
            completed["InputDataConfig"] = channels
        return completed

    def summary(self) -> dict[str, Any]:
        """Return the job's entry in ListTrainingJobs."""
        entry = {
            "TrainingJobName": self.name,
            "TrainingJobArn": self.arn,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
            "TrainingJobStatus": self.status,
            "SecondaryStatus": self.secondary,
        }
        return entry | ({"TrainingEndTime": self.ended} if self.ended else {})

    def _outcome(self) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        if self.failure_reason is not None:
            answer["FailureReason"] = self.failure_reason[:REASON_LIMIT]
        if self.started is not None:
            answer["TrainingStartTime"] = self.started
        if self.ended is not None:
            answer["TrainingEndTime"] = self.ended
            answer["TrainingTimeInSeconds"] = max(1, round(self.worked))
            answer["BillableTimeInSeconds"] = max(1, round(self.worked * (1 - self.saving)))
        if self.metrics:
            answer["FinalMetricDataList"] = [
                {"MetricName": name, "Value": value, "Timestamp": at}
                for name, (value, at) in list(self.metrics.items())
            ]
        return answer


def _transition(transition: Transition) -> dict[str, Any]:
    entry = {"Status": transition.status, "StartTime": transition.start, "StatusMessage": transition.message}
    return entry | ({"EndTime": transition.end} if transition.end else {})
