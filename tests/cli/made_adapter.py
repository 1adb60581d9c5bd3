"""An adapter whose weights nobody loads."""

from pathlib import Path

from orchestrator.contract.adapter import AdapterManifest, BaseModelReference
from orchestrator.contract.model_layout import files_sha256, weight_files
from orchestrator.contract.recipe import recipe_class
from orchestrator.resources import BUILTIN_MODEL

FINGERPRINT = files_sha256(BUILTIN_MODEL, weight_files(BUILTIN_MODEL))


def make_adapter(folder: Path, *, recipe: str = "dreambooth", base: str = "builtin", fingerprint: str = "") -> Path:
    """Write an adapter and return its folder."""
    folder.mkdir(parents=True)
    (folder / "pytorch_lora_weights.safetensors").write_text(f"weights of {folder.name}")
    values = {"dreambooth": {"instance_prompt": "a photo of a sks monster"}, "lora": {"trigger_word": "inkstyle"}}
    config = recipe_class(recipe)(**values[recipe])
    reference = BaseModelReference(id=base, fingerprint=fingerprint or FINGERPRINT, family="sd")
    manifest = AdapterManifest(
        kind="lora",
        parts=("unet",),
        recipe=recipe,
        config={**config.model_dump(mode="json"), "base_model": base},
        base_model=reference,
        dataset_sha256="d",
        bundle_sha256="b",
        trigger=config.trigger,
        libraries={},
    )
    manifest.write(folder)
    return folder
