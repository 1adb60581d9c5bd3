"""Load one part of a model: from whatever variant of its weights is there, and whole."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from orchestrator.contract.model_file import ModelFileError
from orchestrator.contract.model_layout import Weights, find_weights, names_of


def load_part(module_class: Any, folder: Path, part: str) -> Any:
    """Return a part of the model in `folder`, as `load_module` does."""
    return load_module(module_class, folder / part, find_weights(part, names_of(folder)))


def load_module(module_class: Any, folder: Path, weights: Weights | None) -> Any:
    """Return what is in `folder` as a module of diffusers or transformers, in float32.

    `precision.py` rounds those of frozen parts afterwards. Raises ModelFileError for weights that are missing or of
    another shape: the libraries would put random ones in their place.
    """
    module, info = module_class.from_pretrained(
        folder,
        variant=None if weights is None else weights.variant,
        torch_dtype=torch.float32,
        use_safetensors=True,  # no pickles
        local_files_only=True,
        output_loading_info=True,
    )
    lacking = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if lacking:
        others = "" if len(lacking) == 1 else f" and {len(lacking) - 1} more"
        raise ModelFileError(f"the weights in {folder.name}/ lack {lacking[0]}{others}")
    require_finite(module, folder.name)
    return module


@torch.no_grad()
def require_finite(module: nn.Module, part: str) -> None:
    """Raise ModelFileError for weights that are not numbers: whatever is computed with them would be none."""
    for name, tensor in module.state_dict().items():
        # One sum is cheap; it is not finite if any element is not, or, seldom, if it overflows.
        if not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise ModelFileError(f"{part}/ holds NaN or infinity in {name}")
