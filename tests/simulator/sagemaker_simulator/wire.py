"""JSON 1.1 as the service speaks it."""

import json
from datetime import datetime
from typing import Any

from .errors import ServiceError

TARGET = "SageMaker."
CONTENT_TYPE = "application/x-amz-json-1.1"
Answer = tuple[int, dict[str, str], bytes]


def parameters_of(body: bytes) -> dict[str, Any]:
    """Read a request's parameters."""
    try:
        parameters = json.loads(body or b"{}")
    except ValueError:
        raise ServiceError("SerializationException", "The body is no JSON.") from None
    if not isinstance(parameters, dict):
        raise ServiceError("SerializationException", "The body is no JSON object.")
    return parameters


def to_wire(value: Any) -> Any:
    """Return a value with its times as seconds since the epoch."""
    if isinstance(value, dict):
        return {name: to_wire(item) for name, item in value.items()}
    if isinstance(value, list):
        return [to_wire(item) for item in value]
    return round(value.timestamp(), 3) if isinstance(value, datetime) else value


def success(content: dict[str, Any]) -> Answer:
    return 200, {"Content-Type": CONTENT_TYPE}, json.dumps(content).encode()


def failure(error: ServiceError) -> Answer:
    # Errors of the model spell their member "Message", the framework's own "message"; clients read both.
    body = {"__type": error.code, "Message": error.message, "message": error.message}
    return error.status, {"Content-Type": CONTENT_TYPE, "x-amzn-ErrorType": error.code}, json.dumps(body).encode()
