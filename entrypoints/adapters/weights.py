"""Weight files whose bytes depend on nothing but their content.

A safetensors file is the length of its header (8 bytes, little endian), the header as JSON, and the tensors' bytes at
offsets that the header names (https://github.com/huggingface/safetensors#format).
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from entrypoints.models.base import BaseModel, part_of

LENGTH_BYTES = 8
READABLE = 0o644  # the library leaves files that only their owner can read


def file_prefix(base: BaseModel, part: str) -> str:
    """Return what precedes the names of a part's weights in a file that every loader reads.

    transformers 5 calls the weights of `CLIPTextModel` "encoder..." and reads "text_model.encoder..." too.
    transformers 4 reads only the latter, and leaves what it does not find at random values.
    """
    is_flat = part in base.family.text_encoders and not hasattr(part_of(base, part), "text_model")
    return "text_model." if is_flat else ""


def save_weights(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file with its metadata sorted.

    The library keeps metadata in a hash map and writes it in an order that differs from run to run. Sorting leaves
    the header's length, and so the offset of every tensor, as it was. Raises ValueError if it would not.
    """
    contents = on_cpu(tensors)
    save_file(contents, path, metadata=dict(metadata))
    with path.open("r+b") as file:
        length_bytes = file.read(LENGTH_BYTES)
        length = int.from_bytes(length_bytes, "little")
        header = json.loads(file.read(length))
        entries = header["__metadata__"].items()
        header["__metadata__"] = dict(sorted(entries))
        text = json.dumps(
            header,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        padded = text.encode().ljust(length)  # the library pads the header with spaces
        if len(padded) != length:
            raise ValueError(f"sorting the metadata of {path.name} changes its length")
        file.seek(LENGTH_BYTES)
        file.write(padded)
    path.chmod(READABLE)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as `save_file` takes them: without gradients, on the CPU, contiguous."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found[name] = tensor.detach().cpu().contiguous()
    return found
