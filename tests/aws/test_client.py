"""Signing in, the region, and what each failure of AWS means."""

from pathlib import Path
from typing import Any

import botocore.exceptions
import pytest
from moto import mock_aws

from orchestrator import errors
from orchestrator.aws import errors as aws_errors
from orchestrator.aws.client import ATTEMPTS, Aws, calling
from orchestrator.aws.errors import Failure, error_for, find_row
from tests.faults.wire import Wire, broken, response

QUOTA = (
    "The account-level service limit 'ml.g5.xlarge for training job usage' is 0 Instances, with current utilization of "
    "1 Instances and a request delta of 2 Instances."
)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waits: list[float]) -> Path:
    """A machine on which nobody has signed in."""
    config = tmp_path / "config"
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return config


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def test_without_a_region_the_next_command_sets_one() -> None:
    with pytest.raises(errors.CredentialsError, match="no AWS region") as caught:
        Aws().client("s3")
    assert caught.value.next_step.startswith("export AWS_REGION=")


def test_the_region_comes_from_the_caller_then_the_variable_then_the_profile(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write_text("[default]\nregion = eu-north-1\n")
    assert Aws().region == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert Aws().region == "eu-west-3"
    assert Aws("us-west-2").region == "us-west-2"
    assert Aws("us-west-2").client("s3").meta.region_name == "us-west-2"


def test_without_credentials_the_next_command_signs_in() -> None:
    with pytest.raises(errors.CredentialsError, match="no AWS credentials") as caught:
        Aws("eu-west-1").account_id()
    assert "aws configure" in caught.value.next_step


def test_a_profile_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(errors.CredentialsError, match="no-such-profile") as caught:
        Aws("eu-west-1").client("s3")
    assert caught.value.next_step == "aws configure list-profiles"


def test_a_malformed_config_file_is_named(machine: Path) -> None:
    machine.write_text("[default\nregion")
    with pytest.raises(errors.CredentialsError, match="cannot be read"):
        Aws("eu-west-1").client("s3")


def test_half_a_pair_of_keys_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(errors.CredentialsError, match="could not be read"):
        Aws("eu-west-1").account_id()


def test_a_session_of_single_sign_on_that_was_never_begun_says_to_log_in(machine: Path) -> None:
    machine.write_text(
        "[default]\nsso_session = team\nsso_account_id = 123456789012\nsso_role_name = dev\n"
        "[sso-session team]\nsso_region = eu-west-1\nsso_start_url = https://team.awsapps.com/start\n"
    )
    with pytest.raises(errors.CredentialsError) as caught:
        Aws("eu-west-1").account_id()
    assert "aws sso login" in caught.value.next_step


@pytest.mark.parametrize("region", ["no region", "eu_west_1", "https://x"])
def test_a_region_that_cannot_be_one_is_named(region: str) -> None:
    with pytest.raises(errors.CredentialsError, match="region is not valid") as caught:
        Aws(region).client("s3")
    assert "AWS_REGION" in caught.value.next_step


def test_a_region_there_is_not_is_told_from_a_network_there_is_not(signed_in: None) -> None:
    for region, kind in (("us-esat-1", errors.CredentialsError), ("us-east-1", errors.ServiceError)):
        client = Aws(region).client("sts")
        Wire(client).otherwise = unreachable(f"https://sts.{region}.amazonaws.com/")
        with pytest.raises(kind, match="Could not greet"), calling("greet"):
            client.get_caller_identity()


def unreachable(url: str) -> Any:
    def fail(_: object) -> None:
        raise botocore.exceptions.EndpointConnectionError(endpoint_url=url)

    return fail


def test_an_endpoint_that_is_no_address_is_named(signed_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost")
    with pytest.raises(errors.CredentialsError, match="address of the service") as caught:
        Aws("eu-west-1").client("s3")
    assert "AWS_ENDPOINT_URL" in caught.value.next_step


def test_the_account_is_asked_for_once(signed_in: None) -> None:
    with mock_aws():
        aws = Aws("eu-west-1")
        wire = Wire(aws.client("sts"))
        assert [aws.account_id(), aws.account_id()] == ["123456789012", "123456789012"]
        assert wire.sent == ["GetCallerIdentity"]
        assert b"orchestrator/" in wire.requests[0].headers["User-Agent"]


def test_no_setting_of_the_machine_takes_the_retries_away(signed_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_RETRY_MODE", "legacy")
    client = Aws("eu-west-1").client("sts")
    wire = Wire(client)
    wire.otherwise = broken("ReadTimeoutError")
    with pytest.raises(errors.ServiceError), calling("greet"):
        client.get_caller_identity()
    assert len(wire.sent) == ATTEMPTS


# --- the table


def exceptions_of_the_sdk() -> list[str]:
    return [
        name
        for name, kind in vars(botocore.exceptions).items()
        if isinstance(kind, type) and issubclass(kind, botocore.exceptions.BotoCoreError)
    ]


def test_every_exception_the_table_names_is_one_of_the_sdk() -> None:
    names = [name for row in aws_errors.TABLE for name in row.names.split()]
    named = {name for name in names if name.endswith("Error") and hasattr(botocore.exceptions, name)}
    assert (
        {"NoCredentialsError", "ReadTimeoutError", "EndpointConnectionError"} <= named <= set(exceptions_of_the_sdk())
    )


@pytest.mark.parametrize("name", exceptions_of_the_sdk())
def test_every_exception_of_the_sdk_becomes_one_of_ours(name: str) -> None:
    kind = getattr(botocore.exceptions, name)
    error = kind.__new__(kind)
    Exception.__init__(error, "what it says")
    with pytest.raises(errors.OrchestratorError, match="Could not do it") as caught, calling("do it"):
        raise error
    assert caught.value.next_step


def test_no_row_stands_in_the_shadow_of_an_earlier_one() -> None:
    seen: set[tuple[str, str]] = set()
    for row in aws_errors.TABLE:
        for name in row.names.split():
            assert (name, "") not in seen, f"{name} is taken before: {row}"
            seen.add((name, row.pattern + row.service))


def test_a_refusal_nobody_knows_keeps_its_words() -> None:
    error = error_for(Failure(("TeapotException", "400"), "I am short and stout", 400), "brew")
    assert type(error) is errors.AccountError
    assert error.message == "Could not brew: AWS refused. (TeapotException: I am short and stout)"
    assert error.code == "TeapotException"
    assert find_row(Failure(("Unheard", "599"), "", 599)).error is errors.ServiceError


def test_a_quota_error_carries_the_command_that_raises_the_quota() -> None:
    failure = Failure(("ResourceLimitExceeded", "400"), QUOTA, 400, "sagemaker", "CreateTrainingJob", "eu-west-1")
    error = error_for(failure, "submit the job")
    assert '"ml.g5.xlarge for training job usage" is 0' in error.message
    assert (
        "request-service-quota-increase --service-code sagemaker --desired-value 3 --region eu-west-1"
        in error.next_step
    )
    assert "QuotaName==" in error.next_step


def test_a_quota_error_without_a_name_leads_to_the_page() -> None:
    hostile = "service limit 'x'\"; rm -rf ~ #' is 0"
    error = error_for(Failure(("ResourceLimitExceeded", "400"), hostile, 400), "submit the job")
    assert error.next_step == "raise the quota at https://console.aws.amazon.com/servicequotas"


@pytest.mark.parametrize(
    ("code", "message", "kind", "says"),
    [
        (
            "ValidationException",
            "Could not assume role arn:aws:iam::1:role/x.",
            errors.AccessError,
            "may not assume the role",
        ),
        ("ValidationException", "No S3 objects found under S3 URL", errors.MissingError, "does not exist"),
        ("ValidationError", "Stack with id x does not exist", errors.MissingError, "does not exist"),
        ("SignatureDoesNotMatch", "Signature expired: 20260101", errors.CredentialsError, "clock"),
        ("InvalidSignatureException", "Signature not yet current", errors.CredentialsError, "clock"),
        ("SignatureDoesNotMatch", "Check your key", errors.CredentialsError, "does not know"),
        ("AccessDenied", "is not authorized to perform: iam:PassRole on x", errors.AccessError, "iam:PassRole"),
        ("ResourceInUse", "exists", errors.ConflictError, "already"),
        ("ResourceLimitExceeded", "x", errors.QuotaError, "quota"),
        ("PermanentRedirect", "", errors.CredentialsError, "another region"),
        (
            "ValidationException",
            'Cannot create already existing endpoint "arn:aws:sagemaker:eu-west-1:1:endpoint/dogs".',
            errors.ConflictError,
            "already exists",
        ),
        ("ValidationException", 'Cannot update in-progress endpoint "x".', errors.ConflictError, "being changed"),
        ("ValidationException", 'Could not find endpoint "x".', errors.MissingError, "does not exist"),
        ("ObjectNotFoundException", "No scalable target registered", errors.MissingError, "does not exist"),
        (
            "ValidationError",
            "Inference Component has no capacity to process this request.",
            errors.ServiceError,
            "has no instance now",
        ),
        (
            "ModelError",
            'Received client error (422) from primary with message "guidance is too large"',
            errors.EndpointError,
            "does not accept the request",
        ),
        ("ModelError", "Received client error (429) from primary", errors.EndpointError, "too many images waiting"),
        ("ModelError", "Received client error (424) from primary", errors.EndpointError, "cannot use the adapter"),
        ("ModelError", "Received server error (503) from primary", errors.EndpointError, "takes no requests now"),
        (
            "ModelError",
            "Received server error (0) from primary: Your invocation timed out while waiting for a response",
            errors.EndpointError,
            "within a minute",
        ),
        ("ModelError", "Received server error (500) from primary", errors.EndpointError, "the server failed"),
        ("413", "", errors.SpecError, "larger than the service takes"),
        ("ModelNotReadyException", "", errors.ServiceError, "not ready"),
    ],
)
def test_one_code_can_mean_several_things(
    code: str, message: str, kind: type[errors.OrchestratorError], says: str
) -> None:
    error = error_for(Failure((code, "400"), message, 400), "do it")
    assert type(error) is kind
    assert says in error.message


def test_what_is_missing_can_come_with_a_better_command() -> None:
    missing = Failure(("NoSuchEntity", "404"), "", 404)
    assert error_for(missing, "do it", not_found="infra up").next_step == "infra up"
    assert error_for(Failure(("AccessDenied",), ""), "do it", not_found="infra up").next_step != "infra up"


@pytest.mark.parametrize(
    ("operation", "action"),
    [("ListObjectsV2", "s3:ListBucket"), ("UploadPart", "s3:PutObject"), ("GetObject", "s3:GetObject")],
)
def test_a_refusal_without_reasons_names_the_action_that_policies_know(operation: str, action: str) -> None:
    refusal = Failure(("AccessDenied", "403"), "Access Denied", 403, service="s3", operation=operation)
    assert f"or {action} is not allowed" in error_for(refusal, "do it").message


def test_an_error_of_somebody_else_passes() -> None:
    with pytest.raises(ZeroDivisionError), calling("divide"):
        1 / 0  # noqa: B018


def test_a_page_of_somebody_else_is_no_answer_of_aws(signed_in: None) -> None:
    client = Aws("eu-west-1").client("cloudformation")
    wire = Wire(client)
    wire.answer("DescribeStacks", lambda _: response(200, "<html><p>Sign in to the network"))
    with pytest.raises(errors.MachineError, match="does not come from AWS") as caught, calling("see the stack"):
        client.describe_stacks()
    assert "proxy" in caught.value.next_step
