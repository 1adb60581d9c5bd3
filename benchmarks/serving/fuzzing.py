"""Requests made from the server's own OpenAPI description, right ones and wrong ones, by schemathesis."""

import math
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from benchmarks.serving.materials import Materials, Model
from benchmarks.serving.process import HEADERS, Server, body, served
from benchmarks.serving.results import Figure, Found

MEANT = (503, 504, 507)
"""Statuses from 500 on that say what the server is doing, and not that it has failed."""
GROWTH_BAR = 16.0
MIB = 2**20
SLOW = "/v1/images/generations"
"""Its body cannot say in how few steps it is to be drawn."""
_LIMITS = {
    "num_inference_steps": 2,
    "width": 32,
    "height": 32,
    "num_images_per_prompt": 2,
    "n": 2,
}
"""What a right request may ask for at most here: it would draw for minutes otherwise."""


def fuzzed(materials: Materials) -> Found:
    """Send requests to every operation of a server's process, and look at its answers and its memory."""
    model = materials.smallest
    count = materials.number(5000, 20)
    (folder,) = materials.adapters(model, 1)
    sent = Sent()
    with served(materials, model, {"one": folder}) as server, server.client() as client:
        for number in range(materials.number(100, 3)):
            client.post("/invocations", json=body(model, number, "one")).raise_for_status()
        before = server.memory
        description = client.get("/openapi.json").raise_for_status().json()
        operations = operations_of(description)
        total = sum(share(operation) for operation in operations)
        for operation in operations:
            own = count * share(operation) / total
            if operation.body:
                send(operation, GenerationMode.POSITIVE, math.ceil(own / 2), server, sent)
                send(operation, GenerationMode.NEGATIVE, math.ceil(own / 2), server, sent)
            else:
                send(operation, GenerationMode.POSITIVE, max(1, math.ceil(own)), server, sent)
        is_well = client.post("/invocations", json=body(model, 1, "one")).is_success
        grown = (server.memory - before) / MIB
    counts = ", ".join(f"{number} with {status}" for status, number in sorted(sent.statuses.items()))
    return Found(
        figures=(
            Figure(what="answers of 500 and above that are not meant", value=sent.bad, bar=0),
            Figure(what="requests without an answer", value=sent.lost, bar=0),
            Figure(what="right requests that fail afterwards", value=int(not is_well), bar=0),
            Figure(what="growth", value=grown, unit=" MiB", bar=GROWTH_BAR),
        ),
        notes=(
            (
                f"{sum(sent.statuses.values())} requests to {len(operations)} operations: {counts}. Half are made to"
                " fit the description, half not to. Sizes, steps and numbers of images are cut to small"
                " ones."
            ),
            *sent.examples,
        ),
    )


def operations_of(description: dict[str, Any]) -> list[Any]:
    """Return the operations of a description; raises what is wrong with one."""
    found = []
    for result in schemathesis.openapi.from_dict(description).get_all_operations():
        if not isinstance(result, Ok):
            raise result.err()
        found.append(result.ok())
    return found


class Sent:
    """What came back."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.lost = 0
        self.examples: list[str] = []
        """Of what should not be, a few."""

    @property
    def bad(self) -> int:
        """Answers that mean that the server has failed."""
        return sum(number for status, number in self.statuses.items() if status >= 500 and status not in MEANT)  # noqa: PLR2004

    def note(self, case: Any, answer: requests.Response) -> None:
        """Note an answer."""
        self.statuses[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code not in MEANT and len(self.examples) < 3:  # noqa: PLR2004
            self.examples.append(f"{case.method} {case.path} {str(case.body)[:200]!r}: {answer.text[:100]!r}")


def share(operation: Any) -> int:
    """Return how much of all requests an operation gets: those with bodies most, and nothing where nothing varies."""
    if operation.path == SLOW:
        return 2
    if operation.body:
        return 5
    return 1 if operation.path_parameters else 0


def send(operation: Any, mode: GenerationMode, count: int, server: Server, sent: Sent) -> None:
    """Send so many requests to one operation."""
    session = requests.Session()
    session.headers.update(HEADERS)

    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        case.body = harmless(case.body, server.model)
        try:
            answer = case.call(base_url=server.url, session=session, headers=HEADERS, timeout=60)
        except requests.RequestException as error:
            sent.lost += 1
            sent.examples.append(f"{case.method} {case.path}: {error}"[:200])
            return
        sent.note(case, answer.response if hasattr(answer, "response") else answer)

    one()


def harmless(body: Any, model: Model) -> Any:
    """Return a body that is drawn in no time: small numbers where they are right, and few steps where it says none.

    Whatever else is in it stays as it is.
    """
    if not isinstance(body, dict):
        return body
    changed = {}
    for name, value in body.items():
        changed[name] = cut(name, value, model)
    parameters = changed
    if "inputs" in changed:
        parameters = changed.setdefault("parameters", {})
    if isinstance(parameters, dict) and ("inputs" in changed or "num_images_per_prompt" in changed):
        parameters.setdefault("num_inference_steps", _LIMITS["num_inference_steps"])
    return changed


def cut(name: str, value: Any, model: Model) -> Any:
    """Return the value of a field, smaller where it is a right one that takes long."""
    if isinstance(value, dict):
        return {key: cut(key, one, model) for key, one in value.items()}
    if name == "inputs" and isinstance(value, list):
        return value[:2]
    if name == "size" and isinstance(value, str) and "x" in value:
        return f"{model.size}x{model.size}"
    limit = _LIMITS.get(name)
    if limit is not None and isinstance(value, int | float) and not isinstance(value, bool) and value > limit:
        return type(value)(limit)
    return value
