"""From the controls of a generation to what steers the denoiser: networks, condition maps, masks."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import ControlNetModel
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from entrypoints.adapters.controlnet import PART
from entrypoints.conditions.maps import map_maker
from entrypoints.models.base import BaseModel
from entrypoints.models.control import Control
from entrypoints.models.parts import load_module
from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from entrypoints.runtime.pictures import crop
from orchestrator.contract import generation
from orchestrator.contract.adapter import CONTROLNET, MANIFEST_FILE, AdapterManifest
from orchestrator.contract.conditions import GIVEN, as_typed, settings_of
from orchestrator.contract.control_fit import control_misfit
from orchestrator.contract.events import Warned, emit
from orchestrator.contract.model_file import ModelFileError
from orchestrator.contract.model_layout import find_weights

KIND = "control"
"""Of its failures."""
_FORMATS = ("PNG", "JPEG", "WEBP")
_MOST_PIXELS = 2**26


def require_controls(
    controls: Sequence[generation.Control],
    folders: Mapping[str, Path],
    base_folder: Path,
) -> None:
    """Raise TrainingError("control") for a ControlNet that does not fit the base model or what it is shown.

    Reads JSON and the files' hashes: a base model need not be loaded first, which takes long.
    """
    for control in controls:
        folder = folders[control.network]
        manifest = manifest_of(control.network, folder)
        if manifest is not None:
            require_kind(control, manifest)
        try:
            misfit = control_misfit(folder, base_folder)
        except ModelFileError as error:
            misfit = f"cannot be read: its config.json {error.what}"
        if misfit is not None:
            raise TrainingError(
                KIND,
                f'The ControlNet "{control.network}" {misfit}.',
                "name a ControlNet that was made for this base model",
            )


def manifest_of(name: str, folder: Path) -> AdapterManifest | None:
    """Return the manifest of a ControlNet whose files are those it lists; None for one that has no manifest.

    Raises TrainingError("control") for an adapter of another kind, or a damaged one.
    """
    if not (folder / MANIFEST_FILE).is_file():
        return None
    try:
        manifest = AdapterManifest.read(folder)
    except (OSError, ValidationError) as error:
        raise TrainingError(KIND, f'"{name}" is no readable adapter: {first_line(error)}', "fetch it again") from error
    damaged = manifest.damaged_files(folder)
    if damaged:
        raise TrainingError(KIND, f'The ControlNet "{name}" is damaged: {", ".join(damaged)}.', "fetch it again")
    if manifest.kind != CONTROLNET:
        raise TrainingError(
            KIND,
            f'"{name}" is an adapter of the kind "{manifest.kind}", and no ControlNet.',
            "name a ControlNet to follow a picture with",
        )
    return manifest


def require_kind(control: generation.Control, manifest: AdapterManifest) -> None:
    """Raise TrainingError("control") for maps of a kind that a ControlNet was not trained on."""
    trained = manifest.config.get("conditions")
    if not isinstance(trained, list | tuple) or control.kind in trained:
        return
    if control.is_map and GIVEN in trained:
        given = manifest.config.get("given_map")
        if given in (None, control.kind):
            return
    kinds = " and ".join(str(kind) for kind in trained)
    raise TrainingError(
        KIND,
        f'The ControlNet "{control.network}" was trained on {kinds} maps, and not on {control.kind}.',
        f"show it what it knows: --control {as_typed(trained[0])}=PICTURE",
    )


class Shown(NamedTuple):
    """What a ControlNet is shown."""

    condition: Tensor
    """(1, 3, height, width) from 0 to 1."""
    mask: Tensor | None
    """(1, 1, height, width) from 0 to 1."""


def shown_by(
    wanted: generation.Generation,
    map_weights: Mapping[str, Path],
    device: torch.device,
) -> list[Shown]:
    """Return the condition map and the mask of each control.

    Raises TrainingError("control") for pictures that cannot be read and a mask of another shape than its picture, and
    TrainingError("conditions") for maps that cannot be computed.
    """
    shown = []
    for control in wanted.controls:
        picture = read_picture(control.picture, f"the picture of the {control.kind} control")
        mask = None
        if control.mask is not None:
            name = f"the mask of the {control.kind} control"
            drawn = read_picture(control.mask, name)
            require_shape(name, picture, drawn, "where the control acts")
            mask = _pixels(crop(drawn.convert("L"), wanted.shape)).to(device)
        condition = crop(picture, wanted.shape)
        if not control.is_map:
            settings = settings_of(control.kind, control.settings)
            make = map_maker(control.kind, settings, map_weights.get(control.kind), device)
            condition = make(condition)
        shown.append(Shown(_pixels(condition).to(device), mask))
    return shown


def load_controls(
    base: BaseModel,
    controls: Sequence[generation.Control],
    shown: Sequence[Shown],
    folders: Mapping[str, Path],
) -> list[Control]:
    """Return what steers a base model: each network once; raises as `load_network` does."""
    networks: dict[str, ControlNetModel] = {}
    loaded = []
    for control, (condition, mask) in zip(controls, shown, strict=True):
        name = control.network
        if name not in networks:
            networks[name] = load_network(base, name, folders[name])
        one = Control(networks[name], condition, control.scale, control.start, control.end, mask)
        loaded.append(one)
    return loaded


def load_network(base: BaseModel, name: str, folder: Path) -> ControlNetModel:
    """Return the ControlNet in a folder, frozen and on the device of the base model.

    One that was trained beside other weights of the same architecture is loaded with a warning: people use it on
    relatives of its base model. Raises TrainingError("control").
    """
    manifest = manifest_of(name, folder)
    if manifest is not None and manifest.base_model.fingerprint != base.reference.fingerprint:
        trained_on = manifest.base_model.id
        message = f'The ControlNet "{name}" was trained on "{trained_on}", which has other weights; it may steer worse.'
        emit(Warned(message=message))
    names = {f"{PART}/{path.name}" for path in folder.iterdir()}
    weights = find_weights(PART, names)
    try:
        network = load_module(ControlNetModel, folder, weights)
    except Exception as error:  # a library may raise anything at files that others wrote
        if failure_of(error):
            raise
        reason = first_line(error)
        if weights is None:
            reason = "it has no safetensors file"
        raise TrainingError(
            KIND,
            f'The weights of the ControlNet "{name}" cannot be loaded: {reason}',
            "fetch it again, as safetensors, or name another one",
        ) from error
    network.requires_grad_(False)
    network.eval()
    return network.to(base.device)


def read_picture(data: bytes, name: str) -> Image.Image:
    """Decode a picture as RGB, after its size; raises TrainingError("control")."""
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            pixels = image.width * image.height
            if pixels <= _MOST_PIXELS:
                return image.convert("RGB")
    except Exception as error:  # decoders of hostile bytes raise anything
        if failure_of(error):
            raise
        message = f"{name} cannot be decoded: {first_line(error)}"
        raise TrainingError(KIND, message, "save it as PNG") from error
    raise TrainingError(KIND, f"{name} has {pixels} pixels; at most {_MOST_PIXELS} are read.", "scale it down")


def require_shape(name: str, picture: Image.Image, mask: Image.Image, where: str) -> None:
    """Raise TrainingError("control") for a mask whose sides are not in the ratio of its picture's, to a pixel.

    `name` is what the mask is called, and `where` says where it is white.
    """
    difference = abs(picture.width * mask.height - mask.width * picture.height)
    if difference <= max(*picture.size, *mask.size):
        return
    shapes = f"{mask.width}x{mask.height}, and its picture {picture.width}x{picture.height}"
    raise TrainingError(
        KIND,
        f"{name[:1].upper()}{name[1:]} is {shapes}: they have not the same shape.",
        f"draw the mask over the picture, white {where}, and save it at the same size",
    )


def _pixels(picture: Image.Image) -> Tensor:
    """Return a picture as (1, channels, height, width) from 0 to 1."""
    values = np.asarray(picture, dtype=np.float32) / 255
    if values.ndim == 2:  # noqa: PLR2004 - a grey picture has no third dimension
        values = values[:, :, None]
    return torch.from_numpy(values).permute(2, 0, 1).unsqueeze(0).contiguous()
