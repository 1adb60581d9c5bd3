"""TensorBoard's files, written by the thread that trains: a full disk is an error here, and blocks nobody.

A file is a sequence of records, each an `Event` of TensorFlow:
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto
"""

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let imports in the block find no such module, unless it is imported already."""
    is_hidden = module not in sys.modules
    if is_hidden:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules[module]


# It imports boto3 where there is one, which takes ten times as long as all else of it; nothing here is in a bucket.
with _without("boto3"):
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
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
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
