"""Every AWS operation in use, every fault that matters: the outcome stated in matrix.yaml is what happens."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from orchestrator import errors
from orchestrator.aws.client import Aws, calling
from tests.faults.wire import Answer, Wire, broken

MATRIX = yaml.safe_load(Path(__file__).with_name("matrix.yaml").read_text())


class Cell(NamedTuple):
    service: str
    operation: str
    fault: dict[str, Any]
    outcome: str
    attempts: int
    says: str

    def __str__(self) -> str:
        return f"{self.service}.{self.operation}-{self.fault['name']}"


def cells() -> Iterator[Cell]:
    for kind, services in MATRIX["operations"].items():
        for service, operations in services.items():
            for operation in operations:
                yield from (cell(kind, service, operation, fault) for fault in MATRIX["faults"])


def cell(kind: str, service: str, operation: str, fault: dict[str, Any]) -> Cell:
    special = fault.get("except", {})
    outcome, attempts, *says = special.get(operation) or special.get(service) or fault[kind]
    if not says and operation not in special and outcome != "LostAnswerError":
        says = [fault.get("says", "")]
    return Cell(
        service, operation, fault, outcome, attempts, "".join(says).format(service=service, operation=operation)
    )


class Wires:
    """A wire for each cell; its client has its whole budget of retries."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._unspent: dict[str, Wire] = {}

    def of(self, cell: Cell) -> Wire:
        wire = self._unspent.pop(cell.service, None) or self._new(cell.service)
        if cell.attempts == 1:
            self._unspent[cell.service] = wire
        wire.sent.clear()
        return wire

    def _new(self, service: str) -> Wire:
        self._aws._clients.pop(service, None)
        wire = Wire(self._aws.client(service))
        wire.otherwise = wire.done("Result")  # S3's client asks for the bucket's region after some errors
        return wire


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield Wires(Aws("eu-west-1"))


@pytest.mark.parametrize("cell", list(cells()), ids=str)
def test_the_outcome_is_the_stated_one(cell: Cell, wires: Wires, waits: list[float]) -> None:
    wire = wires.of(cell)
    *answers, last = [answer_of(item, wire, cell) for item in cell.fault["sent"]]
    wire.answer(cell.operation, *answers, forever=last)
    if cell.outcome == "succeeds":
        call(wire.client, cell.operation)
    else:
        with pytest.raises(errors.OrchestratorError) as caught, calling("do it"):
            call(wire.client, cell.operation)
        assert type(caught.value).__name__ == cell.outcome
        assert caught.value.message.startswith("Could not do it: ")
        assert cell.says in caught.value.message
        assert caught.value.next_step
    assert wire.count(cell.operation) == cell.attempts
    assert len(waits) == cell.attempts - 1


def answer_of(item: Any, wire: Wire, cell: Cell) -> Answer:
    if item == "done":
        return wire.done(f"{cell.operation}Result")
    if isinstance(item, str):
        return broken(item)
    status, code, message = item
    return wire.refusal(status, code, message.format(service=cell.service, operation=cell.operation))


def call(client: Any, operation: str) -> Any:
    shape = client.meta.service_model.operation_model(operation).input_shape
    method = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation).lower()
    return getattr(client, method)(**smallest(shape) if shape else {})


def smallest(shape: Any) -> Any:
    """Return the smallest value that the service's model accepts."""
    if shape.type_name == "structure":
        return {name: smallest(shape.members[name]) for name in shape.required_members}
    if shape.type_name == "list":
        return [smallest(shape.member)] * shape.metadata.get("min", 0)
    if shape.type_name == "string":
        return shape.enum[0] if shape.enum else "x" * max(shape.metadata.get("min", 0), 3)
    return {"map": {}, "boolean": True, "timestamp": 0, "blob": b""}.get(shape.type_name, shape.metadata.get("min", 1))
