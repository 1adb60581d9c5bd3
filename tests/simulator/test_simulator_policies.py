"""What policy documents say, by IAM's rules."""

from typing import Any

import pytest
from sagemaker_simulator.policies import Access, allows, denies

BUCKET = "arn:aws:s3:::bucket"
JOBS = "arn:aws:sagemaker:eu-west-1:123456789012:*"


def policy(effect: str = "Allow", action: Any = "s3:GetObject", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]}


@pytest.mark.parametrize(
    ("document", "is_allowed"),
    [
        (policy(), True),
        (policy(action=["s3:PutObject", "S3:get*"]), True),
        (policy(action="s3:GetObjectTagging"), False),
        (policy(resource=f"{BUCKET}/data/*"), True),
        (policy(resource=f"{BUCKET}/data/?"), True),
        (policy(resource=f"{BUCKET}/data"), False),
        (policy(resource=BUCKET), False),
        (policy("Deny"), False),
        ({"Statement": policy()["Statement"] + policy("Deny", resource=f"{BUCKET}/data/*")["Statement"]}, False),
        ({"Statement": policy()["Statement"] + policy("Deny", resource=f"{BUCKET}/code/*")["Statement"]}, True),
    ],
    ids=str,
)
def test_actions_and_resources_count_and_a_denial_wins(document: dict[str, Any], is_allowed: bool) -> None:
    access = Access("s3:GetObject", f"{BUCKET}/data/x")
    assert allows([document], access) is is_allowed


@pytest.mark.parametrize(
    ("condition", "is_allowed"),
    [
        ({"StringEquals": {"s3:prefix": "data/"}}, True),
        ({"StringEquals": {"S3:Prefix": ["code/", "data/"]}}, True),
        ({"StringEquals": {"s3:prefix": "data/*"}}, False),
        ({"StringLike": {"s3:prefix": ["code/*", "data/*"]}}, True),
        ({"StringLike": {"s3:delimiter": "*"}}, False),
        ({"StringLike": {"s3:prefix": "data/*"}, "Bool": {"aws:SecureTransport": "false"}}, False),
        ({"Bool": {"aws:SecureTransport": True}}, True),
        ({"NumericLessThan": {"s3:TlsVersion": "1.2"}}, False),
        ({"NumericLessThan": {"s3:TlsVersion": 1.4}}, True),
        ({"ArnLike": {"aws:SourceArn": JOBS}}, True),
        ({"ArnLike": {"aws:SourceArn": "arn:aws:*:123456789012:*"}}, False),
    ],
    ids=str,
)
def test_every_condition_has_to_hold(condition: dict[str, Any], is_allowed: bool) -> None:
    context = {
        "s3:prefix": "data/",
        "aws:SecureTransport": "true",
        "s3:TlsVersion": "1.3",
        "aws:SourceArn": JOBS.replace("*", "training-job/x"),
    }
    assert allows([policy(Condition=condition)], Access("s3:GetObject", BUCKET, context)) is is_allowed


def test_a_policy_of_a_resource_is_for_whom_it_names() -> None:
    document = policy("Deny", Principal={"AWS": ["arn:aws:iam::123456789012:role/one"]})
    access = Access("s3:GetObject", BUCKET)
    assert denies([document], access, "arn:aws:iam::123456789012:role/one")
    assert not denies([document], access, "arn:aws:iam::123456789012:role/two")
    assert denies([policy("Deny", Principal="*")], access, "arn:aws:iam::123456789012:role/two")


@pytest.mark.parametrize(
    "document", [policy(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}), policy(NotAction="s3:*")], ids=str
)
def test_what_is_not_known_is_not_guessed(document: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError):
        allows([document], Access("s3:GetObject", BUCKET))
