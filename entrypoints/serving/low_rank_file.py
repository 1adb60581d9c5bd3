"""From a LoRA file to what it adds to each layer: the names and scales of the layouts that people share.

diffusers' own reader turns kohya's names into its own. What is left are several spellings of A and B, and three places
where a scale may stand: an alpha for each layer, one for all of a part, or none, which is a scale of 1.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors import safe_open
from safetensors.torch import load
from torch import Tensor, nn

from entrypoints.models.base import BaseModel, part_of
from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.slots import RANKS, LowRankPair, plain_layers
from orchestrator.contract.model_file import ModelFileError
from orchestrator.contract.safetensors_header import FLOATS, read_header

KIND = "adapter"
"""Of its failures."""
_A, _B = "a", "b"
_SIDES = {
    "lora_A": _A,
    "lora_B": _B,
    "lora.down": _A,
    "lora.up": _B,
    "lora_linear_layer.down": _A,
    "lora_linear_layer.up": _B,
    "lora_down": _A,
    "lora_up": _B,
}
"""What stands behind the name of a layer, and which of the two matrices it is."""
_WEIGHT = re.compile(rf"(?P<layer>.+)\.(?P<side>{'|'.join(map(re.escape, _SIDES))})\.weight")
_PROCESSOR = re.compile(r"(?P<attention>.+)\.processor\.(?P<layer>to_[qkv]|to_out)_(?P<side>lora\.(?:down|up))\.weight")
"""How diffusers named the layers of attention before its version 0.19."""
_LENGTH = re.compile(r"(?P<part>\w+)\.(?P<layer>.+)\.lora_magnitude_vector(\.weight)?")
"""Of DoRA, as PEFT names it."""
_TEXT_MODEL = "text_model."
MOST_TENSORS = 20_000
MOST_ELEMENTS = 2**24
"""Of an adapter, beside as many as its base model has."""


class LowRankWeights(NamedTuple):
    """An adapter as slots hold it."""

    parts: Mapping[str, Mapping[str, LowRankPair]]
    """Part of the base model, layer in it, what is added."""
    size: int
    """Bytes of all of them in memory."""


class Scale(NamedTuple):
    """What the B A of a part's layers is multiplied by."""

    alpha: float | None = None
    """Of all layers; the rank where it is None, and the scale 1."""
    patterns: Mapping[str, float] = {}
    """Of layers whose name ends in one of these."""
    by_root: bool = False
    """Whether alpha is divided by the root of the rank (rsLoRA, arXiv 2312.03732)."""

    def of(self, layer: str, rank: int) -> float:
        """Return the scale of a layer."""
        alpha = self.alpha
        for pattern, value in self.patterns.items():
            if layer == pattern or layer.endswith(f".{pattern}"):
                alpha = value
        if alpha is None:
            return 1.0
        return alpha / math.sqrt(rank) if self.by_root else alpha / rank


def read_low_rank(base: BaseModel, path: Path) -> LowRankWeights:
    """Return the weights of a LoRA file, each with its scale in B; raises TrainingError("adapter")."""
    tensors, metadata = read_checked(base, path)
    plain, lengths = separate_lengths(path.name, tensors, metadata)
    if lengths:
        raise TrainingError(
            KIND,
            f"{path.name} is a DoRA.",
            "convert it",
        )
    return low_rank_of(base, path.name, plain, metadata)


def low_rank_of(
    base: BaseModel,
    name: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
) -> LowRankWeights:
    """Return the weights of a LoRA, each with its scale in B.

    Raises TrainingError("adapter") for what no slot can hold: half a pair, a layer that the base model has not, or has
    in another shape. Nothing of a file is left out in silence.
    """
    named, alphas = base.pipeline.lora_state_dict(dict(tensors), unet_config=base.denoiser.config)
    sides = _sides_of(base, name, named)
    parts: dict[str, dict[str, LowRankPair]] = {}
    size = 0
    for part, layers in sides.items():
        # Slots act on linear layers and convolutions: an embedding or a norm may have the same shape.
        modules = plain_layers(part_of(base, part))
        scale = _scale_of(part, metadata, alphas or {})
        parts[part] = {}
        for layer, found in layers.items():
            of_layer = f"{name}: {part}.{layer}"
            pair = _pair_of(of_layer, found, scale, layer)
            known = known_name(modules, layer)
            if known in parts[part]:
                raise spelled_twice(name, f"{part}.{known}")
            _require_shape(of_layer, modules.get(known), pair)
            parts[part][known] = pair
            size += pair.a.nbytes + pair.b.nbytes
    if not parts:
        raise TrainingError(
            KIND,
            f"{name} holds no weights of a LoRA.",
            "export it again",
        )
    return LowRankWeights(parts, size)


def read_checked(base: BaseModel, path: Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors of a file, and what its metadata says of its layers; raises TrainingError("adapter")."""
    require_readable_size(base, path)
    tensors = load(path.read_bytes())  # faster than tensor by tensor
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}")
    described = json.loads(text)
    if not isinstance(described, dict):
        raise TrainingError(
            KIND,
            f"The metadata of {path.name} is no object.",
            "export it again",
        )
    return tensors, described


def require_readable_size(base: BaseModel, path: Path) -> None:
    """Raise TrainingError("adapter") for a file that is larger than an adapter may be, by its header alone."""
    try:
        header = read_header(path)
    except ModelFileError as error:
        raise TrainingError(
            KIND,
            f"{path.name} {error.what}.",
            "fetch it again",
        ) from error
    if len(header) > MOST_TENSORS:
        raise TrainingError(
            KIND,
            f"{path.name} has {len(header)} tensors.",
            "export it as a plain LoRA",
        )
    elements = 0
    for name, entry in header.items():
        if entry.dtype not in FLOATS:
            message = f"{path.name}: {name} is of the type {entry.dtype}, and no weights."
            raise TrainingError(
                KIND,
                message,
                "export it in float16 or float32",
            )
        elements += math.prod(entry.shape)
    if elements <= MOST_ELEMENTS:
        return
    most = MOST_ELEMENTS
    for part in (base.family.denoiser, *base.family.text_encoders):
        most += sum(parameter.numel() for parameter in part_of(base, part).parameters())
    if elements > most:
        raise TrainingError(
            KIND,
            f"{path.name} is larger than its base model.",
            "use a lower rank",
        )


def separate_lengths(
    name: str,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Return the tensors of a LoRA, and the lengths of DoRA by part and layer.

    diffusers' reader would drop these with a warning. Raises TrainingError("adapter") where they are missing, or named
    as kohya does.
    """
    plain: dict[str, Tensor] = {}
    lengths: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _LENGTH.fullmatch(key)
        if match:
            layer = match["layer"].removesuffix(".processor")
            of_part = lengths.setdefault(match["part"], {})
            if layer in of_part:
                raise spelled_twice(name, layer)
            of_part[layer] = tensor
        elif "dora_scale" in key or "magnitude_vector" in key:
            raise TrainingError(
                KIND,
                f'{name} is a DoRA of another program: "{key}".',
                "export it as a plain LoRA",
            )
        else:
            plain[key] = tensor
    is_dora = any(key.endswith("use_dora") and value for key, value in metadata.items())
    if is_dora and not lengths:
        raise TrainingError(
            KIND,
            f"{name} is a DoRA without its lengths.",
            "export it again",
        )
    return plain, lengths


def spelled_twice(name: str, layer: str) -> TrainingError:
    """Return the failure of a file that names one layer in two ways: which of the two counts is not said."""
    return TrainingError(
        KIND,
        f"{name} has {layer} twice, in two spellings.",
        "export it again, from one program",
    )


def _sides_of(
    base: BaseModel,
    name: str,
    tensors: Mapping[str, Tensor],
) -> Mapping[str, Mapping[str, Mapping[str, Tensor]]]:
    """Return tensors by part, layer and side; raises TrainingError("adapter") for what is none of a LoRA's."""
    parts = {base.family.denoiser, *base.family.text_encoders}
    found: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        match = _WEIGHT.fullmatch(rest) or _PROCESSOR.fullmatch(rest)
        if match is None or part not in parts:
            raise TrainingError(
                KIND,
                f'{name} has "{key}", which is no part of a LoRA.',
                "export it as a plain LoRA",
            )
        layer = match["layer"]
        if match.re is _PROCESSOR:
            attention = match["attention"]
            layer = f"{attention}.{layer}".replace("to_out", "to_out.0")
        side = _SIDES[match["side"]]
        of_part = found.setdefault(part, {})
        of_layer = of_part.setdefault(layer, {})
        if side in of_layer:
            raise spelled_twice(name, f"{part}.{layer}")
        of_layer[side] = tensor
    return found


def _scale_of(
    part: str,
    metadata: Mapping[str, Any],
    alphas: Mapping[str, float],
) -> Scale:
    """Return the scale of a part's layers, which the metadata says, or the alphas of kohya's files."""
    alpha = metadata.get(f"{part}.lora_alpha")
    if alpha is not None:
        patterns = metadata.get(f"{part}.alpha_pattern") or {}
        return Scale(alpha, patterns, bool(metadata.get(f"{part}.use_rslora")))
    of_layers = {}
    for key, value in alphas.items():
        owner, _, rest = key.partition(".")
        if owner == part:
            layer = _SUFFIX.sub("", rest)
            of_layers[layer] = value
    return Scale(patterns=of_layers)


_SUFFIX = re.compile(rf"(\.({'|'.join(map(re.escape, _SIDES))}))?\.(weight|alpha)$|\.alpha$")


def _pair_of(
    name: str,
    sides: Mapping[str, Tensor],
    scale: Scale,
    layer: str,
) -> LowRankPair:
    """Return A and scaled B in float32; raises TrainingError("adapter") unless both are there, fit and are numbers."""
    if set(sides) != {_A, _B}:
        raise TrainingError(
            KIND,
            f"{name} has one matrix of the two.",
            "export it again",
        )
    a = sides[_A].float()
    b = sides[_B].float().flatten(1)
    rank = len(a)
    if not 0 < rank <= RANKS[-1]:
        raise TrainingError(
            KIND,
            f"{name} has rank {rank}.",
            f"use a rank from 1 to {RANKS[-1]}",
        )
    if b.shape[1] != rank:
        raise TrainingError(
            KIND,
            f"{name} has matrices of rank {rank} and {b.shape[1]}.",
            "export it again",
        )
    factor = scale.of(layer, rank)
    if factor != 1:
        b = b * factor
    if not (is_finite(a) and is_finite(b)):
        raise TrainingError(
            KIND,
            f"{name} holds NaN or infinity.",
            "train it again",
        )
    return LowRankPair(a, b)


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity: their sum would be one of them, and is computed sooner."""
    return math.isfinite(tensor.sum()) or bool(tensor.isfinite().all())


def known_name(modules: Mapping[str, nn.Module], layer: str) -> str:
    """Return the name of a layer in this version of its library: transformers 5 left "text_model." away."""
    names = {layer, layer.removeprefix(_TEXT_MODEL), _TEXT_MODEL + layer}
    for name in sorted(names):
        if name in modules:
            return name
    return layer


def _require_shape(
    name: str,
    found: nn.Module | None,
    pair: LowRankPair,
) -> None:
    """Raise TrainingError("adapter") unless the base model has this layer, in the shape of the pair."""
    if found is None:
        raise TrainingError(
            KIND,
            f"{name}: the base model has no such layer.",
            "name its own base model",
        )
    weight = getattr(found, "weight", None)
    expected = (len(pair.b), *pair.a.shape[1:])
    if not isinstance(weight, Tensor) or tuple(weight.shape) != expected:
        has = "none" if weight is None else "x".join(map(str, weight.shape))
        wants = "x".join(map(str, expected))
        raise TrainingError(
            KIND,
            f"{name} is for weights of {wants}; the base model has {has}.",
            "name its own model",
        )
