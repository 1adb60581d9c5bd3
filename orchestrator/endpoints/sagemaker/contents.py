"""What an endpoint of SageMaker draws with, by hashes: read from its model and from what that reads in the bucket."""

from typing import Any

from pydantic import ValidationError

from orchestrator.contract.adapter import MANIFEST_FILE, AdapterManifest
from orchestrator.contract.command_line import command
from orchestrator.contract.serving import BASE_MODEL_FOLDER, ORDER_FILE, ServerOrder
from orchestrator.endpoints.hosts import Contents
from orchestrator.endpoints.names import Mode
from orchestrator.endpoints.sagemaker.description import Found
from orchestrator.endpoints.sagemaker.hosted import (
    COMPONENT,
    CONFIG,
    MODEL,
    Hosted,
    configuration_of,
    model_of_component,
)
from orchestrator.endpoints.sagemaker.names import base_component
from orchestrator.endpoints.sagemaker.tags import ADAPTER_TAG
from orchestrator.errors import EndpointError, MissingError
from orchestrator.storage import Store


def contents_of(
    found: Found,
    hosted: Hosted,
    store: Store,
) -> Contents:
    """Return what an endpoint draws with; raises EndpointError when it cannot be told."""
    try:
        described = hosted.find(MODEL, _model_name(found, hosted)) or {}
        container = described["PrimaryContainer"]
        adapters = _components(found.record.name, hosted)
        if found.record.mode is not Mode.COMPONENTS:
            adapters = _in_order(container, store)
        return Contents(_base_model(container), adapters)
    except (KeyError, IndexError, MissingError, ValidationError) as error:
        raise EndpointError(
            f"What the endpoint {found.record.name} draws with is not in the bucket any more.",
            next_step=command("deploy", found.record.name, "--help"),
        ) from error


def _model_name(found: Found, hosted: Hosted) -> str:
    """Return the name of the model that an endpoint's servers are of; raises KeyError where there is none."""
    name = found.record.name
    if found.record.mode is Mode.COMPONENTS:
        component = hosted.find(COMPONENT, base_component(name)) or {}
        model = model_of_component(component)
        if model is None:
            raise KeyError(name)
        return model
    config = hosted.find(CONFIG, configuration_of(found.described)) or {}
    return str(config["ProductionVariants"][0]["ModelName"])


def _base_model(container: Any) -> str:
    """Return what tells the base model from others: the URI that its weights lie at ends with their hash."""
    for source in container["AdditionalModelDataSources"]:
        if source["ChannelName"] == BASE_MODEL_FOLDER:
            uri = str(source["S3DataSource"]["S3Uri"])
            return uri.rstrip("/").rpartition("/")[2]
    raise KeyError(BASE_MODEL_FOLDER)


def _in_order(container: Any, store: Store) -> dict[str, str]:
    """Return the hash of the files of each adapter that the servers' order names."""
    uri = container["ModelDataSource"]["S3DataSource"]["S3Uri"]
    folder = store.name(uri)
    order = ServerOrder.model_validate_json(store.get_bytes(f"{folder}{ORDER_FILE}"))
    adapters = {}
    for name, place in order.adapters.items():
        text = store.get_bytes(f"{folder}{place.as_posix()}/{MANIFEST_FILE}")
        manifest = AdapterManifest.model_validate_json(text)
        adapters[name] = manifest.files_sha256
    return adapters


def _components(name: str, hosted: Hosted) -> dict[str, str]:
    """Return what tells each adapter component's archive from others: its URI, which holds a hash, by adapters."""
    adapters = {}
    for component in hosted.components_of(name):
        adapter = hosted.tags(component.arn).get(ADAPTER_TAG)
        if adapter is None or component.status != "InService":
            continue
        described = hosted.find(COMPONENT, component.name) or {}
        adapters[adapter] = str(described["Specification"]["Container"]["ArtifactUrl"])
    return adapters
