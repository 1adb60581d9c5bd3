"""What a job's container finds, and what becomes of what it leaves."""

import io
import json
import tarfile
from typing import Any

import boto3
from account import BUCKET, REGION, channel, training_request
from sagemaker_simulator import Image, SageMakerSimulator

GROUP = "/aws/sagemaker/TrainingJobs"


def body(s3: Any, key: str) -> bytes:
    content: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return content


def keys(s3: Any, prefix: str) -> set[str]:
    return {one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])}


def run(simulator: SageMakerSimulator, sagemaker: Any, request: dict[str, Any]) -> dict[str, Any]:
    sagemaker.create_training_job(**request)
    simulator.run_to_end(request["TrainingJobName"])
    description: dict[str, Any] = sagemaker.describe_training_job(TrainingJobName=request["TrainingJobName"])
    return description


def test_model_and_output_data_end_in_s3_uncompressed(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    script = """
    (root / "model" / "sub").mkdir()
    (root / "model" / "sub" / "weights").write_bytes((root / "input/data/training/deep/two.txt").read_bytes())
    (root / "output" / "data" / "sheet.png").write_bytes(b"sheet")
    """
    description = run(simulator, sagemaker, training_request(script))
    assert description["TrainingJobStatus"] == "Completed"
    assert description["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/out/job/output/model/"
    assert body(s3, "out/job/output/model/sub/weights") == b"2"
    assert body(s3, "out/job/output/data/sheet.png") == b"sheet"


def test_output_is_an_archive_unless_asked_otherwise(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    script = "(root / 'model' / 'weights').write_bytes(b'w')"
    output = {"S3OutputPath": f"s3://{BUCKET}/out"}
    description = run(simulator, sagemaker, training_request(script, OutputDataConfig=output))
    assert description["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/out/job/output/model.tar.gz"
    with tarfile.open(fileobj=io.BytesIO(body(s3, "out/job/output/model.tar.gz"))) as archive:
        assert archive.getnames() == ["weights"]


def test_the_output_is_encrypted_with_the_key_asked_for(simulator: SageMakerSimulator, sagemaker: Any, s3: Any) -> None:
    key = boto3.client("kms").create_key()["KeyMetadata"]["Arn"]
    output = {"S3OutputPath": f"s3://{BUCKET}/out", "CompressionType": "NONE", "KmsKeyId": key}
    run(simulator, sagemaker, training_request("(root / 'model' / 'w').touch()", OutputDataConfig=output))
    assert s3.head_object(Bucket=BUCKET, Key="out/job/output/model/w")["SSEKMSKeyId"] == key


def test_the_container_finds_what_the_service_lays_out(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    script = """
    for name in ("hyperparameters", "inputdataconfig", "resourceconfig"):
        say((root / "input" / "config" / f"{name}.json").read_text())
    say(json.dumps({name: os.environ.get(name) for name in ("TRAINING_JOB_NAME", "TRAINING_JOB_ARN", "AWS_REGION",
        "SM_MODEL_DIR", "SM_HP_RECIPE", "MINE", "BAKED", "AWS_SESSION_TOKEN")}))
    say(json.dumps([os.environ["ORCHESTRATOR_ML_ROOT"], os.environ["PYTHONPATH"], sys.argv[1:], dict(os.environ)]))
    """
    simulator.images = {"123456789012.dkr.ecr.eu-west-1.amazonaws.com/training:1": Image(environment={"BAKED": "in"})}
    request = training_request(script)
    request["AlgorithmSpecification"]["ContainerArguments"] = ["--out", "/opt/ml/model"]
    request["Environment"] |= {"MINE": "yes"}
    arn = run(simulator, sagemaker, request)["TrainingJobArn"]
    hyperparameters, inputs, resources, variables, rest = map(json.loads, simulator.log_lines("job"))
    assert hyperparameters == {"recipe": '"dreambooth"'}
    assert inputs["training"] == {
        "TrainingInputMode": "File",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }
    assert resources["current_host"] == "algo-1"
    assert resources["hosts"] == ["algo-1"]
    assert resources["current_instance_type"] == "ml.g5.xlarge"
    root, path, arguments, everything = rest
    assert path == f"{root}/input/data/code"
    assert arguments == ["--out", f"{root}/model"]
    assert variables | {"AWS_SESSION_TOKEN": None} == {
        "TRAINING_JOB_NAME": "job",
        "TRAINING_JOB_ARN": arn,
        "AWS_REGION": REGION,
        "SM_MODEL_DIR": f"{root}/model",
        "SM_HP_RECIPE": '"dreambooth"',
        "MINE": "yes",
        "BAKED": "in",
        "AWS_SESSION_TOKEN": None,
    }
    assert variables["AWS_SESSION_TOKEN"]
    assert "VIRTUAL_ENV" not in everything


def test_an_isolated_container_has_no_credentials(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    script = "say([name for name in os.environ if name.startswith('AWS_ACC')])"
    run(simulator, sagemaker, training_request(script, EnableNetworkIsolation=True))
    assert simulator.log_lines("job") == ["[]"]


def test_a_channel_has_every_key_that_begins_with_its_prefix(
    simulator: SageMakerSimulator, sagemaker: Any, s3: Any
) -> None:
    for key in ("pets/dog/a.png", "pets/dog2/b.png", "pets/dogs.txt", "pets/cat/c.png"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
    script = """
    for name in ("folder", "name", "object"):
        folder = root / "input" / "data" / name
        say(*sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
    """
    request = training_request(script)
    request["InputDataConfig"] += [
        channel("folder", "pets/dog/"),
        channel("name", "pets/dog"),
        channel("object", "pets/dogs.txt"),
    ]
    run(simulator, sagemaker, request)
    assert simulator.log_lines("job") == ["a.png", "a.png dog2/b.png dogs.txt", "dogs.txt"]


def test_every_line_reaches_cloudwatch_in_order(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    script = "say('one'); print('two', file=sys.stderr, flush=True); say(); print('no end', end='')"
    run(simulator, sagemaker, training_request(script))
    logs = boto3.client("logs")
    streams = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix="job/")["logStreams"]
    assert [stream["logStreamName"].rpartition("-")[0] for stream in streams] == ["job/algo-1"]
    stream = streams[0]["logStreamName"]
    events = logs.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True)["events"]
    assert [event["message"] for event in events] == ["one", "two", " ", "no end"]


def test_metrics_are_read_from_the_log(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    request = training_request("say('loss=0.5'); say('loss=0.25'); say('loss=nan')")
    request["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": r"loss=(\S+)"}]
    metrics = run(simulator, sagemaker, request)["FinalMetricDataList"]
    assert [(metric["MetricName"], metric["Value"]) for metric in metrics] == [("loss", 0.25)]


def test_the_failure_file_and_the_exit_code_are_the_reason(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    script = "(root / 'output' / 'failure').write_text('The loss is NaN.'); sys.exit(3)"
    description = run(simulator, sagemaker, training_request(script))
    assert description["TrainingJobStatus"] == description["SecondaryStatus"] == "Failed"
    assert description["FailureReason"] == "AlgorithmError: The loss is NaN., exit code: 3"


def test_a_long_reason_is_cut(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    script = "(root / 'output' / 'failure').write_text('x' * 5000); sys.exit(1)"
    assert len(run(simulator, sagemaker, training_request(script))["FailureReason"]) == 1024


def test_a_killed_container_ends_with_137_and_takes_its_children_along(
    simulator: SageMakerSimulator, sagemaker: Any
) -> None:
    script = """
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    say(child.pid)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    description = run(simulator, sagemaker, training_request(script))
    assert description["FailureReason"] == "AlgorithmError: , exit code: 137"
    child = simulator.log_lines("job")[0]
    simulator.wait_for(lambda: not is_alive(child))


def is_alive(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 - gone between two looks
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_checkpoints_are_restored_and_changes_and_deletions_follow(
    simulator: SageMakerSimulator, sagemaker: Any, s3: Any
) -> None:
    s3.put_object(Bucket=BUCKET, Key="checkpoints/run/deep/old", Body=b"old")
    s3.put_object(Bucket=BUCKET, Key="checkpoints/run/kept", Body=b"kept")
    script = """
    folder = root / "checkpoints"
    say((folder / "deep" / "old").read_text())
    (folder / "deep" / "old").unlink()
    (folder / "kept").write_text("changed")
    (folder / "new").write_text("new")
    """
    config = {"S3Uri": f"s3://{BUCKET}/checkpoints/run", "LocalPath": "/opt/ml/checkpoints"}
    run(simulator, sagemaker, training_request(script, CheckpointConfig=config))
    assert simulator.log_lines("job") == ["old"]
    assert keys(s3, "checkpoints/") == {"checkpoints/run/kept", "checkpoints/run/new"}
    assert body(s3, "checkpoints/run/kept") == b"changed"


def test_checkpoints_are_copied_while_the_container_works(
    simulator: SageMakerSimulator, sagemaker: Any, s3: Any
) -> None:
    config = {"S3Uri": f"s3://{BUCKET}/checkpoints/run"}
    sagemaker.create_training_job(**training_request("checkpoint(5); block()", CheckpointConfig=config))
    simulator.run_until("job", "Training")
    simulator.wait_for(lambda: keys(s3, "checkpoints/run/") == {"checkpoints/run/step-5"})
    assert simulator.job("job").secondary == "Training"


def test_nothing_of_a_job_is_left_on_this_machine(simulator: SageMakerSimulator, sagemaker: Any) -> None:
    run(simulator, sagemaker, training_request())
    assert list(simulator.folder.iterdir()) == []
