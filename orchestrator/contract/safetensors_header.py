"""The header of a safetensors file: which tensors it holds, and where; no tensor is read.

Eight bytes with the length of the header, little endian; the header, a JSON object; the tensors one after another.
https://github.com/huggingface/safetensors#format
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.contract.model_file import ModelFileError, parse_object, require_readable
from orchestrator.contract.problem import problems_of

MAX_HEADER_BYTES = 16_000_000
"""The format allows 100 MB, from which parsing would make gigabytes; a header of 10,000 tensors has 1.5 MB."""
LENGTH_BYTES = 8
"""Of the length of the header, at the beginning of a file."""
METADATA = "__metadata__"
"""Entry of a header that is no tensor."""
FLOATS = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")
"""Types of weights that can be converted to float32 one by one."""
_BITS = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0", "I8", "U8"), 8),
    **dict.fromkeys(("BF16", "F16", "I16", "U16"), 16),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}
"""Type of a tensor's elements to their size."""

_AT_ONCE = 64
"""Tensors that are validated together, which takes a fraction of the time."""
_MOST_DIMENSIONS = 16  # more would take long to multiply; models have five at most
Natural = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class TensorEntry(BaseModel):
    """One tensor of a file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    dtype: str
    """Type of its elements, such as "F16"."""
    shape: Annotated[list[Natural], Field(max_length=_MOST_DIMENSIONS)]
    """Its dimensions."""
    data_offsets: tuple[Natural, Natural]
    """First byte, and the byte behind the last one, counted from the end of the header."""


Header = Mapping[str, TensorEntry]
"""Tensor name to its entry."""
_ENTRY = TypeAdapter(dict[str, TensorEntry])


def read_header(path: Path) -> Header:
    """Return the tensors of a file; raises ModelFileError when they are not all in it."""
    size = require_readable(path)
    if size < LENGTH_BYTES:
        raise ModelFileError(f"is cut: it has {size} bytes")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > MAX_HEADER_BYTES:
            raise ModelFileError("is not a safetensors file: the length at its start is out of all bounds")
        if LENGTH_BYTES + length > size:
            raise ModelFileError(f"is cut within its header: it has {size} bytes")
        content = file.read(length)
    return _parse(content, size - LENGTH_BYTES - length)


def _parse(content: bytes, data_bytes: int) -> Header:
    """Return the entries of a header before `data_bytes` of tensors."""
    entries: dict[str, TensorEntry] = {}
    try:
        fields = parse_object(content)
        fields.pop(METADATA, None)
        items = list(fields.items())
        for start in range(0, len(items), _AT_ONCE):  # up to the first fault: a hostile header may have a million
            entries |= _ENTRY.validate_python(dict(items[start : start + _AT_ONCE]))
    except ValidationError as error:
        first = problems_of(error, whole="")[0].render()
        raise ModelFileError(f"has a damaged header: {first}") from error
    except ModelFileError as error:
        raise ModelFileError(f"has a damaged header: it {error.what}") from error
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        _require_consistent(name, entry, end)
        end = entry.data_offsets[1]
    if end > data_bytes:
        missing = end - data_bytes
        raise ModelFileError(f"is cut: the last {missing} bytes of its tensors are missing")
    if end < data_bytes:
        raise ModelFileError(f"is damaged: {data_bytes - end} bytes at its end belong to no tensor")
    return entries


def _require_consistent(name: str, entry: TensorEntry, previous_end: int) -> None:
    """Raise ModelFileError for a tensor that does not follow the one before it, or is not as long as its shape."""
    begin, end = entry.data_offsets
    bits = _BITS.get(entry.dtype)
    if bits is None:
        fix = "save the weights as float16 or float32"
        raise ModelFileError(f"has tensors of an unknown type, {entry.dtype}: {name}", fix)
    if begin != previous_end:
        raise ModelFileError(f"has a damaged header: {name} overlaps with another tensor, or a gap is before it")
    if (end - begin) * 8 != math.prod(entry.shape) * bits:
        raise ModelFileError(f"has a damaged header: {name} has not the bytes of its shape")
