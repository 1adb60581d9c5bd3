"""Whether a ControlNet fits a base model, from their JSON files alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.contract.control_network import USUAL_WIDTHS
from orchestrator.contract.families import FAMILIES, INDEX_FILE, family_in
from orchestrator.contract.model_file import ModelFileError, read_object

CONTROL_CLASS = "ControlNetModel"
CONFIG_FILE = "config.json"
_UNION_CLASS = "ControlNetUnionModel"
_MOST_BLOCKS = 16
_CHANNELS = [320, 640, 1280, 1280]
_SHARED: Mapping[str, Any] = {
    "in_channels": 4,
    "cross_attention_dim": 1280,
    "block_out_channels": _CHANNELS,
    "layers_per_block": 2,
    "conditioning_channels": 3,
}
"""What a ControlNet has in common with its U-Net, and what diffusers takes where a configuration is silent.

A U-Net says nothing of the last one: pictures have three channels.
"""


def control_misfit(control: Path, base: Path) -> str | None:
    """Return why the ControlNet in one folder cannot steer the base model in another, as a predicate; None if it can.

    Raises ModelFileError for a configuration of the ControlNet that cannot be read. One of the base model is for
    whoever loads that to complain about.
    """
    config = read_object(control / CONFIG_FILE)
    return _other_class(config) or _other_model(config, base)


def _other_class(config: Mapping[str, Any]) -> str | None:
    """Return what a configuration is one of, if not of a ControlNet that can be used."""
    kind = config.get("_class_name")
    if kind == _UNION_CLASS:
        return f"is a {_UNION_CLASS}, which takes several maps at once; only a {CONTROL_CLASS} can be used"
    if kind != CONTROL_CLASS:
        return f"is no ControlNet: its {CONFIG_FILE} names no {CONTROL_CLASS}"
    return None


def _other_model(config: Mapping[str, Any], base: Path) -> str | None:
    """Return in what a ControlNet of this configuration and a base model differ."""
    try:
        family = family_in(base / INDEX_FILE, base.name)
        denoiser = read_object(base / family.denoiser / CONFIG_FILE)
        autoencoder = read_object(base / "vae" / CONFIG_FILE)
    except ModelFileError:
        return None
    if config.get("addition_embed_type") != family.addition_embed_type:
        return f"is made for {_architecture(config)}, and the base model is {family.title}"
    for name, usual in _SHARED.items():
        own, needed = config.get(name, usual), denoiser.get(name, usual)
        if own != needed:
            return f"has {name} {own}, and the base model {needed}"
    own = _reduction(config.get("conditioning_embedding_out_channels") or list(USUAL_WIDTHS))
    needed = _reduction(autoencoder.get("block_out_channels"))
    if own != needed:
        return f"makes conditions {own} times smaller, and the autoencoder of the base model pictures {needed} times"
    if denoiser.get("time_cond_proj_dim") is not None:
        return "cannot steer a base model that is told the guidance (time_cond_proj_dim)"
    return None


def _architecture(config: Mapping[str, Any]) -> str:
    """Return what people call the models that a ControlNet of this configuration is made for."""
    for family in FAMILIES.values():
        if family.addition_embed_type == config.get("addition_embed_type"):
            return family.title
    return "another architecture"


def _reduction(widths: Any) -> int | None:
    """Return how many times smaller blocks of these widths make a picture: each but the first halves its sides."""
    if not isinstance(widths, list) or not 1 <= len(widths) <= _MOST_BLOCKS:
        return None
    halvings = len(widths) - 1
    return 1 << halvings


def is_control(folder: Path) -> bool:
    """Whether a folder holds a ControlNet, of whatever kind."""
    try:
        kind = read_object(folder / CONFIG_FILE).get("_class_name")
    except ModelFileError:
        return False
    return kind in (CONTROL_CLASS, _UNION_CLASS)
