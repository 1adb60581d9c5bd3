"""Models, endpoint configurations, endpoints and inference components, as the service describes them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sagemaker_simulator.calls import Call

REASON_LIMIT = 1024  # characters, from the model
Request = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A family of resources."""

    path: str
    """In ARNs."""
    words: str
    """In messages."""
    field: str
    """The member of requests and answers that names one, without `Name`."""

    def arn(self, call: Call, name: str) -> str:
        """Return the ARN of one, whose name is in lower case there."""
        return f"arn:aws:sagemaker:{call.region}:{call.account}:{self.path}/{name.lower()}"


MODEL = Kind("model", "model", "Model")
CONFIG = Kind("endpoint-config", "endpoint configuration", "EndpointConfig")
ENDPOINT = Kind("endpoint", "endpoint", "Endpoint")
COMPONENT = Kind("inference-component", "inference component", "InferenceComponent")
KINDS = (COMPONENT, ENDPOINT, CONFIG, MODEL)
"""In the order in which a request that names several is about them."""


@dataclass
class Resource:
    """What the four have in common."""

    kind: Kind
    request: Request
    """As it was created, or updated last."""
    arn: str
    account: str
    region: str
    created: datetime
    modified: datetime
    status: str | None = None
    failure_reason: str | None = None

    @property
    def name(self) -> str:
        return str(self.request[f"{self.kind.field}Name"])

    def enter(self, status: str, now: datetime, reason: str | None = None) -> None:
        """Go on to another status, with the reason when it is a failure's."""
        self.status, self.modified = status, now
        self.failure_reason = reason[:REASON_LIMIT] if reason else None

    def summary(self) -> Request:
        """Return the entry in a list."""
        of = self.kind.field
        entry = {f"{of}Name": self.name, f"{of}Arn": self.arn, "CreationTime": self.created}
        if self.status is not None:
            entry |= {f"{of}Status": self.status, "LastModifiedTime": self.modified}
        return entry

    def described(self) -> Request:
        """Return what Describe answers of the request itself."""
        echoed = {name: value for name, value in self.request.items() if name != "Tags"}
        return {**echoed, f"{self.kind.field}Arn": self.arn, "CreationTime": self.created}


@dataclass
class Model(Resource):
    """A model: an image, its data, and the role it acts in."""

    @property
    def container(self) -> Request:
        containers = self.request.get("Containers", [])
        container: Request = self.request.get("PrimaryContainer") or containers[0]
        return container

    @property
    def role(self) -> str:
        return str(self.request["ExecutionRoleArn"])

    @property
    def is_isolated(self) -> bool:
        return bool(self.request.get("EnableNetworkIsolation"))


@dataclass
class EndpointConfig(Resource):
    """A configuration of endpoints."""

    @property
    def variants(self) -> list[Request]:
        return list(self.request["ProductionVariants"])

    @property
    def is_async(self) -> bool:
        return "AsyncInferenceConfig" in self.request

    @property
    def hosts_components(self) -> bool:
        return "ModelName" not in self.variants[0]


@dataclass
class Variant:
    """One production variant while it has instances."""

    request: Request
    images: list[str] = field(default_factory=list)
    current: int = 0
    """Instances."""
    desired: int = 0
    weight: float = 1.0

    @property
    def name(self) -> str:
        return str(self.request["VariantName"])

    @property
    def instance_type(self) -> str:
        return str(self.request["InstanceType"])

    def summary(self, resolved: datetime) -> Request:
        """Return the entry of DescribeEndpoint."""
        images = []
        for image in self.images:
            digest = image.partition("@")[0].partition(":")[0] + f"@sha256:{'0' * 64}"
            images.append({"SpecifiedImage": image, "ResolvedImage": digest, "ResolutionTime": resolved})
        entry = {
            "VariantName": self.name,
            "CurrentWeight": self.weight,
            "DesiredWeight": self.weight,
            "CurrentInstanceCount": self.current,
            "DesiredInstanceCount": self.desired,
        }
        kept = {
            name: self.request[name] for name in ("ManagedInstanceScaling", "RoutingConfig") if name in self.request
        }
        return entry | kept | ({"DeployedImages": images} if images else {})


@dataclass
class Endpoint(Resource):
    """An endpoint."""

    config: EndpointConfig | None = None
    """The configuration that is live."""
    variants: list[Variant] = field(default_factory=list)
    pending: EndpointConfig | None = None
    """The configuration that is being deployed."""
    pending_variants: list[Variant] = field(default_factory=list)
    last_deployment: Request | None = None

    def describe(self) -> Request:
        """Return the answer of DescribeEndpoint."""
        answer: Request = {
            "EndpointName": self.name,
            "EndpointArn": self.arn,
            "EndpointStatus": self.status,
            "CreationTime": self.created,
            "LastModifiedTime": self.modified,
        }
        shown = self.config or self.pending
        if shown is not None:
            answer["EndpointConfigName"] = shown.name
            if shown.is_async:
                answer["AsyncInferenceConfig"] = shown.request["AsyncInferenceConfig"]
        if self.variants:
            answer["ProductionVariants"] = [one.summary(self.created) for one in self.variants]
        if self.pending is not None and self.status != "Failed":
            answer["PendingDeploymentSummary"] = self._pending(self.pending)
        if self.last_deployment is not None:
            answer["LastDeploymentConfig"] = self.last_deployment
        return answer | ({"FailureReason": self.failure_reason} if self.failure_reason else {})

    def _pending(self, config: EndpointConfig) -> Request:
        variants = []
        for one in self.pending_variants:
            entry = one.summary(self.modified)
            variants.append({**entry, "InstanceType": one.instance_type})
        return {"EndpointConfigName": config.name, "ProductionVariants": variants, "StartTime": self.modified}


@dataclass
class Component(Resource):
    """An inference component: a model's copies on an endpoint, or an adapter in one of those."""

    endpoint_arn: str = ""
    variant: str = ""
    copies: int = 0
    desired_copies: int = 0
    last_deployment: Request | None = None

    @property
    def specification(self) -> Request:
        specification: Request = self.request["Specification"]
        return specification

    @property
    def base(self) -> str | None:
        """The component that an adapter belongs to."""
        return self.specification.get("BaseInferenceComponentName")

    @property
    def endpoint_name(self) -> str:
        return str(self.request["EndpointName"])

    def summary(self) -> Request:
        place = {"EndpointName": self.endpoint_name, "EndpointArn": self.endpoint_arn, "VariantName": self.variant}
        return super().summary() | place

    def describe(self) -> Request:
        """Return the answer of DescribeInferenceComponent."""
        answer = self.summary() | {"Specification": self._specification()}
        if self.base is None:
            counts = {"DesiredCopyCount": self.desired_copies, "CurrentCopyCount": self.copies}
            answer["RuntimeConfig"] = counts
        if self.last_deployment is not None:
            answer["LastDeploymentConfig"] = self.last_deployment
        return answer | ({"FailureReason": self.failure_reason} if self.failure_reason else {})

    def _specification(self) -> Request:
        shown = dict(self.specification)
        container = dict(shown.pop("Container", {}))
        image = container.pop("Image", None)
        if image is not None:
            container["DeployedImage"] = {"SpecifiedImage": image, "ResolvedImage": image}
        return shown | ({"Container": container} if container else {})
