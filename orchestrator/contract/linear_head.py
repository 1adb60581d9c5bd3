"""A linear head: layers without activations that make one number of an embedding, in a file of safetensors.

Such is LAION's aesthetic predictor on CLIP ViT-L/14 (768-1024-128-64-16-1), whose dropout does nothing once it is
trained: https://github.com/christophschuhmann/improved-aesthetic-predictor. A head of a single layer is one too.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from orchestrator.contract.model_file import ModelFileError
from orchestrator.contract.safetensors_header import FLOATS, Header, TensorEntry, read_header

HEAD_FILE = "head.safetensors"
_TENSOR = re.compile(r"(?:.*\.)?(\d{1,4})\.(weight|bias)")
"""Names of tensors, as PyTorch gives them to a sequence of layers: "layers.0.weight"."""


class HeadLayer(NamedTuple):
    """One layer."""

    weight: str
    """Name of its matrix, of the shape (outputs, inputs)."""
    bias: str | None
    """Name of its bias, if it has one."""
    inputs: int
    outputs: int


def require_head(path: Path, width: int | None = None) -> list[HeadLayer]:
    """Return the layers of the head in a file, in order; only its header is read.

    `width` is that of the embeddings, None where it is not known. Raises ValueError, with the reason, for a file that
    holds no head or one for embeddings of another width.
    """
    try:
        header = read_header(path)
    except ModelFileError as error:
        raise ValueError(f"{path} {error.what}") from error
    layers = _layers(path, header)
    expected = layers[0].inputs if width is None else width
    for layer in layers:
        inputs = layer.inputs
        if inputs != expected:
            raise ValueError(f"{layer.weight} of {path} takes {inputs} numbers where it is given {expected}")
        expected = layer.outputs
    if expected != 1:
        raise ValueError(f"{path} ends in {expected} numbers; a head ends in one, the score")
    return layers


def _layers(path: Path, header: Header) -> list[HeadLayer]:
    """Return the layers in the order of their numbers.

    Numbers may be left out: where a dropout or nothing at all was trained, a sequence of PyTorch has no weights.
    """
    found: dict[int, dict[str, str]] = {}
    for name, entry in header.items():
        match = _TENSOR.fullmatch(name)
        kind = entry.dtype
        if match is None or kind not in FLOATS:
            raise ValueError(f"{path} holds {name} ({kind}), which is no part of a linear head")
        number, part = match.groups()
        place = int(number)
        parts = found.setdefault(place, {})
        other = parts.get(part)
        if other is not None:
            raise ValueError(f"{path} holds two heads: {other} and {name}")
        parts[part] = name
    if not found:
        raise ValueError(f"{path} holds no tensors")
    layers = []
    for place in sorted(found):
        layer = _layer(path, header, found[place])
        layers.append(layer)
    return layers


def _layer(path: Path, header: Mapping[str, TensorEntry], names: Mapping[str, str]) -> HeadLayer:
    bias = names.get("bias")
    if "weight" not in names:
        raise ValueError(f"{path} holds {bias} without a weight")
    weight = names["weight"]
    shape = header[weight].shape
    if len(shape) != 2:  # noqa: PLR2004 - outputs and inputs
        raise ValueError(f"{weight} of {path} is of the shape {shape}; that of a linear layer has two dimensions")
    outputs, inputs = shape
    if bias is not None:
        found = header[bias].shape
        if found != [outputs]:
            raise ValueError(f"{bias} of {path} is of the shape {found}, and its layer has {outputs} outputs")
    return HeadLayer(weight, bias, inputs, outputs)
