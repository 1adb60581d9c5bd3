"""What both transports do with a request: record it, give it its fault, or have it answered."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from .account_answers import answer_of_account
from .calls import Call, RecordedCall
from .errors import ServiceError
from .faults import Fault, Manner
from .hosting import runtime
from .hosting.runtime import Asked
from .wire import Answer, failure, parameters_of, success

if TYPE_CHECKING:
    from .simulator import SageMakerSimulator


class NoAnswerError(Exception):
    """No answer comes; the fault says how."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


def pass_through(
    simulator: "SageMakerSimulator",
    call: Call,
    body: bytes,
    others: Callable[[], Answer | None],
    *,
    has_body: bool = True,
    asked: Asked | None = None,
) -> Answer | None:
    """Return the answer to a request; `others` asks moto. None: nobody here knows it. Raises NoAnswerError.

    `asked` is what the runtime API needs, which has its parameters in path and headers.
    """
    recorded = simulator.requests.add(call, simulator.clock.now())
    fault = simulator.faults.take(call.service, call.operation)
    if fault is not None:
        recorded.fault = fault.name
        if fault.manner is Manner.ANSWER:
            recorded.error = fault.code
            return fault.render(call.service, has_body=has_body)
        if not fault.after_commit:
            raise NoAnswerError(fault)
    if call.service not in {"sagemaker", runtime.SERVICE}:
        answer = answer_of_account(simulator, call, body) or others()
        recorded.committed = answer is not None and answer[0] < 300
    else:
        try:
            answer = _answer(simulator, call, recorded, body, asked)
        except Exception as error:  # ours; boto3 may try again and get by, `close` must not
            simulator.errors.append(error)
            raise
    if fault is not None:
        raise NoAnswerError(fault)
    return answer


def _answer(
    simulator: "SageMakerSimulator", call: Call, recorded: RecordedCall, body: bytes, asked: Asked | None
) -> Answer:
    try:
        if call.service == runtime.SERVICE and asked is not None:
            call.parameters.update(runtime.parameters_of(call.operation, asked))
            return simulator.invoke(call, asked, recorded)
        call.parameters.update(parameters_of(body))
        return success(simulator.answer(call, recorded))
    except ServiceError as error:
        recorded.error = error.code
        return failure(error) if call.service == "sagemaker" else runtime.failure(error)
