"""The names of what is created for an endpoint: the same deployment, the same names.

A second attempt at a deployment, on any machine, therefore meets what the first has left instead of making it twice.
"""

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

VARIANT = "AllTraffic"
"""The one variant of each endpoint."""
LONGEST = 63
"""Characters of a name in SageMaker."""
_DIGITS = 10
_NO_NAME_CHARACTERS = re.compile(r"[^a-zA-Z0-9]+")
_HASHED = re.compile(rf".+-[0-9a-f]{{{_DIGITS}}}")
_ALARM_PREFIX = "orchestrator-endpoint-"


def hash_of(value: Mapping[str, Any] | str) -> str:
    """Return the sha256 of a value as JSON."""
    text = json.dumps(value, sort_keys=True)
    return sha256(text.encode()).hexdigest()


def hashed_name(endpoint: str, sha256: str) -> str:
    """Return the name of a model or a configuration of an endpoint, which ends with digits of its hash."""
    return f"{name_part(endpoint)}-{sha256[:_DIGITS]}"


def name_part(endpoint: str) -> str:
    """Return what the names of an endpoint's models and configurations begin with."""
    return _shortened(endpoint, LONGEST - _DIGITS - 1)


def is_hashed(name: str) -> bool:
    """Return whether a name may be one that `hashed_name` has made."""
    return _HASHED.fullmatch(name) is not None


def base_component(endpoint: str) -> str:
    """Return the name of the inference component of an endpoint's base model."""
    return f"{_shortened(endpoint, LONGEST - _DIGITS - 6)}-base-{hash_of(endpoint)[:_DIGITS]}"


def adapter_prefix(endpoint: str, adapter: str) -> str:
    """Return what the names of an adapter's components begin with: one for each content that the adapter has had."""
    words = _NO_NAME_CHARACTERS.sub("-", adapter).strip("-") or "adapter"
    digits = hash_of(f"{endpoint}/{adapter}")[:_DIGITS]
    return f"{_shortened(words, LONGEST - 2 * _DIGITS - 2)}-{digits}"


def adapter_component(
    endpoint: str,
    adapter: str,
    sha256: str,
) -> str:
    """Return the name of the component of an adapter with that content."""
    return f"{adapter_prefix(endpoint, adapter)}-{sha256[:_DIGITS]}"


def error_alarm(endpoint: str) -> str:
    """Return the name of the alarm that undoes an update whose server fails."""
    return f"{_ALARM_PREFIX}errors-{endpoint}"


def wake_alarm(endpoint: str) -> str:
    """Return the name of the alarm that starts an instance when there is none."""
    return f"{_ALARM_PREFIX}wake-{endpoint}"


def alarms_of(endpoint: str) -> tuple[str, ...]:
    """Return the names of all alarms that an endpoint may have."""
    return error_alarm(endpoint), wake_alarm(endpoint)


def endpoint_of_alarm(name: str) -> str | None:
    """Return the endpoint that an alarm is for; None for an alarm of another kind."""
    for kind in ("errors-", "wake-"):
        if name.startswith(f"{_ALARM_PREFIX}{kind}"):
            return name.removeprefix(f"{_ALARM_PREFIX}{kind}")
    return None


ALARMS = _ALARM_PREFIX
"""What the names of all alarms of endpoints begin with."""


def _shortened(name: str, longest: int) -> str:
    return name[:longest].rstrip("-")
