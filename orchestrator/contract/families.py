"""Which base models can be personalised, told from the `model_index.json` of the diffusers layout."""

import json
from pathlib import Path

from orchestrator.contract.problem import did_you_mean

FAMILIES = {"StableDiffusionPipeline": "sd"}
"""Pipeline class to the name of its family."""


def native_resolution(folder: Path) -> int | None:
    """Return the side in pixels of the square pictures a model was trained on; None when its files do not say so.

    That is the denoiser's latents (`sample_size`) times the autoencoder's scale, which halves once less than it has
    blocks. Files that cannot be read are for whoever loads the model to complain about.
    """
    try:
        latents = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))["sample_size"]
        blocks = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))["block_out_channels"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(latents, int) or not isinstance(blocks, list) or not blocks:
        return None
    return latents << (len(blocks) - 1)


def family_of(folder: Path) -> str:
    """Return the family of the model in `folder`; raises ValueError that says what is wrong with it."""
    index = folder / "model_index.json"
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    if not index.is_file():
        raise ValueError(f"{folder} holds no model_index.json; a model in the diffusers layout has one")
    try:
        pipeline = str(json.loads(index.read_text(encoding="utf-8")).get("_class_name", "nothing"))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{index} cannot be read as JSON: {error}") from error
    if pipeline not in FAMILIES:
        raise ValueError(f"{folder} is a {pipeline}, which cannot be trained; {did_you_mean(pipeline, FAMILIES)}")
    return FAMILIES[pipeline]
