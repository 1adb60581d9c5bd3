"""The operations on endpoint configurations."""

from typing import TYPE_CHECKING, Any

from sagemaker_simulator.calls import Call
from sagemaker_simulator.hosting.records import CONFIG, MODEL, EndpointConfig
from sagemaker_simulator.hosting.rules import OF_CONFIGS, check

from .listing import listed

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator


def create_endpoint_config(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    check(call, OF_CONFIGS)
    hosting = simulator.hosting
    for variant in call.parameters["ProductionVariants"]:
        if "ModelName" in variant:
            hosting.find(call, MODEL, variant["ModelName"])
    now = simulator.clock.now()
    arn = CONFIG.arn(call, call.parameters["EndpointConfigName"])
    with simulator.creating:
        hosting.keep(EndpointConfig(CONFIG, call.parameters, arn, call.account, call.region, now, now))
    return {"EndpointConfigArn": arn}


def describe_endpoint_config(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    described: dict[str, Any] = simulator.hosting.find(call, CONFIG).described()
    variants = [{"InitialVariantWeight": 1.0, **one} for one in described["ProductionVariants"]]
    return {"EnableNetworkIsolation": False, **described, "ProductionVariants": variants}


def delete_endpoint_config(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    simulator.hosting.forget(simulator.hosting.find(call, CONFIG))
    return {}


def list_endpoint_configs(simulator: "SageMakerSimulator", call: Call) -> dict[str, Any]:
    known = simulator.hosting.kept(call.account, call.region, CONFIG).values()
    found, token = listed(simulator, known, call.parameters, "Descending")
    return {"EndpointConfigs": found} | token


OPERATIONS = {
    "CreateEndpointConfig": create_endpoint_config,
    "DescribeEndpointConfig": describe_endpoint_config,
    "DeleteEndpointConfig": delete_endpoint_config,
    "ListEndpointConfigs": list_endpoint_configs,
}
