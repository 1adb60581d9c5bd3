"""Weight files whose bytes depend on nothing but their content."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

LENGTH_BYTES = 8  # of the header's length, little endian, at the start of a safetensors file
READABLE = 0o644  # the library leaves files that only their owner can read


def save_weights(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with its metadata sorted.

    The library keeps metadata in a hash map and writes it in an order that differs from run to run. Sorting leaves
    the header's length, and so the place of every tensor, as it was.
    """
    save_file({name: on_cpu(tensor) for name, tensor in tensors.items()}, path, metadata=dict(metadata))
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(text) != length:
            raise ValueError(f"the metadata of {path.name} cannot be sorted in its place")
        file.seek(LENGTH_BYTES)
        file.write(text)
    path.chmod(READABLE)


def on_cpu(tensor: Tensor) -> Tensor:
    """Return a tensor as a file takes it."""
    return tensor.detach().cpu().contiguous()
