"""Checks parameters against botocore's model of the service, as strictly as the model allows.

boto3 itself looks at required members, types and minima only; patterns, maxima and enums are left to the service.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape

from .errors import ServiceError, invalid

# The patterns are Java's. Python has no \p{..}: \w stands for letters and digits (and allows the underscore too).
_JAVA_CLASSES = {
    r"\p{Alnum}": "a-zA-Z0-9",
    r"\p{ASCII}": r"[\x00-\x7f]",
    r"\p{Print}": r"\x20-\x7e",
    r"\z": r"\Z",
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "boolean": bool,
    "timestamp": (int, float),
    "structure": dict,
    "map": dict,
    "blob": bytes,
    "list": list,
}

LOADER = Loader()
"""Remembers the models it has read, which is most of what making a client costs."""


@lru_cache(maxsize=2)
def service_model(service: str = "sagemaker") -> ServiceModel:
    """Return the model of the newest SageMaker API botocore knows, or of its runtime API."""
    return ServiceModel(LOADER.load_service_model(service, "service-2"), service)


def operation_model(operation: str) -> OperationModel:
    if operation not in service_model().operation_names:
        raise ServiceError("UnknownOperationException", f"The service has no operation {operation}.")
    return service_model().operation_model(operation)


def validate(operation: str, parameters: dict[str, Any]) -> None:
    """Raise what the service would say to these parameters; all their faults at once."""
    shape = operation_model(operation).input_shape
    faults = list(_faults(shape, parameters, "")) if shape else []
    if faults:
        noun = "error" if len(faults) == 1 else "errors"
        raise invalid(f"{len(faults)} validation {noun} detected: {'; '.join(faults)}")


def shape_faults(service: str, operation: str, parameters: dict[str, Any]) -> list[str]:
    """Return what another service of SageMaker's would say to parameters."""
    return list(_faults(service_model(service).operation_model(operation).input_shape, parameters, ""))


def output_faults(operation: str, result: dict[str, Any]) -> list[str]:
    """Return what is wrong with an answer: the simulator is held to the model too."""
    shape = operation_model(operation).output_shape
    return list(_faults(shape, result, "")) if shape else []


def _faults(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if not _is_a(shape.type_name, value):
        where = path or "the request"
        message = f"{type(value).__name__} can not be converted to a {shape.type_name} at {where}"
        raise ServiceError("SerializationException", message)
    yield from _limits(shape, value, path)
    if shape.type_name == "structure":
        yield from _members(shape, value, path)
    elif shape.type_name == "list":
        for index, item in enumerate(value, start=1):
            yield from _faults(shape.member, item, f"{path}.{index}.member")
    elif shape.type_name == "map":
        for key, item in value.items():
            yield from _faults(shape.key, key, f"{path}.key")
            yield from _faults(shape.value, item, f"{path}.{key}.member")


def _is_a(type_name: str, value: object) -> bool:
    kind = _TYPES[type_name]
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _members(shape: Shape, value: dict[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
    for name, item in value.items():
        if name not in shape.members:
            yield f"'{_join(path, name)}' is not a member of {shape.name}"
        elif item is not None:
            yield from _faults(shape.members[name], item, _join(path, name))


def _limits(shape: Shape, value: Any, path: str) -> Iterator[str]:
    for broken in _broken_constraints(shape, value):
        shown = value if isinstance(value, str | int | float) else f"a {shape.type_name} of {len(value)}"
        yield f"Value '{shown}' at '{path}' failed to satisfy constraint: Member must {broken}"


def _broken_constraints(shape: Shape, value: Any) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    is_number = shape.type_name in {"integer", "long", "float", "double"}
    size = value if is_number else len(value) if isinstance(value, str | bytes | list | dict) else None
    what = "value" if is_number else "length"
    if size is not None and low is not None and size < low:
        yield f"have {what} greater than or equal to {low}"
    if size is not None and high is not None and size > high:
        yield f"have {what} less than or equal to {high}"
    if isinstance(value, str):
        enum, pattern = shape.metadata.get("enum"), shape.metadata.get("pattern")
        if enum and value not in enum:
            yield f"satisfy enum value set: [{', '.join(enum)}]"
        if pattern and not _matches(pattern, value):
            yield f"satisfy regular expression pattern: {pattern}"


def _matches(pattern: str, value: str) -> bool:
    """Return whether a text is as a pattern of the model wants it; the few that only Java reads let all pass."""
    compiled = _compiled(pattern)
    return compiled is None or compiled.fullmatch(value) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    for java, python in _JAVA_CLASSES.items():
        pattern = pattern.replace(java, python)
    try:
        return re.compile(pattern)
    except re.error:
        return None


def _join(path: str, name: str) -> str:
    first = name[:1].lower() + name[1:]
    return f"{path}.{first}" if path else first
