"""Condition maps by networks of controlnet-aux, with weights from a folder of this machine.

The weights are torch files, which torch reads as tensors alone (`weights_only`, its default): nothing in them runs.
"""

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from sys import stderr
from typing import Any

import torch
from PIL import Image

from entrypoints.runtime.failures import TrainingError, failure_of, first_line
from orchestrator.contract.conditions import DEPTH, HED, LINEART, MAP_KINDS, OPENPOSE, MapSettings

_MODULE = "controlnet_aux"
_INSTALL = "install it: pip install controlnet-aux"
_CLASSES: Mapping[str, str] = {
    DEPTH: "MidasDetector",
    HED: "HEDdetector",
    LINEART: "LineartDetector",
    OPENPOSE: "OpenposeDetector",
}


def load_detector(
    kind: str,
    settings: MapSettings | None,
    weights: Path | None,
    device: torch.device | None,
) -> Callable[[Image.Image], Image.Image]:
    """Return what computes maps of a learned kind; raises TrainingError("conditions") when it cannot be loaded."""
    if settings is None:
        settings = MAP_KINDS[kind].settings()
    folder = require_weights(kind, weights)
    detector_class = _detector_class(kind)
    try:
        with redirect_stdout(stderr):  # libraries print, and stdout is for events
            detector = detector_class.from_pretrained(str(folder))
        detector.to(device or torch.device("cpu"))
    except Exception as error:  # a library may raise anything at files that others wrote
        if failure_of(error):
            raise
        raise TrainingError(
            "conditions",
            f"The weights for {kind} maps in {folder} cannot be loaded: {first_line(error)}",
            "fetch them again from lllyasviel/Annotators on the Hugging Face Hub",
        ) from error
    side = settings.model_dump()["resolution"]

    def make(picture: Image.Image) -> Image.Image:
        found = detector(
            picture.convert("RGB"),
            detect_resolution=side,
            image_resolution=side,
            output_type="pil",
        )
        return found.convert("RGB").resize(picture.size, Image.Resampling.BILINEAR)

    return make


def require_weights(kind: str, weights: Path | None) -> Path:
    """Return the folder of a kind's weights; raises TrainingError("conditions") when something is missing."""
    needed = MAP_KINDS[kind].weights
    names = " and ".join(needed)
    if weights is None:
        raise TrainingError(
            "conditions",
            f"A network computes {kind} maps, and no folder with its weights was named.",
            f"fetch {names} from lllyasviel/Annotators on the Hugging Face Hub, and name their folder",
        )
    missing = [name for name in needed if not (weights / name).is_file()]
    if missing:
        raise TrainingError(
            "conditions",
            f"The folder {weights} lacks {missing[0]}, which {kind} maps need.",
            f"put {names} of lllyasviel/Annotators there",
        )
    return weights


def _detector_class(kind: str) -> Any:
    """Return the class of a kind's detector; raises TrainingError("conditions") when its package does not work."""
    if find_spec(_MODULE) is None:
        raise TrainingError("conditions", f"{kind.capitalize()} maps need the package controlnet-aux.", _INSTALL)
    try:
        with redirect_stdout(stderr):
            return getattr(import_module(_MODULE), _CLASSES[kind])
    except Exception as error:  # torchvision raises a RuntimeError where it does not fit torch
        raise TrainingError(
            "conditions",
            f"The package controlnet-aux cannot be used: {first_line(error)}",
            "install what fits this torch: pip install --upgrade controlnet-aux torchvision timm",
        ) from error
