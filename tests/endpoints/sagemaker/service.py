"""The control plane of SageMaker's hosting in memory: names, statuses and refusals, without servers.

It stands below the SDK's retries, at the wire, where a test can lose an answer or end the process at any call. Every
request is checked against botocore's own model of the service. Auto Scaling is in it too; S3 and CloudWatch are moto's.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.core.models import botocore_stubber
from sagemaker_simulator.validation import validate

from tests.faults.wire import URL, response

HERE = "arn:aws:sagemaker:eu-west-1:123456789012"
NOUNS = {
    "Model": ("ModelName", "model", "model"),
    "EndpointConfig": ("EndpointConfigName", "endpoint-config", "endpoint configuration"),
    "Endpoint": ("EndpointName", "endpoint", "endpoint"),
    "InferenceComponent": ("InferenceComponentName", "inference-component", "inference component"),
}
STATUS = {"Endpoint": "EndpointStatus", "InferenceComponent": "InferenceComponentStatus"}
CHANGING = timedelta(seconds=9)
"""How long an endpoint or a component is created, updated or deleted."""
Thing = dict[str, Any]
_SIMULATED = (
    "<SimulatePrincipalPolicyResponse><SimulatePrincipalPolicyResult><EvaluationResults><member>"
    "<EvalActionName>iam:PassRole</EvalActionName><EvalDecision>{}</EvalDecision></member></EvaluationResults>"
    "</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
)
"""IAM's answer."""


class Crash(BaseException):
    """The client's process is gone."""


class Refusal(Exception):  # noqa: N818 - an answer
    """What the service says to a request."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Service:
    """What an account hosts, and what happens at each call."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 1, 12, tzinfo=UTC)
        self.things: dict[str, dict[str, Thing]] = {kind: {} for kind in NOUNS}
        self.tags: dict[str, dict[str, str]] = {}
        self.scaled: dict[str, Thing] = {}
        """Scalable targets by their resource, with their policies."""
        self.calls: list[str] = []
        self.most_alive = 0
        """Endpoints that there were at the same time at most."""
        self.arranged: dict[int, str] = {}
        """Number of a call to what happens there."""
        self.quotas: dict[str, float] = {}
        """By their names; others are not limited."""
        self.decision = "allowed"
        """IAM's answer to whether the role may be passed."""
        self.refused: dict[str, Refusal] = {}
        """Operation to what is said to it."""
        self.seconds_per_call = 0.0
        """How long each call takes: things come into service between two calls."""

    def attach(self, aws: Any) -> None:
        """Stand at the wire of a session's clients."""
        for service in ("sagemaker", "application-autoscaling", "cloudwatch", "service-quotas", "iam"):
            events = aws.client(service).meta.events
            events.unregister("before-send", botocore_stubber)
            events.register("before-send", self._carry_out)

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)
        for things in self.things.values():
            for name, thing in list(things.items()):
                until = thing.get("until")
                if until is not None and self.now >= until:
                    self._arrive(things, name, thing)

    def left(self) -> dict[str, list[str]]:
        """Return the names of everything there is."""
        left = {kind: sorted(things) for kind, things in self.things.items() if things}
        return left | ({"scaled": sorted(self.scaled)} if self.scaled else {})

    def state(self) -> Any:
        """Return everything there is, without its times and tags of who came first."""
        things = {
            kind: {
                name: {
                    key: value
                    for key, value in thing.items()
                    if key not in {"CreationTime", "LastModifiedTime", "until"}
                }
                for name, thing in sorted(of_kind.items())
            }
            for kind, of_kind in self.things.items()
        }
        return json.loads(json.dumps([things, self.tags, self.scaled], sort_keys=True, default=str))

    def _arrive(self, things: dict[str, Thing], name: str, thing: Thing) -> None:
        field = "EndpointStatus" if "EndpointStatus" in thing else "InferenceComponentStatus"
        if thing[field] == "Deleting":
            del things[name]
            return
        thing[field] = "InService"
        thing["until"] = None
        thing["LastModifiedTime"] = self.now
        if pending := thing.pop("PendingDeploymentSummary", None):
            thing["EndpointConfigName"] = pending["EndpointConfigName"]
        if pending := thing.pop("pending", None):
            thing["Specification"] = pending

    def _carry_out(self, event_name: str, request: AWSPreparedRequest, **_: Any) -> AWSResponse | None:
        service, operation = event_name.split(".")[1:]
        deed = self.arranged.pop(len(self.calls), "")
        self.calls.append(operation)
        if deed == "dies before":
            raise Crash
        if operation == "SimulatePrincipalPolicy":
            answer: AWSResponse | None = response(200, _SIMULATED.format(self.decision))
        elif service in {"cloudwatch", "iam"}:
            answer = botocore_stubber(event_name, request)
        else:
            answer = self._answer(service, operation, json.loads(request.body))
        self.sleep(self.seconds_per_call)
        if deed == "dies after":
            raise Crash
        if deed == "answer lost":
            raise botocore.exceptions.ReadTimeoutError(endpoint_url=URL, error="cut")
        return answer

    def _answer(self, service: str, operation: str, asked: Thing) -> AWSResponse:
        try:
            if operation in self.refused:
                raise self.refused[operation]
            if service == "sagemaker":
                validate(operation, asked)
            result = self._done(operation, asked)
        except Refusal as refusal:
            return response(400, json.dumps({"__type": refusal.code, "message": str(refusal)}))
        return response(200, json.dumps(result, default=_seconds))

    def _done(self, operation: str, asked: Thing) -> Thing:
        own: dict[str, Callable[[Thing], Thing]] = {
            "ListTags": lambda asked: {"Tags": _listed(self.tags.get(asked["ResourceArn"], {}))},
            "AddTags": self._add_tags,
            "UpdateEndpoint": self._update_endpoint,
            "UpdateInferenceComponent": self._update_component,
            "UpdateEndpointWeightsAndCapacities": self._set_instances,
            "UpdateInferenceComponentRuntimeConfig": lambda _: {},
            "RegisterScalableTarget": self._register,
            "PutScalingPolicy": self._put_policy,
            "DeregisterScalableTarget": self._deregister,
            "ListServiceQuotas": lambda _: {
                "Quotas": [{"QuotaName": name, "Value": value} for name, value in self.quotas.items()]
            },
        }
        if operation in own:
            return own[operation](asked)
        for verb in ("Create", "Describe", "Delete", "List"):
            kind = operation.removeprefix(verb)
            if kind.removesuffix("s") in NOUNS and kind != operation:
                return getattr(self, f"_{verb.lower()}")(kind.removesuffix("s"), asked)
        raise AssertionError(f"the stand-in has no {operation}")

    def _create(self, kind: str, asked: Thing) -> Thing:
        field, path, noun = NOUNS[kind]
        name = asked[field]
        arn = f"{HERE}:{path}/{name}"
        if name in self.things[kind]:
            raise Refusal("ValidationException", f'Cannot create already existing {noun} "{arn}".')
        self._require_parts(kind, asked)
        self.tags[arn] = {tag["Key"]: tag["Value"] for tag in asked.get("Tags", [])}
        thing = {key: value for key, value in asked.items() if key != "Tags"}
        thing |= {field.removesuffix("Name") + "Arn": arn, "CreationTime": self.now, "LastModifiedTime": self.now}
        if kind in STATUS:
            thing |= {STATUS[kind]: "Creating", "until": self.now + CHANGING}
        if kind == "Endpoint":
            variant = self.things["EndpointConfig"][asked["EndpointConfigName"]]["ProductionVariants"][0]
            count = variant["InitialInstanceCount"]
            instances = {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
            thing["ProductionVariants"] = [{"VariantName": variant["VariantName"], **instances}]
        if kind == "InferenceComponent":
            thing["EndpointArn"] = f"{HERE}:endpoint/{asked['EndpointName']}"
            thing["VariantName"] = "AllTraffic"
            thing.pop("RuntimeConfig", None)
        self.things[kind][name] = thing
        self.most_alive = max(self.most_alive, len(self.things["Endpoint"]))
        return {field.removesuffix("Name") + "Arn": arn}

    def _require_parts(self, kind: str, asked: Thing) -> None:
        if kind == "EndpointConfig":
            for variant in asked["ProductionVariants"]:
                if "ModelName" in variant:
                    self._find("Model", variant["ModelName"])
        if kind == "Endpoint":
            self._find("EndpointConfig", asked["EndpointConfigName"])
        if kind == "InferenceComponent":
            self._require_in_service("Endpoint", asked["EndpointName"])
            if base := asked["Specification"].get("BaseInferenceComponentName"):
                self._require_in_service("InferenceComponent", base)
            else:
                self._find("Model", asked["Specification"]["ModelName"])

    def _describe(self, kind: str, asked: Thing) -> Thing:
        thing = self._find(kind, asked[NOUNS[kind][0]])
        return {key: value for key, value in thing.items() if key not in {"until", "pending"}}

    def _delete(self, kind: str, asked: Thing) -> Thing:
        name = asked[NOUNS[kind][0]]
        thing = self._find(kind, name)
        if kind not in STATUS:
            del self.things[kind][name]
            return {}
        self._require_in_service(kind, name)
        hangs = {"Endpoint": ("EndpointName",), "InferenceComponent": ("Specification", "BaseInferenceComponentName")}
        for component in self.things["InferenceComponent"].values():
            value: Any = component
            for key in hangs[kind]:
                value = value.get(key, {})
            if value == name:
                raise Refusal("ValidationException", f"{name} still has inference components.")
        if kind == "Endpoint" and any(resource.startswith(f"endpoint/{name}/") for resource in self.scaled):
            raise Refusal("ValidationException", f"The endpoint {name} has a scalable target.")
        thing |= {STATUS[kind]: "Deleting", "until": self.now + CHANGING}
        return {}

    def _list(self, kind: str, asked: Thing) -> Thing:
        field = NOUNS[kind][0]
        found = []
        for name, thing in self.things[kind].items():
            if asked.get("NameContains", "") not in name:
                continue
            if asked.get("EndpointNameEquals") not in {None, thing.get("EndpointName")}:
                continue
            if asked.get("StatusEquals") not in {None, thing.get(STATUS.get(kind, ""))}:
                continue
            fields = (field, field.removesuffix("Name") + "Arn", "CreationTime", "LastModifiedTime", "EndpointName")
            fields += ("EndpointArn", "VariantName", STATUS.get(kind, ""))
            found.append({key: thing[key] for key in fields if key in thing})
        return {f"{kind}s": sorted(found, key=lambda one: one["CreationTime"])}

    def _add_tags(self, asked: Thing) -> Thing:
        self.tags[asked["ResourceArn"]] |= {tag["Key"]: tag["Value"] for tag in asked["Tags"]}
        return {"Tags": asked["Tags"]}

    def _update_endpoint(self, asked: Thing) -> Thing:
        endpoint = self._require_in_service("Endpoint", asked["EndpointName"])
        self._find("EndpointConfig", asked["EndpointConfigName"])
        endpoint |= {"EndpointStatus": "Updating", "until": self.now + CHANGING}
        endpoint["PendingDeploymentSummary"] = {"EndpointConfigName": asked["EndpointConfigName"]}
        return {"EndpointArn": endpoint["EndpointArn"]}

    def _update_component(self, asked: Thing) -> Thing:
        component = self._require_in_service("InferenceComponent", asked["InferenceComponentName"])
        component |= {"InferenceComponentStatus": "Updating", "until": self.now + CHANGING}
        component["pending"] = asked["Specification"]
        return {"InferenceComponentArn": component["InferenceComponentArn"]}

    def _set_instances(self, asked: Thing) -> Thing:
        endpoint = self._require_in_service("Endpoint", asked["EndpointName"])
        count = asked["DesiredWeightsAndCapacities"][0]["DesiredInstanceCount"]
        endpoint["ProductionVariants"][0] |= {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
        endpoint |= {"EndpointStatus": "Updating", "until": self.now + CHANGING}
        return {"EndpointArn": endpoint["EndpointArn"]}

    def _register(self, asked: Thing) -> Thing:
        kind, _, rest = asked["ResourceId"].partition("/")
        found = {"endpoint": "Endpoint", "inference-component": "InferenceComponent"}[kind]
        self._require_in_service(found, rest.partition("/")[0])
        target = self.scaled.setdefault(asked["ResourceId"], {"policies": {}})
        target |= {"MinCapacity": asked["MinCapacity"], "MaxCapacity": asked["MaxCapacity"]}
        return {}

    def _put_policy(self, asked: Thing) -> Thing:
        if asked["ResourceId"] not in self.scaled:
            raise Refusal("ObjectNotFoundException", "No scalable target registered.")
        self.scaled[asked["ResourceId"]]["policies"][asked["PolicyName"]] = asked
        return {"PolicyARN": f"arn:aws:autoscaling:eu-west-1:123456789012:scalingPolicy:{asked['PolicyName']}"}

    def _deregister(self, asked: Thing) -> Thing:
        if self.scaled.pop(asked["ResourceId"], None) is None:
            raise Refusal("ObjectNotFoundException", "No scalable target found.")
        return {}

    def _find(self, kind: str, name: str) -> Thing:
        _, path, noun = NOUNS[kind]
        if name not in self.things[kind]:
            raise Refusal("ValidationException", f'Could not find {noun} "{HERE}:{path}/{name}".')
        return self.things[kind][name]

    def _require_in_service(self, kind: str, name: str) -> Thing:
        thing = self._find(kind, name)
        if thing[STATUS[kind]] not in {"InService", "Failed"}:
            raise Refusal("ValidationException", f'Cannot update in-progress {NOUNS[kind][2]} "{name}".')
        return thing


def _listed(tags: dict[str, str]) -> list[Thing]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _seconds(value: Any) -> float:
    return float(value.timestamp())
