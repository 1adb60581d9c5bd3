"""The server in the container of an endpoint: started from requests, told of an adapter, asked, and ended.

All that goes through SageMaker's own APIs, with the bundle of the server and a model in a bucket.
"""

import base64
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
import tiny
from account import BUCKET, IMAGE, ROLE, open_account
from made_adapters import write_finished

from orchestrator.contract.bundle import BundleKind
from orchestrator.contract.serving import BASE_MODEL_FOLDER, CODE_SOURCE, EVERYWHERE, ORDER_FILE, ServerOrder
from orchestrator.planning.bundle import bundle_tree
from orchestrator.storage.tree import tree_of_folder

SOURCES = Path("/opt/ml/additional-model-data-sources")
ASKED = {"inputs": "a dog", "parameters": {"num_inference_steps": 2, "width": tiny.SIDE, "seed": 1}}


def put(prefix: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """Store files below a prefix of the bucket, and return the data source."""
    s3 = boto3.client("s3")
    for name, path in files.items():
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}{name}", Body=path.read_bytes())
    return {"S3Uri": f"s3://{BUCKET}/{prefix}", "S3DataType": "S3Prefix", "CompressionType": "None"}


def put_archive(key: str, folder: Path) -> str:
    """Store a folder as one archive, and return its URI."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=buffer.getvalue())
    return f"s3://{BUCKET}/{key}"


def create_model(sagemaker: Any, base_folder: Path, model: Path) -> None:
    """Create a model of the server, its base model and an order without adapters."""
    order = ServerOrder(
        base_model="tiny",
        base_folder=Path("..", SOURCES.name, BASE_MODEL_FOLDER),
        root=Path(".."),
        rows=2,
        host=EVERYWHERE,
    )
    model.mkdir()
    (model / ORDER_FILE).write_text(order.model_dump_json())
    sources = []
    for name, tree in (
        (BASE_MODEL_FOLDER, tree_of_folder("models", base_folder)),
        (CODE_SOURCE, bundle_tree(BundleKind.SERVING)),
    ):
        sources.append({"ChannelName": name, "S3DataSource": put(f"{name}/", tree.sources)})
    container = {
        "Image": IMAGE,
        "ModelDataSource": {"S3DataSource": put("model/", tree_of_folder("model", model).sources)},
        "AdditionalModelDataSources": sources,
        "Environment": {"PYTHONPATH": str(SOURCES / CODE_SOURCE), "OMP_NUM_THREADS": "1"},
    }
    sagemaker.create_model(ModelName="model", ExecutionRoleArn=ROLE, PrimaryContainer=container)


def test_an_adapter_component_is_loaded_by_the_server_of_the_bundle_and_drawn_with(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog = write_finished(tmp_path / "dog", base_folder, 1)
    with open_account(monkeypatch) as simulator:
        sagemaker, runtime = boto3.client("sagemaker"), boto3.client("sagemaker-runtime")
        create_model(sagemaker, base_folder, tmp_path / "model")
        variant = {"VariantName": "one", "InstanceType": "ml.g5.xlarge", "InitialInstanceCount": 1}
        sagemaker.create_endpoint_config(
            EndpointConfigName="config", ProductionVariants=[variant], ExecutionRoleArn=ROLE
        )
        sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
        simulator.hosting.run_until("endpoint", "InService")
        sagemaker.create_inference_component(
            InferenceComponentName="base",
            EndpointName="endpoint",
            VariantName="one",
            Specification={"ModelName": "model", "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1024}},
            RuntimeConfig={"CopyCount": 1},
        )
        simulator.hosting.run_until("base", "InService")
        adapter = {"ArtifactUrl": put_archive("adapters/dog.tar.gz", dog)}
        sagemaker.create_inference_component(
            InferenceComponentName="dog",
            EndpointName="endpoint",
            Specification={"BaseInferenceComponentName": "base", "Container": adapter},
        )
        simulator.hosting.run_until("dog", "InService")
        used = {}
        for component in ("base", "dog"):
            answer = runtime.invoke_endpoint(
                EndpointName="endpoint",
                InferenceComponentName=component,
                ContentType="application/json",
                Accept="application/json",
                Body=json.dumps(ASKED),
            )
            drawn = json.loads(answer["Body"].read())
            assert base64.b64decode(drawn["images"][0]["image"]).startswith(b"\x89PNG")
            used[component] = [one["name"] for one in drawn["adapters"]]
        assert used == {"base": [], "dog": ["dog"]}
        server = simulator.hosting.components[simulator.hosting.course("base").resource.arn].server
        for component in ("dog", "base"):
            sagemaker.delete_inference_component(InferenceComponentName=component)
            simulator.hosting.run_until_gone(component)
        assert server is not None
        assert server.exit_status == 0
