"""The tree below /opt/ml and the variables of a container, as the service makes them.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .job import TrainingJob

_GROUP = "homogeneousCluster"
_ML_PATH = re.compile(r"(?<![^:=])/opt/ml(?=[/:]|$)")


def moved(text: str, root: Path) -> str:
    """Return a text with its /opt/ml paths moved to a root: alone, or in a list like PYTHONPATH's."""
    return _ML_PATH.sub(lambda _: str(root), text)


class Layout:
    """An /opt/ml whose root is a folder of this machine."""

    def __init__(self, root: Path, job: TrainingJob, host: str) -> None:
        self.root = root
        self.job = job
        self.host = host
        self.model = root / "model"
        self.output_data = root / "output" / "data"
        board = job.request.get("TensorBoardOutputConfig", {}).get("LocalPath", "/opt/ml/output/tensorboard")
        self.board = root / board.removeprefix("/opt/ml/").strip("/")
        self.failure_file = root / "output" / "failure"
        self.config = root / "input" / "config"
        local = job.request.get("CheckpointConfig", {}).get("LocalPath", "/opt/ml/checkpoints")
        self.checkpoints = root / local.removeprefix("/opt/ml/").strip("/")

    def make(self) -> None:
        """Lay out an empty tree with the configuration files."""
        folders = [self.model, self.output_data, self.config, self.root / "input" / "data", self.root / "tmp"]
        if "CheckpointConfig" in self.job.request:
            folders.append(self.checkpoints)
        for folder in folders:
            folder.mkdir(parents=True)
        self._write("hyperparameters.json", self.job.request.get("HyperParameters", {}))
        self._write("inputdataconfig.json", {one["ChannelName"]: self._channel(one) for one in self.channels()})
        self._write("resourceconfig.json", self._resources())

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def channels(self) -> list[dict[str, Any]]:
        return list(self.job.request.get("InputDataConfig", []))

    def channel_folder(self, name: str) -> Path:
        return self.root / "input" / "data" / name

    def failure(self) -> str:
        """Return what the container left as its reason to fail."""
        try:
            return self.failure_file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def here(self, text: str) -> str:
        """Return a text with its /opt/ml paths moved to the root: alone, or in a list like PYTHONPATH's."""
        return moved(text, self.root)

    def variables(self, *, toolkit: bool) -> dict[str, str]:
        """Return the variables the service sets, the job's own among them."""
        request = self.job.request
        variables = {
            "TRAINING_JOB_NAME": self.job.name,
            "TRAINING_JOB_ARN": self.job.arn,
            "AWS_REGION": self.job.region,
            "AWS_DEFAULT_REGION": self.job.region,
            "CURRENT_HOST": self.host,
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.root / "tmp"),
            "TMPDIR": str(self.root / "tmp"),
        }
        own = {name: self.here(value) for name, value in request.get("Environment", {}).items()}
        return variables | (self._toolkit_variables() if toolkit else {}) | own

    def _toolkit_variables(self) -> dict[str, str]:
        """Return what sagemaker-training, in most of AWS's own images, adds."""
        names = [one["ChannelName"] for one in self.channels()]
        hyperparameters: Mapping[str, str] = self.job.request.get("HyperParameters", {})
        variables = {
            "SM_MODEL_DIR": str(self.model),
            "SM_OUTPUT_DIR": str(self.root / "output"),
            "SM_OUTPUT_DATA_DIR": str(self.output_data),
            "SM_INPUT_DIR": str(self.root / "input"),
            "SM_INPUT_CONFIG_DIR": str(self.config),
            "SM_CHANNELS": json.dumps(sorted(names)),
            "SM_HPS": json.dumps(dict(hyperparameters)),
            "SM_CURRENT_HOST": self.host,
            "SM_HOSTS": json.dumps(self.job.hosts),
            "SM_NETWORK_INTERFACE_NAME": "eth0",
            "SM_NUM_GPUS": "0",
            "SM_NUM_CPUS": str(os.cpu_count() or 1),
            "SM_RESOURCE_CONFIG": json.dumps(self._resources()),
        }
        variables |= {f"SM_CHANNEL_{name.upper()}": str(self.channel_folder(name)) for name in names}
        return variables | {f"SM_HP_{name.upper()}": value for name, value in hyperparameters.items()}

    def _channel(self, channel: dict[str, Any]) -> dict[str, str]:
        source = channel["DataSource"]["S3DataSource"]
        mode = channel.get("InputMode", self.job.request["AlgorithmSpecification"]["TrainingInputMode"])
        entry = {
            "TrainingInputMode": mode,
            "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        return entry | ({"ContentType": channel["ContentType"]} if "ContentType" in channel else {})

    def _resources(self) -> dict[str, Any]:
        instance_type = self.job.request["ResourceConfig"]["InstanceType"]
        hosts = self.job.hosts
        return {
            "current_host": self.host,
            "current_instance_type": instance_type,
            "current_group_name": _GROUP,
            "hosts": hosts,
            "instance_groups": [
                {"instance_group_name": _GROUP, "instance_type": instance_type, "hosts": hosts},
            ],
            "network_interface_name": "eth0",
        }

    def _write(self, name: str, content: Any) -> None:
        (self.config / name).write_text(json.dumps(content), encoding="utf-8")
