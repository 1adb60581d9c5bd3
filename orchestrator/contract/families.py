"""Which base models can be personalised: an entry for each family.

A family is this entry and one module of its name in `entrypoints/models/`; nothing else knows families apart.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from orchestrator.contract.model_file import ModelFileError, read_object

ATTENTION = "attention"
"""The layers in which low-rank adapters were introduced (arXiv 2106.09685, sec. 4.2)."""
TRANSFORMER = "transformer"
"""Attention, feed-forward layers, and what leads into the transformers and out of them."""
ALL_LAYERS = "all"
"""The convolutions of the residual blocks too."""
_ATTENTION_LAYERS = ("to_k", "to_out.0", "to_q", "to_v")
_TRANSFORMER_LAYERS = (*_ATTENTION_LAYERS, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
_RESIDUAL_LAYERS = ("conv1", "conv2", "conv_shortcut", "time_emb_proj")
_TEXT_ATTENTION_LAYERS = ("k_proj", "out_proj", "q_proj", "v_proj")
_TEXT_LAYERS = (*_TEXT_ATTENTION_LAYERS, "fc1", "fc2")
_MOST_BLOCKS = 16  # of an autoencoder, each but the first of which halves the side of an image
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


class Family(BaseModel):
    """What is equal for all models of one architecture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As manifests have it: "sd"."""
    title: str
    """As people say it."""
    pipeline: str
    """Class in diffusers that draws with it; what its index calls it."""
    pipeline_arguments: Mapping[str, bool | None]
    """Arguments of its `from_pretrained`: the parts that are left out, though an index may name them."""
    module: str
    """Module of `entrypoints/models` that loads it."""
    denoiser: str = "unet"
    """Folder of the denoiser."""
    classes: Mapping[str, str]
    """Folder of each part that can be trained, and its class in diffusers or transformers."""
    text_encoders: tuple[str, ...]
    """Folders of the text encoders, in their order."""
    tokenizers: tuple[str, ...]
    """Folders of their tokenizers."""
    embedding_keys: Mapping[str, str] = {}
    """Text encoder to its key in a textual-inversion file; without one, the key is the new word."""
    denoiser_targets: Mapping[str, tuple[str, ...]] = {
        ATTENTION: _ATTENTION_LAYERS,
        TRANSFORMER: _TRANSFORMER_LAYERS,
        ALL_LAYERS: (*_TRANSFORMER_LAYERS, *_RESIDUAL_LAYERS),
    }
    """Ends of the names of the denoiser's layers that an adapter changes, by the recipe's `targets`."""
    text_targets: Mapping[str, tuple[str, ...]] = {
        ATTENTION: _TEXT_ATTENTION_LAYERS,
        TRANSFORMER: _TEXT_LAYERS,
        ALL_LAYERS: _TEXT_LAYERS,
    }
    """The same of the text encoders."""
    addition_embed_type: str | None = None
    """What the denoiser is told beside the prompt, as its config calls it: it tells architectures apart."""
    resolution: int
    """Side in pixels of the pictures it is trained on, where its files do not say."""
    control_pipeline: str | None = None
    """Class in diffusers that draws with a ControlNet too; None where there is none for this architecture."""
    gradient_checkpointing: bool = False
    """Whether training recomputes activations unless told otherwise: for models too large for common GPUs."""

    @property
    def weight_parts(self) -> tuple[str, ...]:
        """Folders with weights."""
        return (self.denoiser, "vae", *self.text_encoders)

    @property
    def setting_parts(self) -> tuple[str, ...]:
        """Folders with anything that changes what a model computes."""
        return (*self.weight_parts, *self.tokenizers, "scheduler")


STABLE_DIFFUSION = Family(
    name="sd",
    title="Stable Diffusion 1 and 2",
    pipeline="StableDiffusionPipeline",
    # Without the safety checker: it blackens images, and what is drawn is compared and trained on.
    pipeline_arguments={
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    },
    module="stable_diffusion",
    classes={"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"},
    text_encoders=("text_encoder",),
    tokenizers=("tokenizer",),
    resolution=512,
    control_pipeline="StableDiffusionControlNetPipeline",
)
SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    pipeline="StableDiffusionXLPipeline",
    # Without the invisible watermark: what is drawn is compared and trained on.
    pipeline_arguments={
        "feature_extractor": None,
        "image_encoder": None,
        "add_watermarker": False,
    },
    module="sdxl",
    classes={
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    },
    text_encoders=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    embedding_keys={"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
    addition_embed_type="text_time",
    resolution=1024,
    control_pipeline="StableDiffusionXLControlNetPipeline",
    gradient_checkpointing=True,
)
FAMILIES: Mapping[str, Family] = {family.name: family for family in (STABLE_DIFFUSION, SDXL)}
"""Every family by its name."""

INDEX_FILE = "model_index.json"


def native_resolution(folder: Path) -> int | None:
    """Return the side in pixels of the square pictures a model was trained on; None when its files do not say so.

    That is the denoiser's latents (`sample_size`) times the autoencoder's scale, which halves once less than it has
    blocks. Files that cannot be read are for whoever loads the model to complain about.
    """
    try:
        family = family_in(folder / INDEX_FILE, str(folder))
        latents = read_object(folder / family.denoiser / "config.json")["sample_size"]
        blocks = read_object(folder / "vae" / "config.json")["block_out_channels"]
    except (ValueError, KeyError):
        return None
    if not isinstance(latents, int) or not isinstance(blocks, list):
        return None
    if latents < 1 or not 1 <= len(blocks) <= _MOST_BLOCKS:
        return None
    return latents << (len(blocks) - 1)


def family_in(index: Path, model: str) -> Family:
    """Return the family that the index of a `model` names; raises ModelFileError for one that cannot be trained."""
    try:
        pipeline = read_object(index).get("_class_name")
    except ModelFileError as error:
        raise ModelFileError(f"{INDEX_FILE} {error.what}", error.fix) from error
    for family in FAMILIES.values():
        if family.pipeline == pipeline:
            return family
    known = " and ".join(f"{family.title} ({family.pipeline})" for family in FAMILIES.values())
    what = f'the {INDEX_FILE} of {model} names no pipeline ("_class_name")'
    if isinstance(pipeline, str) and pipeline:
        what = f"{model} is a {pipeline[:80]}"
    raise ModelFileError(f"{what}; only {known} can be personalised", "name another model")


def require_steerable(family: Family) -> None:
    """Raise ValueError for models of an architecture that no ControlNet is known for here."""
    if family.control_pipeline is not None:
        return
    steerable = [other.title for other in FAMILIES.values() if other.control_pipeline]
    raise ValueError(f"{family.title} takes no ControlNet here; name a model of {' or '.join(steerable)}")


def is_hub_id(name: str) -> bool:
    """Return whether a name looks like one of the Hugging Face Hub ("org/model"), and not like a path."""
    return _HUB_ID.fullmatch(name) is not None
