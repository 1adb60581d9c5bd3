"""Lists in pages, with tokens that only their own list takes."""

import base64
import json
from typing import Any

from sagemaker_simulator.errors import invalid


def page(items: list[Any], parameters: dict[str, Any], default: int) -> tuple[list[Any], dict[str, str]]:
    """Return one page and, when there is more, the answer's NextToken."""
    question = {name: value for name, value in parameters.items() if name not in {"NextToken", "MaxResults"}}
    start = _start(parameters["NextToken"], question) if "NextToken" in parameters else 0
    end = start + parameters.get("MaxResults", default)
    if end >= len(items):
        return items[start:], {}
    token = json.dumps({"start": end, "of": question}, sort_keys=True)
    return items[start:end], {"NextToken": base64.urlsafe_b64encode(token.encode()).decode()}


def _start(token: str, question: dict[str, Any]) -> int:
    try:
        content = json.loads(base64.urlsafe_b64decode(token))
        start, of = int(content["start"]), content["of"]
    except (ValueError, KeyError, TypeError):
        raise invalid("Invalid NextToken.") from None
    if of != question:
        raise invalid("NextToken belongs to another request.")
    return start
