"""The operations on endpoints."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from sagemaker_simulator.calls import Call
from sagemaker_simulator.errors import invalid, limit_exceeded
from sagemaker_simulator.hosting.endpoint_driver import EndpointDriver
from sagemaker_simulator.hosting.records import CONFIG, ENDPOINT, MODEL, Endpoint, EndpointConfig
from sagemaker_simulator.hosting.rules import OF_ENDPOINTS, check
from sagemaker_simulator.hosting.scaling import variant_target
from sagemaker_simulator.permissions import may_deregister

from .free import free
from .listing import listed

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator


def create_endpoint(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    check(call, OF_ENDPOINTS)
    hosting = simulator.hosting
    now = simulator.clock.now()
    arn = ENDPOINT.arn(call, call.parameters["EndpointName"])
    endpoint = Endpoint(ENDPOINT, call.parameters, arn, call.account, call.region, now, now, status="Creating")
    with simulator.creating:  # of two creates at once only one succeeds
        if endpoint.name.lower() in hosting.endpoints(call):
            raise invalid(f'Cannot create already existing endpoint "{arn}".')
        config = _config(simulator, call)
        _check_quota(simulator, call, {}, config)
        hosting.keep(endpoint)
        driver = EndpointDriver(hosting, endpoint)
        hosting.drive(driver)
    simulator.clock.run_now(lambda: driver.create(config))
    return {"EndpointArn": arn}


def describe_endpoint(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    endpoint: Endpoint = simulator.hosting.find(call, ENDPOINT)
    return endpoint.describe()


def update_endpoint(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    check(call, OF_ENDPOINTS)
    endpoint: Endpoint = free(simulator, call, ENDPOINT)
    config = _config(simulator, call)
    simulator.hosting.require_unscaled(endpoint, config)
    counts = {}
    if call.parameters.get("RetainAllVariantProperties"):
        excluded = call.parameters.get("ExcludeRetainedVariantProperties", [])
        if {"VariantPropertyType": "DesiredInstanceCount"} not in excluded:
            counts = {one.name: one.desired for one in endpoint.variants}
    _check_quota(simulator, call, counts, config)
    driver = simulator.hosting.drivers[endpoint.arn]
    deployment = call.parameters.get("DeploymentConfig")
    if deployment is None and call.parameters.get("RetainDeploymentConfig"):
        deployment = endpoint.last_deployment
    simulator.clock.run_now(lambda: driver.update(config, deployment, counts))
    return {"EndpointArn": endpoint.arn}


def update_weights_and_capacities(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    endpoint: Endpoint = free(simulator, call, ENDPOINT)
    variants = {one.name: one for one in endpoint.variants}
    counts, weights = {}, {}
    for wanted in call.parameters["DesiredWeightsAndCapacities"]:
        name = wanted["VariantName"]
        if name not in variants:
            raise invalid(f'The following desired variant(s) do not exist: "{name}".')
        if "ServerlessUpdateConfig" in wanted:
            raise invalid("The simulator has no serverless variants.")
        if "DesiredInstanceCount" in wanted:
            counts[name] = wanted["DesiredInstanceCount"]
        if "DesiredWeight" in wanted:
            weights[name] = wanted["DesiredWeight"]
    simulator.hosting.require_may_be_zero(endpoint, counts)
    more: Counter[str] = Counter()
    for name, count in counts.items():
        more[variants[name].instance_type] += count - variants[name].desired
    _check_limits(simulator, call, more)
    driver = simulator.hosting.drivers[endpoint.arn]
    simulator.clock.run_now(lambda: driver.scale(counts, weights))
    return {"EndpointArn": endpoint.arn}


def delete_endpoint(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    endpoint: Endpoint = free(simulator, call, ENDPOINT)
    simulator.hosting.require_empty(endpoint)
    scales = any(variant_target(endpoint, one.name) is not None for one in endpoint.variants)
    if scales and not may_deregister(call):
        raise invalid(
            "An Application AutoScaling scalable target exists for a variant being deleted, and the IAM identity used "
            "to invoke DeleteEndpoint does not have application-autoscaling:DeregisterScalableTarget permission to "
            "deregister the scalable target."
        )
    simulator.clock.run_now(simulator.hosting.drivers[endpoint.arn].delete)
    return {}


def list_endpoints(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    known = list(simulator.hosting.endpoints(call).values())
    found, token = listed(simulator, known, call.parameters, "Descending")
    return {"Endpoints": found} | token


def _config(simulator: "SageMakerSimulator", call: Call) -> EndpointConfig:
    """Return the configuration that a call names; raises ServiceError when it or one of its models is not there."""
    config: EndpointConfig = simulator.hosting.find(call, CONFIG, call.parameters["EndpointConfigName"])
    for variant in config.variants:
        if "ModelName" in variant:
            simulator.hosting.find(call, MODEL, variant["ModelName"])
    return config


def _check_quota(simulator: "SageMakerSimulator", call: Call, counts: dict[str, int], config: EndpointConfig) -> None:
    wanted: Counter[str] = Counter()
    for variant in config.variants:
        wanted[variant["InstanceType"]] += counts.get(variant["VariantName"], variant["InitialInstanceCount"])
    _check_limits(simulator, call, wanted)


def _check_limits(simulator: "SageMakerSimulator", call: Call, more: Counter[str]) -> None:
    for type_name, count in more.items():
        quota = f"{type_name} for endpoint usage"
        limit = simulator.quotas.get(quota)
        used = simulator.hosting.used(call.account, call.region, type_name)
        if limit is not None and count > 0 and used + count > limit:
            raise limit_exceeded(quota, limit, used, count)


OPERATIONS = {
    "CreateEndpoint": create_endpoint,
    "DescribeEndpoint": describe_endpoint,
    "UpdateEndpoint": update_endpoint,
    "UpdateEndpointWeightsAndCapacities": update_weights_and_capacities,
    "DeleteEndpoint": delete_endpoint,
    "ListEndpoints": list_endpoints,
}
