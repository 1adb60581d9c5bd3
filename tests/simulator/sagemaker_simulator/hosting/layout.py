"""The tree below /opt/ml and the variables of a container that serves, as the service makes them.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
"""

import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagemaker_simulator.training.layout import moved
from sagemaker_simulator.training.storage import download, split

SOURCES = "additional-model-data-sources"
ADAPTERS = "adapters"
"""Where the artifacts of adapter components are put; which folder the service takes is not documented."""


class ServingLayout:
    """An /opt/ml whose root is a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = root / "model"

    def make(self) -> None:
        """Lay out an empty tree."""
        for folder in (self.model, self.root / "tmp"):
            folder.mkdir(parents=True)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def fill(self, s3: Any, container: Mapping[str, Any]) -> None:
        """Download a container's model data; raises ClientError, OSError and ValueError."""
        if url := container.get("ModelDataUrl"):
            self._fetch(s3, {"S3Uri": url, "S3DataType": "S3Object", "CompressionType": "Gzip"}, self.model)
        if source := container.get("ModelDataSource"):
            self._fetch(s3, source["S3DataSource"], self.model)
        for source in container.get("AdditionalModelDataSources", []):
            folder = self.root / SOURCES / source["ChannelName"]
            folder.mkdir(parents=True)
            self._fetch(s3, source["S3DataSource"], folder)

    def _fetch(self, s3: Any, source: Mapping[str, Any], folder: Path) -> None:
        if source["S3DataType"] == "S3Prefix":
            download(s3, source["S3Uri"], folder)
            return
        path = self.fetch_file(s3, source["S3Uri"], folder)
        if source["CompressionType"] == "Gzip":
            with tarfile.open(path, "r:gz") as archive:
                archive.extractall(folder, filter="data")
            path.unlink()

    def fetch_file(self, s3: Any, uri: str, folder: Path) -> Path:
        """Download one object under the last part of its key, and return where it lies."""
        bucket, key = split(uri)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / key.rpartition("/")[2]
        with path.open("wb") as file:
            for chunk in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
                file.write(chunk)
        return path

    def variables(self, environment: Mapping[str, str], region: str) -> dict[str, str]:
        """Return the variables the service sets, the model's own among them."""
        variables = {
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.root / "tmp"),
            "TMPDIR": str(self.root / "tmp"),
        }
        return variables | {name: moved(value, self.root) for name, value in environment.items()}
