"""Faults of the wire in both transports, and one URL for SageMaker and all that moto serves."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from account import BUCKET, REGION, furnish, training_request, use_default_session
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, HTTPClientError, ReadTimeoutError
from sagemaker_simulator import (
    FailIn,
    Fault,
    SageMakerSimulator,
    SimulatorError,
    SimulatorServer,
    WallClock,
    access_denied,
    capacity_shortage,
    clock_skew,
    connection_reset,
    expired_token,
    in_process,
    internal_error,
    lost_answer,
    read_timeout,
    throttling,
    unavailable,
)
from sagemaker_simulator.faults import FaultPlan

Client = Callable[[str], Any]
ONCE = Config(retries={"total_max_attempts": 1})
IMPATIENT = Config(retries={"total_max_attempts": 1}, read_timeout=0.5)
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": REGION,
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorServer]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with SimulatorServer(SageMakerSimulator(WallClock())) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        use_default_session()
        furnish()
        yield running


@pytest.fixture(params=["in process", "over http"])
def simulated(request: pytest.FixtureRequest) -> SageMakerSimulator:
    """Return a simulator behind either transport."""
    if request.param == "in process":
        made: SageMakerSimulator = request.getfixturevalue("simulator")
        return made
    running: SimulatorServer = request.getfixturevalue("server")
    return running.simulator


@pytest.mark.parametrize(
    ("fault", "code", "s3_code"),
    [
        (throttling(), "ThrottlingException", "SlowDown"),
        (internal_error(), "InternalFailure", "InternalError"),
        (unavailable(), "ServiceUnavailable", "ServiceUnavailable"),
        (expired_token(), "ExpiredTokenException", "ExpiredToken"),
        (clock_skew(), "InvalidSignatureException", "RequestTimeTooSkewed"),
        (access_denied("sagemaker:CreateTrainingJob"), "AccessDeniedException", "AccessDenied"),
    ],
)
def test_a_fault_that_is_an_answer_comes_in_the_words_of_the_service(
    simulated: SageMakerSimulator, fault: Fault, code: str, s3_code: str
) -> None:
    request = training_request()
    for service, operation in (("sagemaker", "CreateTrainingJob"), ("s3", "PutObject"), ("cloudwatch-logs", "*")):
        simulated.faults.add(fault, operation, service=service)
    with pytest.raises(ClientError) as sagemaker:
        boto3.client("sagemaker", config=ONCE).create_training_job(**request)
    with pytest.raises(ClientError) as s3:
        boto3.client("s3", config=ONCE).put_object(Bucket=BUCKET, Key="never", Body=b"")
    with pytest.raises(ClientError) as logs:
        boto3.client("logs", config=ONCE).describe_log_groups()
    codes = [error.value.response["Error"]["Code"] for error in (sagemaker, s3, logs)]
    assert codes == [code, s3_code, code]
    assert simulated.faults.left() == 0
    assert boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []
    assert "Contents" not in boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="never")


def test_sts_speaks_its_own_protocol(simulated: SageMakerSimulator) -> None:
    simulated.faults.add(expired_token(), "GetCallerIdentity", service="sts")
    with pytest.raises(ClientError, match="ExpiredTokenException"):
        boto3.client("sts", config=ONCE).get_caller_identity()
    assert boto3.client("sts").get_caller_identity()["Account"] == "123456789012"


def test_head_requests_have_no_body_to_explain_themselves(simulated: SageMakerSimulator) -> None:
    simulated.faults.add(access_denied("s3:GetObject"), "HeadObject", service="s3")
    with pytest.raises(ClientError) as error:
        boto3.client("s3", config=ONCE).head_object(Bucket=BUCKET, Key="data/one.txt")
    assert error.value.response["Error"]["Code"] == "403"


@pytest.mark.parametrize(
    ("fault", "error", "jobs"),
    [
        (connection_reset(), ConnectionClosedError, 0),
        (lost_answer(), ConnectionClosedError, 1),
        (read_timeout(), ReadTimeoutError, 0),
        (read_timeout(after_commit=True), ReadTimeoutError, 1),
    ],
)
def test_no_answer_says_nothing_about_the_job(
    simulated: SageMakerSimulator, fault: Fault, error: type[HTTPClientError], jobs: int
) -> None:
    simulated.faults.add(fault, "CreateTrainingJob")
    config = IMPATIENT if error is ReadTimeoutError else ONCE
    with pytest.raises(error):
        boto3.client("sagemaker", config=config).create_training_job(**training_request())
    # A client that gave up does not know whether its request is still on its way.
    simulated.wait_for(lambda: [one.fault for one in simulated.requests.of("CreateTrainingJob")] == [fault.name])
    simulated.wait_for(lambda: simulated.requests.of("CreateTrainingJob")[0].committed == bool(jobs))
    assert len(boto3.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]) == jobs


def test_the_sdk_retry_after_a_lost_answer_meets_its_own_job(simulated: SageMakerSimulator) -> None:
    simulated.faults.add(lost_answer(), "CreateTrainingJob")
    with pytest.raises(ClientError, match="ResourceInUse"):
        boto3.client("sagemaker").create_training_job(**training_request())
    assert simulated.requests.count("CreateTrainingJob") == 2


def test_a_lost_answer_of_s3_leaves_the_object(simulated: SageMakerSimulator) -> None:
    simulated.faults.add(lost_answer(), "PutObject", service="s3")
    with pytest.raises(ConnectionClosedError):
        boto3.client("s3", config=ONCE).put_object(Bucket=BUCKET, Key="kept", Body=b"kept")
    assert boto3.client("s3").get_object(Bucket=BUCKET, Key="kept")["Body"].read() == b"kept"


def test_faults_can_wait_and_repeat(simulated: SageMakerSimulator) -> None:
    simulated.faults.add(throttling(), "ListTrainingJobs", times=2, skip=1)
    client = boto3.client("sagemaker", config=ONCE)
    outcomes = []
    for _ in range(4):
        try:
            client.list_training_jobs()
            outcomes.append("well")
        except ClientError as error:
            outcomes.append(error.response["Error"]["Code"])
    assert outcomes == ["well", "ThrottlingException", "ThrottlingException", "well"]


def test_one_url_serves_a_job_from_data_to_result(server: SimulatorServer) -> None:
    script = """
    import shutil
    shutil.copy(root / "input" / "data" / "training" / "one.txt", root / "model" / "weights")
    say(os.environ["AWS_ENDPOINT_URL"])
    """
    boto3.client("sagemaker").create_training_job(**training_request(script))
    server.simulator.wait_for_status("job", "Completed", "Failed")
    assert boto3.client("sagemaker").describe_training_job(TrainingJobName="job")["TrainingJobStatus"] == "Completed"
    weights = boto3.client("s3").get_object(Bucket=BUCKET, Key="out/job/output/model/weights")
    assert weights["Body"].read() == b"1"
    logs = boto3.client("logs").filter_log_events(logGroupName="/aws/sagemaker/TrainingJobs")["events"]
    assert [event["message"] for event in logs] == [server.url]
    assert server.simulator.requests.count("FilterLogEvents", service="cloudwatch-logs") == 1


def test_a_client_in_another_process_sees_the_same_account(server: SimulatorServer) -> None:
    boto3.client("sagemaker").create_training_job(**training_request("block()"))
    server.simulator.wait_for_line("job", "blocked")
    script = """
import boto3
client = boto3.client("sagemaker")
print(client.describe_training_job(TrainingJobName="job")["SecondaryStatus"])
client.stop_training_job(TrainingJobName="job")
print(boto3.client("s3").list_buckets()["Buckets"][0]["Name"])
"""
    variables = {**CREDENTIALS, "AWS_ENDPOINT_URL": server.url, "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["Training", BUCKET]
    server.simulator.wait_for_status("job", "Stopped")


def test_the_server_listens_on_this_machine_only(server: SimulatorServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")


def test_sessions_made_by_the_code_under_test_are_answered_too(aws: None) -> None:
    with SageMakerSimulator() as simulator, in_process(simulator):
        assert boto3.session.Session().client("sagemaker").list_training_jobs()["TrainingJobSummaries"] == []
        assert simulator.requests.count("ListTrainingJobs") == 1


def test_a_fault_that_cannot_happen_is_refused_and_one_that_did_not_is_told() -> None:
    plan = FaultPlan()
    with pytest.raises(ValueError, match="cloudwatch-logs"):
        plan.add(throttling(), "GetLogEvents", service="logs")
    with pytest.raises(ValueError, match="no operation"):
        plan.add(throttling(), "GetLogLines", service="cloudwatch-logs")
    plan.add(throttling(), "GetLogEvents", service="cloudwatch-logs", times=2)
    plan.add(expired_token(), "*", service="s3", times=None)
    plan.take("cloudwatch-logs", "GetLogEvents")
    with pytest.raises(AssertionError, match=r"GetLogEvents, 1 times; .+ of s3"):
        plan.require_used()
    plan.take("cloudwatch-logs", "GetLogEvents")
    plan.take("s3", "PutObject")
    plan.require_used()


@pytest.mark.parametrize(
    "plan",
    [
        lambda simulator: simulator.faults.add(throttling(), "ListTrainingJobs"),
        lambda simulator: simulator.inject(capacity_shortage()),
        lambda simulator: simulator.inject(capacity_shortage(), "another"),
        lambda simulator: simulator.inject(FailIn("Uploading", "no")),
    ],
    ids=["of a request", "of a job", "of a job that is not made", "of a stage that is not reached"],
)
def test_a_simulator_that_is_left_with_a_fault_still_planned_fails_its_test(
    aws: None, plan: Callable[[SageMakerSimulator], None]
) -> None:
    simulator = SageMakerSimulator()
    with pytest.raises(AssertionError, match="Planned faults did not"), simulator, in_process(simulator):
        furnish()
        plan(simulator)
        if simulator._job_faults and isinstance(simulator._job_faults[0][1], FailIn):
            boto3.client("sagemaker").create_training_job(**training_request())


def test_closing_ends_what_still_runs(aws: None) -> None:
    with SageMakerSimulator() as simulator, in_process(simulator):
        furnish()
        boto3.client("sagemaker").create_training_job(**training_request("say(os.getpid()); block()"))
        simulator.run_until("job", "Training")
        simulator.wait_for_line("job", "blocked")
    with pytest.raises(ProcessLookupError):
        os.kill(int(simulator.log_lines("job")[0]), 0)


def test_what_breaks_inside_is_not_kept_quiet(aws: None) -> None:
    simulator = SageMakerSimulator()
    simulator.guarded(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(SimulatorError, match="division by zero"):
        simulator.close()
