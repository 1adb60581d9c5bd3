"""TensorBoard's files, written by the thread that trains: a full disk is an error here, and blocks nobody.

A file is a sequence of records, each an `Event` of TensorFlow:
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import image as image_summary
from tensorboardX.summary import scalar

_VERSION = "brain.Event:2"


class Board:
    """One file of a run; each attempt writes its own."""

    def __init__(self, folder: Path, done: int) -> None:
        """Begin a file. What earlier attempts wrote after the step that the run resumes from is no longer shown.

        Raises OSError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self.records = RecordWriter(str(folder / name))
        self._write(Event(file_version=_VERSION))
        self._write(Event(step=done + 1, session_log=SessionLog(status=SessionLog.START)))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add what was measured at a step; raises OSError."""
        for name, value in values.items():
            self._write(Event(step=step, summary=scalar(name, value)))
        self.records.flush()

    def show(self, title: str, image: Image.Image, step: int) -> None:
        """Add an image; raises OSError."""
        pixels = np.asarray(image.convert("RGB"))  # (height, width, 3)
        self._write(Event(step=step, summary=image_summary(title, pixels, dataformats="HWC")))
        self.records.flush()

    def finish(self) -> None:
        """Close the file; raises OSError."""
        self.records.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())
