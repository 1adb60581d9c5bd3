"""From an adapter's folder into a base model: checked against its manifest, then loaded by the module of its kind."""

import math
from pathlib import Path
from types import ModuleType

from pydantic import ValidationError

from entrypoints.adapters import embedding, full, lora, peft_layout, pivotal
from entrypoints.models.base import BaseModel
from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from orchestrator.contract.adapter import CONTROLNET, EMBEDDING, FULL, LORA, PEFT, PIVOTAL, AdapterManifest

KINDS: dict[str, ModuleType] = {
    EMBEDDING: embedding,
    FULL: full,
    LORA: lora,
    PEFT: peft_layout,
    PIVOTAL: pivotal,
}
"""Each module has `load(base, folder, manifest, weight)`."""


def load_adapter(base: BaseModel, folder: Path, weight: float = 1.0) -> AdapterManifest:
    """Put the adapter in `folder` into a base model and return its manifest.

    Raises TrainingError("adapter") when a file is missing or changed, when it belongs to another base model, when its
    kind is not known here, when its weights cannot be loaded, or when the base model carries an adapter already.
    """
    if not math.isfinite(weight):
        raise TrainingError("adapter", f"The weight of an adapter is a number, not {weight}.", "give it the weight 1")
    if base.adapters:
        raise TrainingError(
            "adapter",
            "The base model carries an adapter already, and would draw with a mixture of both.",
            "load the base model anew for each adapter",
        )
    manifest = _manifest_of(folder)
    _load(base, folder, manifest, weight)
    base.adapters.append(manifest.files_sha256)
    return manifest


def load_embedding(base: BaseModel, folder: Path) -> None:
    """Teach a base model a learned word, beside whatever else is loaded into it.

    Raises TrainingError("adapter") as `load_adapter` does, and for an adapter that is more than a word.
    """
    manifest = _manifest_of(folder)
    if manifest.kind != EMBEDDING:
        raise TrainingError(
            "adapter",
            f'The adapter in {folder} is of the kind "{manifest.kind}", and no learned word.',
            "draw with it as the adapter, and name words with --embedding",
        )
    _load(base, folder, manifest, 1.0)


def _manifest_of(folder: Path) -> AdapterManifest:
    """Return the manifest of an adapter; raises TrainingError("adapter")."""
    try:
        return AdapterManifest.read(folder)
    except (OSError, ValidationError) as error:
        message = f"{folder} holds no readable adapter: {error}"
        raise TrainingError("adapter", message, "check the folder, or fetch the adapter again") from error


def _load(base: BaseModel, folder: Path, manifest: AdapterManifest, weight: float) -> None:
    """Put an adapter into a base model after checking both."""
    require_loadable(base, folder, manifest)
    module = KINDS[manifest.kind]
    try:
        module.load(base, folder, manifest, weight)
    except Exception as error:  # a library may raise anything at files that others wrote
        if failure_of(error):
            raise
        raise TrainingError(
            "adapter",
            f"The weights of the adapter in {folder} cannot be loaded: {first_line(error)}",
            "fetch the adapter again, or use another one",
        ) from error


def require_loadable(base: BaseModel, folder: Path, manifest: AdapterManifest) -> None:
    """Raise TrainingError("adapter") unless the files are whole, the base model is theirs and the kind is known."""
    require_own_base(base, folder, manifest)
    if manifest.kind == CONTROLNET:
        raise TrainingError(
            "adapter",
            f"The adapter in {folder} is a ControlNet, which changes nothing in a base model: it steers what is drawn.",
            "name it in a control: adapters draw ... --control KIND=PICTURE,net=FOLDER",
        )
    if manifest.kind not in KINDS:
        raise TrainingError(
            "adapter",
            f'The adapter in {folder} is of the kind "{manifest.kind}", which this version does not know.',
            "upgrade orchestrator",
        )


def require_own_base(base: BaseModel, folder: Path, manifest: AdapterManifest) -> None:
    """Raise TrainingError("adapter") unless the files are whole and the base model is the one that they belong to."""
    require_whole(folder, manifest)
    # The fingerprint is over the weights: two ids may name the same model, and one id two versions of it.
    expected = manifest.base_model
    if expected.fingerprint != base.reference.fingerprint:
        raise TrainingError(
            "adapter",
            f'The adapter in {folder} was trained on "{expected.id}", which has other weights.',
            "load it into the base model that its manifest names: --base-model MODEL",
        )
    known_parts = {base.family.denoiser, *base.family.text_encoders}
    if not known_parts.issuperset(manifest.parts):
        parts = ", ".join(manifest.parts)
        raise TrainingError(
            "adapter",
            f"The adapter in {folder} changes {parts}, and its base model has no such parts.",
            "fetch it again",
        )


def require_whole(folder: Path, manifest: AdapterManifest) -> None:
    """Raise TrainingError("adapter") unless the files of an adapter are those of its manifest."""
    damaged = manifest.damaged_files(folder)
    if damaged:
        names = ", ".join(damaged)
        raise TrainingError(
            "adapter",
            f"The adapter in {folder} is damaged: {names}.",
            "fetch it again",
        )
