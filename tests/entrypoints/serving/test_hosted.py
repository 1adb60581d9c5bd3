"""The server in a container of an endpoint: started from a request, reached through the runtime API, ended by it."""

import base64
import json
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


def put(prefix: str, files: Mapping[str, Path]) -> dict[str, Any]:
    """Store files below a prefix of the bucket, and return the data source."""
    s3 = boto3.client("s3")
    for name, path in files.items():
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}{name}", Body=path.read_bytes())
    return {"S3Uri": f"s3://{BUCKET}/{prefix}", "S3DataType": "S3Prefix", "CompressionType": "None"}


def test_an_endpoint_starts_the_server_of_the_bundle_and_draws_with_an_adapter(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ServerOrder(
        base_model="tiny",
        base_folder=Path("..", "additional-model-data-sources", BASE_MODEL_FOLDER),
        adapters={"dog": Path("adapters", "dog")},
        root=Path("adapters"),
        host=EVERYWHERE,
    )
    model = tmp_path / "model"
    (model / "adapters").mkdir(parents=True)
    write_finished(model / "adapters" / "dog", base_folder, 1)
    (model / ORDER_FILE).write_text(order.model_dump_json())
    with open_account(monkeypatch) as simulator:
        sources = []
        for name, tree in (
            (BASE_MODEL_FOLDER, tree_of_folder("models", base_folder)),
            (CODE_SOURCE, bundle_tree(BundleKind.SERVING)),
        ):
            sources.append({"ChannelName": name, "S3DataSource": put(f"{name}/", tree.sources)})
        code = f"/opt/ml/additional-model-data-sources/{CODE_SOURCE}"
        sagemaker = boto3.client("sagemaker")
        sagemaker.create_model(
            ModelName="model",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": IMAGE,
                "ModelDataSource": {"S3DataSource": put("model/", tree_of_folder("model", model).sources)},
                "AdditionalModelDataSources": sources,
                "Environment": {"PYTHONPATH": code, "OMP_NUM_THREADS": "1"},
            },
        )
        variant = {
            "VariantName": "one",
            "ModelName": "model",
            "InstanceType": "ml.g5.xlarge",
            "InitialInstanceCount": 1,
        }
        sagemaker.create_endpoint_config(EndpointConfigName="config", ProductionVariants=[variant])
        sagemaker.create_endpoint(EndpointName="endpoint", EndpointConfigName="config")
        simulator.hosting.run_until("endpoint", "InService")
        answer = boto3.client("sagemaker-runtime").invoke_endpoint(
            EndpointName="endpoint", ContentType="application/json", Accept="application/json", Body=json.dumps(asked())
        )
        drawn = json.loads(answer["Body"].read())
        assert base64.b64decode(drawn["images"][0]["image"]).startswith(b"\x89PNG")
        assert [one["name"] for one in drawn["adapters"]] == ["dog"]
        server = simulator.hosting.server("endpoint")
        sagemaker.delete_endpoint(EndpointName="endpoint")
        simulator.hosting.run_until_gone("endpoint")
        assert server.exit_status == 0


def asked() -> dict[str, Any]:
    parameters = {"num_inference_steps": 2, "width": tiny.SIDE, "seed": 1}
    return {"inputs": "a dog", "parameters": parameters, "adapters": [{"name": "dog"}]}
