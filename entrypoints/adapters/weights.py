"""Weight files whose bytes depend on nothing but their content, written with one tensor at a time in main memory.

What a safetensors file is: `orchestrator.contract.safetensors_header`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from entrypoints.models.base import BaseModel, part_of
from orchestrator.contract.digest import FileDigest
from orchestrator.contract.safetensors_header import LENGTH_BYTES, METADATA

READABLE = 0o644
TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Types and their names in a file, which holds the tensors in this order: each begins at a multiple of its width."""


def file_prefix(base: BaseModel, part: str) -> str:
    """Return what precedes the names of a part's weights in a file that every loader reads.

    transformers 5 calls the weights of `CLIPTextModel` "encoder..." and reads "text_model.encoder..." too.
    transformers 4 reads only the latter, and leaves what it does not find at random values.
    """
    if part not in base.family.text_encoders:
        return ""
    encoder = part_of(base, part)
    if hasattr(encoder, "text_model"):
        return ""
    return "text_model."


def save_weights(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> FileDigest:
    """Write a safetensors file and return its digest.

    Its bytes are those that the library writes, except that metadata is sorted: the library keeps it in a hash map, in
    an order that differs from run to run. The library also wants all tensors in main memory; here each one is copied
    from its device, written and released before the next. Raises OSError when the disk is full.
    """
    types = list(TYPES)
    names = sorted(tensors, key=lambda name: (types.index(tensors[name].dtype), name))
    sha256 = hashlib.sha256()
    header = _header(tensors, names, metadata)
    with path.open("wb") as file:

        def write(content: bytes | memoryview) -> None:
            file.write(content)
            sha256.update(content)

        write(len(header).to_bytes(LENGTH_BYTES, "little"))
        write(header)
        for name in names:
            write(_bytes_of(tensors[name]))
        size = file.tell()
    path.chmod(READABLE)
    return FileDigest(sha256=sha256.hexdigest(), size=size)


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes in main memory, in the order of its elements; they are copied only where they are not."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def _header(tensors: Mapping[str, Tensor], names: Sequence[str], metadata: Mapping[str, str] | None) -> bytes:
    """Return the header as JSON, padded with spaces so that the tensors begin at a multiple of 8 bytes."""
    header: dict[str, object] = {}
    if metadata is not None:
        header[METADATA] = dict(sorted(metadata.items()))
    start = 0
    for name in names:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    padding = -len(text) % 8
    return text + b" " * padding
