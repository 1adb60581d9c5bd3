"""What Service Quotas and IAM say of an account, as far as moto has no answer: quotas, and what somebody may do."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from . import permissions, principals
from .calls import Call
from .errors import ServiceError
from .operations.pages import page
from .policies import Access, allows
from .wire import Answer, failure, parameters_of, success

if TYPE_CHECKING:
    from .simulator import SageMakerSimulator

_PAGE = 20
_XML = {"Content-Type": "text/xml"}


def answer_of_account(simulator: "SageMakerSimulator", call: Call, body: bytes) -> Answer | None:
    """Return the answer to a call that is answered here; None for any other."""
    answer = _ANSWERS.get((call.service, call.operation))
    return None if answer is None else answer(simulator, call, body)


def _list_quotas(simulator: "SageMakerSimulator", call: Call, body: bytes) -> Answer:
    try:
        permissions.check_access(call, Access("servicequotas:ListServiceQuotas"))
        asked = parameters_of(body)
        quotas = []
        for name, value in simulator.quotas.items():
            quotas.append({"ServiceCode": asked["ServiceCode"], "QuotaName": name, "Value": float(value)})
        found, token = page(quotas, asked, default=_PAGE)
    except ServiceError as error:
        return failure(error)
    return success({"Quotas": found, **token})


def _simulate(_simulator: "SageMakerSimulator", call: Call, body: bytes) -> Answer:
    """Answer as IAM does, by the policies of a role or a user; whoever has none may all while nothing is enforced."""
    try:
        permissions.check_access(call, Access("iam:SimulatePrincipalPolicy"))
    except ServiceError as error:
        message = escape(error.message)
        fault = f"<ErrorResponse><Error><Code>AccessDenied</Code><Message>{message}</Message></Error></ErrorResponse>"
        return 403, _XML, fault.encode()
    asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
    action, resource = asked["ActionNames.member.1"], asked["ResourceArns.member.1"]
    context = {
        asked["ContextEntries.member.1.ContextKeyName"]: asked["ContextEntries.member.1.ContextKeyValues.member.1"]
    }
    principal = principals.of_arn(asked["PolicySourceArn"])
    decision = "implicitDeny"
    if principal is None or allows(principal.documents, Access(action, resource, context)):
        decision = "allowed"
    result = f"<EvalActionName>{action}</EvalActionName><EvalDecision>{decision}</EvalDecision>"
    text = (
        '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
        f"<SimulatePrincipalPolicyResult><EvaluationResults><member>{result}</member></EvaluationResults>"
        "</SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
    )
    return 200, _XML, text.encode()


_ANSWERS: dict[tuple[str, str], Callable[["SageMakerSimulator", Call, bytes], Answer]] = {
    ("service-quotas", "ListServiceQuotas"): _list_quotas,
    ("iam", "SimulatePrincipalPolicy"): _simulate,
}
