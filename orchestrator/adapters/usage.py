"""How a finished adapter is used: the settings its images were drawn with, and the lines that draw one in Python.

A manifest may come from anywhere, so what goes into the lines is a number or a quoted text.
"""

import os
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.adapter import CONTROLNET, AdapterManifest, python_arguments
from orchestrator.contract.conditions import CANNY, GIVEN, MAP_KINDS, as_typed
from orchestrator.contract.families import FAMILIES, is_hub_id
from orchestrator.contract.model_layout import variant_to_name
from orchestrator.contract.recipe import BUILTIN, recipe_class
from orchestrator.contract.words import NewWord
from orchestrator.specs.base_model import Builtin, Folder, Hub, ModelSource

_SHOWN = (*MAP_KINDS, GIVEN)
"""Kinds of conditions that a control can have."""


class DrawingSettings(NamedTuple):
    """How the images of an adapter are drawn unless somebody says otherwise: as the recipe drew them."""

    steps: int
    """Denoising steps."""
    guidance: float
    """Scale of classifier-free guidance."""
    size: int
    """Side of the square images, pixels."""
    seed: int
    """Seed of the first image."""


def drawing_settings(manifest: AdapterManifest) -> DrawingSettings:
    """Return the settings that the recipe drew its evaluation images with."""
    family = FAMILIES.get(manifest.base_model.family)
    size = 512
    if family is not None:
        size = family.resolution
    return DrawingSettings(
        steps=int(manifest.number("inference_steps", 25)),
        guidance=manifest.number("guidance_scale", 7.5),
        size=int(manifest.number("resolution", size)),
        seed=int(manifest.number("seed", 0)),
    )


def own_word(manifest: AdapterManifest) -> NewWord | None:
    """Return the word that a prompt has to hold; None when any prompt shows what was learned."""
    trigger = manifest.trigger
    try:
        declared = recipe_class(manifest.recipe)
        recipe = declared.model_validate(manifest.config)
    except ValueError:  # of a newer version, or changed
        return NewWord(trigger) if trigger else None
    return recipe.new_word


def example_prompt(manifest: AdapterManifest) -> str:
    """Return a prompt that shows what was learned."""
    trigger = manifest.trigger
    if trigger is None:
        return "a photo"
    if " " in trigger:
        return trigger
    return f"a photo of {trigger}"


def example_controls(manifest: AdapterManifest) -> list[str]:
    """Return the options that show a ControlNet a picture, of a kind that it was trained on; none for other kinds."""
    if manifest.kind != CONTROLNET:
        return []
    kind, *_ = [*control_kinds(manifest), CANNY]
    return ["--control", f"{kind}=picture.png"]


def control_kinds(manifest: AdapterManifest) -> list[str]:
    """Return the kinds of maps that a ControlNet was trained on, as `--control` takes them; none where unknown."""
    trained = manifest.config.get("conditions")
    if not isinstance(trained, list | tuple):
        return []
    return [as_typed(kind) for kind in trained if kind in _SHOWN]


def base_model_source(manifest: AdapterManifest, folder: Path | None) -> ModelSource | None:
    """Return where the base model of an adapter is; None for a folder that is not known here.

    A manifest has only the name of a folder ("./sd15"), which means nothing elsewhere; `folder` is the one that the
    adapter's job read, where that is known. Manifests of earlier versions may have its whole path.
    """
    base = manifest.base_model
    if base.id == BUILTIN:
        return Builtin()
    if is_hub_id(base.id):
        return Hub(base.id, base.revision)
    for place in (folder, Path(base.id)):
        if place is not None and place.is_absolute() and os.path.isdir(place):  # noqa: PTH112  (never raises)
            return Folder(place)
    return None


def base_model_name(manifest: AdapterManifest, folder: Path | None) -> str:
    """Return what a person calls the base model of an adapter: a folder by its whole path, where that is known.

    `folder` is as for `base_model_source`; it may have been moved since.
    """
    name = manifest.base_model.id
    if folder is None or name == BUILTIN or is_hub_id(name):
        return name
    return str(folder)


def snippet(manifest: AdapterManifest, folder: str, base_folder: Path | None = None) -> list[str]:
    """Return a Python program of plain diffusers that loads the adapter in `folder` and draws an image.

    `base_folder` is as for `base_model_source`; where the base model is not known, the program says what to fill in.
    Empty for an adapter of a kind or family that is not known here.
    """
    base = manifest.base_model
    family = FAMILIES.get(base.family)
    loading = manifest.loading(folder)
    if family is None or not loading:
        return []
    source = base_model_source(manifest, base_folder)
    gap = []
    if source is None:
        name = base_model_name(manifest, base_folder)
        gap = [f'model = "FOLDER"  # write where the base model {name!r} is on this machine']
        model = "model"
    elif isinstance(source, Hub):
        model = f"{base.id!r}, revision={base.revision!r}"
    else:
        model = repr(str(source.folder))
        variant = variant_to_name(source.folder)
        if variant is not None:
            model = f"{model}, variant={variant!r}"
    # As training opens it: without the parts that it does not read, which a folder may lack.
    arguments = python_arguments({"use_safetensors": True, **family.pipeline_arguments})
    settings = drawing_settings(manifest)
    size = f"height={settings.size}, width={settings.size}"
    asked = repr(example_prompt(manifest))
    shown = []
    if manifest.kind == CONTROLNET:
        shown = ["from PIL import Image", 'condition = Image.open("condition.png").convert("RGB")']
        asked = f"{asked}, image=condition"
    numbers = f"num_inference_steps={settings.steps}, guidance_scale={settings.guidance}, {size}"
    return [
        "import torch",
        f"from diffusers import {family.pipeline}",
        *gap,
        f"pipe = {family.pipeline}.from_pretrained({model}, {arguments})",
        *loading,
        'pipe.to("cuda" if torch.cuda.is_available() else "cpu")',  # last: it takes along the parts that were replaced
        f"generator = torch.Generator().manual_seed({settings.seed})",
        *shown,
        f"images = pipe({asked}, {numbers}, generator=generator).images",
        'images[0].save("image.png")',
    ]
