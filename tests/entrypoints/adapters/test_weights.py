"""Weight files are those of the library, and need no second copy of the tensors in main memory."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from entrypoints.adapters.weights import TYPES, save_weights

ROOT = Path(__file__).parents[3]
CLEAR = Path("/proc/self/clear_refs")
MIB = 2**20


def test_a_file_is_the_one_that_the_library_writes(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {"empty": torch.zeros(0, 3), "number": torch.tensor(1.5), "größe": torch.ones(2)}
    for number, dtype in enumerate(reversed(TYPES)):
        tensors[f"b.{number}"] = torch.arange(3 + number).to(dtype)
        tensors[f"a.{number}"] = torch.arange(6).reshape(2, 3).to(dtype)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for metadata in (None, {"format": "pt"}):
        digest = save_weights(tensors, ours, metadata)
        save_file(tensors, theirs, metadata)
        assert ours.read_bytes() == theirs.read_bytes()
        assert (digest.sha256, digest.size) == (hashlib.sha256(ours.read_bytes()).hexdigest(), ours.stat().st_size)


def test_metadata_is_sorted_and_the_file_is_read_by_the_library(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    tensors = {"weight": torch.arange(6.0).reshape(2, 3).t()}
    save_weights(tensors, one, {"b": "ü", "a": "1", "c": "2"})
    save_weights(tensors, other, {"c": "2", "a": "1", "b": "ü"})
    assert one.read_bytes() == other.read_bytes()
    assert torch.equal(load_file(one)["weight"], tensors["weight"])


# What a process of other tests has freed and not given back would be counted too.
SAVED_ALONE = """
import sys
from pathlib import Path
import torch
from entrypoints.adapters.weights import save_weights

def memory(field):
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024

# A transposed tensor has to be copied before it is written, as one on a GPU has to. Above 32 MiB the C library gives
# a copy's memory back as soon as it is released; smaller ones it may keep, which would be counted too.
tensors = {str(number): torch.ones(1024, 10240).t() for number in range(5)}  # 40 MiB each
Path("/proc/self/clear_refs").write_text("5")  # VmHWM: the most from here on
before = memory("VmRSS")
save_weights(tensors, Path(sys.argv[1]))
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not CLEAR.exists(), reason="Linux tells a process how much memory it took")
def test_tensors_are_in_main_memory_one_at_a_time_when_they_are_written(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVED_ALONE, str(tmp_path / "file")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (tmp_path / "file").stat().st_size > 5 * 40 * MIB
    assert int(done.stdout) < 2 * 40 * MIB
