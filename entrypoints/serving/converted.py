"""Relatives of LoRA as slots hold them: what they change in each layer, taken apart into factors of low rank.

DoRA (arXiv 2402.09353), LoKr and LoHa (arXiv 2309.14859) and OFT (arXiv 2306.07280) become the difference of merged and
own weights, and its singular value decomposition. One that needs a higher rank than slots have is refused.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftType, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from entrypoints.adapters.peft_layout import PREFIX, read_config
from entrypoints.models.base import BaseModel, part_of
from entrypoints.runtime.failures import TrainingError
from entrypoints.serving.low_rank_file import (
    KIND,
    LowRankWeights,
    low_rank_of,
    read_checked,
    require_readable_size,
    separate_lengths,
    spelled_twice,
)
from entrypoints.serving.slots import RANKS, LowRankPair, plain_layers
from orchestrator.contract.adapter import PEFT_CONFIG_FILE, PEFT_FILE, AdapterManifest

TOLERANCE = 1e-6
"""Share of a layer's change, in the Frobenius norm, that its factors may miss: pictures differ by less than 1e-5."""
WHOLE_DECOMPOSITION = 512
"""Rows or columns up to which a layer's change is decomposed wholly; larger ones up to the highest rank alone."""
_MOST_RANK = 512
"""Of a configuration: layers are made of it before its weights are read."""
_READ_FIELDS = {"r", "alpha", "lora_alpha", "target_modules", "oft_block_size", "use_dora"}
"""Of a configuration, that this program's recipes set."""
_OF_NO_CHANGE = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_weights",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}
"""Fields that change nothing of what a finished adapter does."""


def read_lora(base: BaseModel, path: Path) -> tuple[LowRankWeights, bool]:
    """Return the weights of a diffusers LoRA file, and whether it has a strength: DoRA has none other than 1.

    Raises TrainingError("adapter").
    """
    tensors, metadata = read_checked(base, path)
    plain, lengths = separate_lengths(path.name, tensors, metadata)
    weights = low_rank_of(base, path.name, plain, metadata)
    if not lengths:
        return weights, True
    return of_dora(base, path.name, weights, lengths), False


def of_dora(
    base: BaseModel,
    name: str,
    weights: LowRankWeights,
    lengths: Mapping[str, Mapping[str, Tensor]],
) -> LowRankWeights:
    """Return what a DoRA adds: W' - W with W' = m (W + B A) / |W + B A|, |.| of each output (eq. 5)."""
    changes: dict[str, dict[str, LowRankPair]] = {}
    for part, pairs in weights.parts.items():
        layers = plain_layers(part_of(base, part))
        of_part = lengths.get(part, {})
        if set(of_part) != set(pairs):
            raise TrainingError(
                KIND,
                f"{name}: not every layer of {part} has lengths.",
                "export it again",
            )
        changes[part] = {}
        for layer, pair in pairs.items():
            weight = layers[layer].weight.detach().float().cpu()
            low_rank = pair.b @ pair.a.flatten(1)
            directed = weight + low_rank.view_as(weight)
            length = of_part[layer].float().reshape(-1)
            if len(length) != len(weight) or not length.isfinite().all():
                raise TrainingError(
                    KIND,
                    f"{name}: the lengths of {layer} are no {len(weight)} numbers.",
                    "export it again",
                )
            found_length = directed.flatten(1).norm(dim=1)
            scale = length / found_length
            shape = [-1] + [1] * (weight.ndim - 1)
            merged = directed * scale.view(shape)
            change = merged - weight
            changes[part][layer] = factors_of(f"{name}: {part}.{layer}", change)
    return measured(changes)


def read_peft(
    base: BaseModel,
    folder: Path,
    manifest: AdapterManifest,
) -> tuple[LowRankWeights, bool]:
    """Return the weights of an adapter in PEFT's layout, and whether it has a strength.

    Raises TrainingError("adapter").
    """
    if not manifest.parts:
        raise TrainingError(
            KIND,
            "Its manifest names no part of the base model.",
            "export it again",
        )
    changes: dict[str, dict[str, LowRankPair]] = {}
    has_strength = True
    for part in manifest.parts:
        config = read_config(folder / part / PEFT_CONFIG_FILE)
        require_known(part, config)
        path = folder / part / PEFT_FILE
        require_readable_size(base, path)
        tensors: dict[str, Tensor] = {}
        for name, tensor in load_file(path).items():
            plain_name = name.removeprefix(PREFIX)
            if plain_name in tensors:
                raise spelled_twice(PEFT_FILE, f"{part}.{plain_name}")
            tensors[plain_name] = tensor.float()
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise TrainingError(
                KIND,
                f"Its weights of {part} hold NaN or infinity.",
                "train it again",
            )
        changes[part] = {}
        for layer, change in changes_of(part_of(base, part), config, tensors):
            changes[part][layer] = factors_of(f"{part}.{layer}", change)
        if config.peft_type == PeftType.OFT or getattr(config, "use_dora", False):
            has_strength = False
    return measured(changes), has_strength


def require_known(part: str, config: PeftConfig) -> None:
    """Raise TrainingError("adapter") for a configuration with settings that this program's recipes do not make."""
    usual: Any = type(config)()
    for field, value in vars(config).items():
        if field in _READ_FIELDS | _OF_NO_CHANGE or value == getattr(usual, field, None):
            continue
        message = f'The configuration of {part} sets "{field}", which this server does not know.'
        raise TrainingError(
            KIND,
            message,
            "train it with a recipe of this program",
        )
    values: Any = config
    sizes = [values.r, getattr(values, "oft_block_size", 0)]
    if not all(isinstance(size, int) and 0 <= size <= _MOST_RANK for size in sizes):
        raise TrainingError(
            KIND,
            f"The configuration of {part} has ranks of {sizes}.",
            f"use at most {_MOST_RANK}",
        )
    if isinstance(values.target_modules, str):  # an expression that others wrote may take for ever to match
        raise TrainingError(
            KIND,
            f"The configuration of {part} names no list of layers.",
            "name each layer",
        )


def changes_of(
    network: nn.Module,
    config: PeftConfig,
    tensors: Mapping[str, Tensor],
) -> Iterable[tuple[str, Tensor]]:
    """Yield each layer that an adapter changes, and by what; the network is only read.

    Raises TrainingError("adapter") for weights that are not those that the configuration describes.
    """
    copies = copied(network, config)
    inject_adapter_in_model(config, copies)
    expected = set(get_peft_model_state_dict(copies))
    if set(tensors) != expected or not expected:
        raise TrainingError(
            KIND,
            "Its weights are not those that its configuration describes.",
            "export it again",
        )
    set_peft_model_state_dict(copies, dict(tensors))
    for name, layer in copies.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        before = layer.get_base_layer().weight.detach().clone()
        layer.merge()
        yield name, layer.get_base_layer().weight.detach() - before


def copied(network: nn.Module, config: PeftConfig) -> nn.Module:
    """Return copies of the layers that a configuration names, in modules of the same names."""
    values: Any = config
    ends = tuple(values.target_modules)
    root = nn.Module()
    for name, layer in plain_layers(network).items():
        if not any(name == end or name.endswith(f".{end}") for end in ends):
            continue
        *folders, last = name.split(".")
        parent = root
        for folder in folders:
            if folder not in dict(parent.named_children()):
                parent.add_module(folder, nn.Module())
            parent = parent.get_submodule(folder)
        parent.add_module(last, deepcopy(layer).float().cpu())
    return root


def factors_of(name: str, change: Tensor) -> LowRankPair:
    """Return A and B whose product is what a layer is changed by: (outputs, inputs), or a convolution's.

    Raises TrainingError("adapter") when that takes a higher rank than slots have.
    """
    flat = change.double().flatten(1)
    if min(flat.shape) <= WHOLE_DECOMPOSITION:
        left, values, right = torch.linalg.svd(flat, full_matrices=False)
    else:
        left, values, right_columns = torch.svd_lowrank(flat, q=RANKS[-1], niter=4)
        right = right_columns.T
    size = flat.norm()
    found = values.square().cumsum(0)
    missed_squares = size.square() - found
    missed = missed_squares.clamp(min=0).sqrt()
    enough = missed <= TOLERANCE * size
    rank = RANKS[-1] + 1
    if enough.any():
        rank = int(enough.nonzero()[0]) + 1
    if rank > RANKS[-1]:
        raise TrainingError(
            KIND,
            f"{name} is changed in more directions than the {RANKS[-1]} that a slot holds.",
            "train it with tuner=lora, or draw with it by: python -m orchestrator adapters draw",
        )
    root = values[:rank].sqrt()
    a = root[:, None] * right[:rank]
    b = left[:, :rank] * root
    kernel = a.float().view(rank, *change.shape[1:])
    return LowRankPair(kernel, b.float())


def measured(parts: Mapping[str, Mapping[str, LowRankPair]]) -> LowRankWeights:
    """Return weights with their size."""
    size = 0
    for pairs in parts.values():
        for pair in pairs.values():
            size += pair.a.nbytes + pair.b.nbytes
    return LowRankWeights(parts, size)
