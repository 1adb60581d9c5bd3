import os
from pathlib import Path

import pytest

from orchestrator.contract.digest import hash_file
from orchestrator.storage.hash_cache import HashCache

LATER = 10**19
"""Nanoseconds; a moment at which every file of today has long settled."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    return path


def memory(tmp_path: Path, clock_ns: int = LATER) -> HashCache:
    return HashCache(tmp_path / "hashes", min_bytes=1, clock_ns=lambda: clock_ns)


def test_a_large_file_is_read_once(tmp_path: Path, file: Path) -> None:
    digest = memory(tmp_path).digest(file)
    (note,) = (tmp_path / "hashes").iterdir()
    note.write_text(digest.model_copy(update={"sha256": "remembered"}).model_dump_json())
    assert memory(tmp_path).digest(file).sha256 == "remembered"


def test_a_file_that_was_touched_is_read_again_even_with_its_old_time(tmp_path: Path, file: Path) -> None:
    memory(tmp_path).digest(file)
    times = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    while file.stat().st_ctime_ns == times.st_ctime_ns:  # the clock of a file system ticks slower than a test
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert memory(tmp_path).digest(file) == hash_file(file)


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path, file: Path) -> None:
    memory(tmp_path, clock_ns=file.stat().st_mtime_ns).digest(file)
    assert not (tmp_path / "hashes").exists()


def test_a_small_file_is_simply_read(tmp_path: Path, file: Path) -> None:
    assert HashCache(tmp_path / "hashes", clock_ns=lambda: LATER).digest(file) == hash_file(file)
    assert not (tmp_path / "hashes").exists()


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path, file: Path) -> None:
    (tmp_path / "hashes").write_text("a file where the folder should be")
    assert memory(tmp_path).digest(file) == hash_file(file)
