"""IAM's rules: what policy documents say about one access.

moto compares resources for S3 alone, and knows one operator of conditions. This knows what a policy of a training job
needs, and raises NotImplementedError for the rest rather than guess.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Access:
    """What somebody is about to do."""

    action: str
    """As policies call it: `s3:ListBucket`."""
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)
    """The keys that conditions can ask for, and their values."""


def allows(documents: Iterable[Document], access: Access, principal: str | None = None) -> bool:
    """Return whether a statement allows an access and none denies it; policies of resources name a principal."""
    effects = {one["Effect"] for one in _statements(documents) if _concerns(one, access, principal)}
    return effects == {"Allow"}


def denies(documents: Iterable[Document], access: Access, principal: str | None = None) -> bool:
    """Return whether a statement denies an access."""
    denials = (one for one in _statements(documents) if one["Effect"] == "Deny")
    return any(_concerns(one, access, principal) for one in denials)


def _statements(documents: Iterable[Document]) -> Iterator[dict[str, Any]]:
    for document in documents:
        for statement in _listed(document["Statement"]):
            if statement is not None:  # AWS::NoValue, which CloudFormation leaves out of a list and moto does not
                yield statement


def _concerns(statement: dict[str, Any], access: Access, principal: str | None) -> bool:
    if unknown := {"NotAction", "NotResource", "NotPrincipal"} & statement.keys():
        raise NotImplementedError(f"The simulator does not know {', '.join(unknown)}.")
    return (
        _is_named(statement.get("Principal"), principal)
        and any(_like(pattern.lower(), access.action.lower()) for pattern in _listed(statement["Action"]))
        and any(_like(pattern, access.resource) for pattern in _listed(statement.get("Resource", "*")))
        and all(
            _holds(operator, key, wanted, access)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _is_named(named: Any, principal: str | None) -> bool:
    if named is None or principal is None:
        return named is None and principal is None
    names = [named] if isinstance(named, str) else [name for names in named.values() for name in _listed(names)]
    return "*" in names or principal in names


def _holds(operator: str, key: str, wanted: Any, access: Access) -> bool:
    said = {name.lower(): value for name, value in access.context.items()}.get(key.lower())
    if operator == "Null":
        return str(said is None).lower() == str(wanted).lower()
    if operator not in _OPERATORS:
        raise NotImplementedError(f"The simulator does not know the condition {operator}.")
    return said is not None and any(_OPERATORS[operator](str(one), said) for one in _listed(wanted))


def _like(pattern: str, text: str) -> bool:
    """Compare with the wildcards of policies: `*` for any characters, `?` for one."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, text, re.DOTALL) is not None


def _arn_like(pattern: str, arn: str) -> bool:
    """Compare part by part: no wildcard reaches beyond its colon, but the last."""
    patterns, parts = pattern.split(":", 5), arn.split(":", 5)
    return len(patterns) == len(parts) and all(map(_like, patterns, parts))


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": str.__eq__,
    "StringLike": _like,
    "ArnLike": _arn_like,
    "ArnEquals": _arn_like,
    "Bool": lambda wanted, said: wanted.lower() == said.lower(),
    "NumericLessThan": lambda wanted, said: float(said) < float(wanted),
}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
