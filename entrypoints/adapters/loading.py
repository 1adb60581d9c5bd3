"""From an adapter's folder into a base model: checked against its manifest, then loaded by the module of its kind."""

from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from entrypoints.adapters import embedding, full, lora
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError
from orchestrator.contract.adapter import AdapterManifest

KINDS: dict[str, ModuleType] = {module.KIND: module for module in (embedding, full, lora)}


def load_adapter(base: BaseModel, folder: Path, weight: float = 1.0) -> AdapterManifest:
    """Put the adapter in `folder` into a base model and return its manifest.

    Raises TrainingError("adapter") when a file is missing or changed, when it belongs to another base model, or when
    its kind is not known here.
    """
    try:
        manifest = AdapterManifest.read(folder)
    except (OSError, ValidationError) as error:
        raise TrainingError("adapter", f"{folder} holds no adapter that can be read: {error}") from error
    damaged = manifest.damaged_files(folder)
    if damaged:
        message = f"The adapter in {folder} is damaged: {', '.join(damaged)}."
        raise TrainingError("adapter", message, "Fetch it again.")
    if manifest.base_model.fingerprint != base.reference.fingerprint:
        message = f'The adapter in {folder} was trained on "{manifest.base_model.id}", which has other weights.'
        raise TrainingError("adapter", message, "Load it into the base model that its manifest names.")
    if manifest.kind not in KINDS:
        message = f'The adapter in {folder} is of the kind "{manifest.kind}", which this version does not know.'
        raise TrainingError("adapter", message, "Upgrade orchestrator.")
    KINDS[manifest.kind].load(base, folder, manifest, weight)
    return manifest
