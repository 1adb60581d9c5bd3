"""Requests made of a server's own OpenAPI, valid and invalid ones, and the answers that it should not have given."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

MEANT = (503, 504, 507)
"""Statuses of the server that are no faults: it loads or ends, is late, or has no room."""


def fuzz(app: Any, examples: int, random_seed: int = 0) -> tuple[int, Sequence[str]]:
    """Send about `examples` requests to each operation; return how many there were, and each wrong answer."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    calls = 0
    wrong: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in GenerationMode:

            @seed(random_seed)
            @settings(
                max_examples=max(1, examples // 2),
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def call(case: Any) -> None:
                nonlocal calls
                calls += 1
                answer = case.call()
                if answer.status_code >= 500 and answer.status_code not in MEANT:
                    wrong.append(f"{answer.status_code} to {case.as_curl_command()}")

            with suppress(Unsatisfiable):  # nothing about an operation without parameters can be invalid
                call()
    return calls, wrong
