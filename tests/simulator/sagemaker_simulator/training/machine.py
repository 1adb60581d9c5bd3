"""One machine of an attempt: a fresh /opt/ml, filled from S3, and a container in it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from .checkpoints import CheckpointSync
from .container import Container, Image
from .job import TrainingJob
from .layout import Layout
from .log_stream import LogStream
from .storage import Upload, described, download

if TYPE_CHECKING:
    from sagemaker_simulator.simulator import SageMakerSimulator


class JobFailedError(Exception):
    """The attempt ends here; the message is the FailureReason."""


class Machine:
    """What lies on one instance of a job, and is gone when it is."""

    def __init__(self, simulator: "SageMakerSimulator", job: TrainingJob, host: str) -> None:
        self.simulator = simulator
        self.job = job
        self.host = host
        # A short path: Python's own tools open sockets below TMPDIR, whose names have 107 characters at most.
        self.layout = Layout(Path(tempfile.mkdtemp(prefix="", dir=simulator.folder)), job, host)
        self.container: Container | None = None
        self._sync: CheckpointSync | None = None
        self._kms_key = job.request["OutputDataConfig"].get("KmsKeyId") or None

    def fill(self) -> None:
        """Lay out /opt/ml and download channels and checkpoints."""
        self.layout.make()
        s3 = self.simulator.client_for(self.job, "s3")
        try:
            for channel in self.layout.channels():
                folder = self.layout.channel_folder(channel["ChannelName"])
                folder.mkdir()
                download(s3, channel["DataSource"]["S3DataSource"]["S3Uri"], folder)
            self._restore_checkpoints()
        except (ClientError, OSError, ValueError) as error:
            words = described(error) if isinstance(error, ClientError) else str(error)
            raise JobFailedError(f"ClientError: Data download failed:{words}") from error

    def _restore_checkpoints(self) -> None:
        config = self.job.request.get("CheckpointConfig")
        if config is None:
            return
        s3 = self.simulator.client_for(self.job, "s3")
        seed = self.simulator.seed + self.job.attempts
        self._sync = CheckpointSync(s3, config["S3Uri"], self.layout.checkpoints, kms_key=self._kms_key, seed=seed)
        self._sync.restore()

    def run(
        self,
        image: Image,
        on_line: Callable[[str], None],
        on_synced: Callable[[str], None],
        on_exit: Callable[[int], None],
    ) -> None:
        """Start the container; the three are called on threads of their own."""
        variables = {**image.environment, **self.simulator.role_variables(self.job)}
        variables |= self.layout.variables(toolkit=image.toolkit)
        variables[self.simulator.root_variable] = str(self.layout.root)
        stream = LogStream(self.simulator.client_for(self.job, "logs"), self.job, self.host, self.simulator.clock.now)

        def keep(line: str) -> None:
            stream.write(line)
            on_line(line)

        algorithm = self.job.request["AlgorithmSpecification"]
        try:
            self.container = Container(image.command(algorithm, self.layout), variables, self.layout.root)
        except OSError as error:
            raise JobFailedError(f"AlgorithmError: {error}, exit code: 127") from error
        if self._sync is not None:
            self._sync.start(on_synced, self.simulator.guarded)
        self.container.watch(keep, lambda code: self._exited(code, on_exit), self.simulator.guarded)

    def _exited(self, code: int, on_exit: Callable[[int], None]) -> None:
        if self._sync is not None:
            self._sync.finish()
        on_exit(code)

    def check_checkpoints(self) -> None:
        """Raise what kept checkpoints from S3."""
        if self._sync is not None and self._sync.failure is not None:
            raise JobFailedError(f"ClientError: Checkpoint upload failed:{self._sync.failure}")

    def upload(self) -> None:
        """Put the model and the output data where the job's output goes; raises ClientError."""
        upload = Upload(self.simulator.client_for(self.job, "s3"), self.job.output, self._kms_key)
        if self.job.is_compressed:
            upload.archive(self.layout.model, "model.tar.gz")
            upload.archive(self.layout.output_data, "output.tar.gz")
        else:
            upload.folder(self.layout.model, "model")
            upload.folder(self.layout.output_data, "data")
        self._upload_board()

    def _upload_board(self) -> None:
        config = self.job.request.get("TensorBoardOutputConfig")
        if config is None:
            return
        s3 = self.simulator.client_for(self.job, "s3")
        place = f"{config['S3OutputPath'].rstrip('/')}/{self.job.name}"
        Upload(s3, place, self._kms_key).folder(self.layout.board, "tensorboard-output")

    def terminate(self) -> None:
        """Ask the container to end."""
        if self.container is not None:
            self.container.terminate()

    def kill(self) -> None:
        """End the container; what it left is still copied."""
        if self.container is not None:
            self.container.kill()

    def lose(self) -> None:
        """End the container, and copy nothing any more."""
        if self._sync is not None:
            self._sync.lose()
        self.kill()

    def end(self) -> None:
        """Leave nothing behind."""
        self.lose()
        self.layout.remove()

    def close(self) -> None:
        """Leave nothing behind, and wait until all threads know (not in an action, for which they may wait)."""
        self.end()
        if self.container is not None:
            self.container.join()
        self.layout.remove()
