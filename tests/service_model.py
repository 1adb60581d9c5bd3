"""Checks a request against botocore's model of the service, further than botocore itself does."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from typing import Any

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator


def complaints(request: dict[str, Any], operation: str = "CreateTrainingJob", service: str = "sagemaker") -> list[str]:
    """Return everything the service's model holds against a request."""
    shape = _model(service).operation_model(operation).input_shape
    assert shape is not None
    report = ParamValidator().validate(request, shape)
    return [*report.generate_report().splitlines(), *_walk(request, shape, "")]


@cache
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def _walk(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name in value.keys() & shape.members.keys():  # the validator has named the others
            yield from _walk(value[name], shape.members[name], f"{path}.{name}")
        return
    if shape.type_name in {"list", "map", "string"}:
        yield from _length(value, shape, path)
    match shape.type_name:
        case "list":
            yield from chain.from_iterable(_walk(part, shape.member, path) for part in value)
        case "map":
            for key, part in value.items():
                yield from _walk(key, shape.key, f"{path}.{key}")
                yield from _walk(part, shape.value, f"{path}.{key}")
        case "string":
            yield from _text(value, shape, path)
        case "integer" | "long" if value > shape.metadata.get("max", value):
            yield f"{path}: {value} is too much"


def _length(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if not shape.metadata.get("min", 0) <= len(value) <= shape.metadata.get("max", len(value)):
        yield f"{path}: {len(value)} is not between {shape.metadata.get('min')} and {shape.metadata.get('max')}"


def _text(value: str, shape: Shape, path: str) -> Iterator[str]:
    pattern = shape.metadata.get("pattern")
    if pattern and not re.fullmatch(_in_python(pattern), value, re.DOTALL):
        yield f"{path}: {value!r} does not match {pattern}"
    if shape.enum and value not in shape.enum:
        yield f"{path}: {value!r} is none of the choices"


def _in_python(pattern: str) -> str:
    """Return a Java pattern in Python's words, which has no classes for letters, separators and numbers."""
    words = {r"\p{L}": r"\w", r"\p{Z}": " ", r"\p{N}": r"\d", r"\p{Alnum}": "A-Za-z0-9"}
    for java, python in words.items():
        pattern = pattern.replace(java, python)
    return pattern
