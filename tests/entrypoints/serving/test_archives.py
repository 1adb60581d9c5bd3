"""Archives are unpacked where they should be, and hostile ones not at all."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoints.runtime.failures import TrainingError
from entrypoints.serving import archives
from entrypoints.serving.archives import MOST_FILES, unpack


def entry(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def packed(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return path


def test_an_adapter_is_unpacked_as_it_was(tmp_path: Path) -> None:
    archive = packed(
        tmp_path / "a.tar.gz",
        entry("./adapter.json", b"{}"),
        entry("samples", kind=tarfile.DIRTYPE),
        entry("samples/after-1.png", b"picture"),
        entry("pytorch_lora_weights.safetensors", b"w" * 3_000_000),
    )
    folder = tmp_path / "out"
    folder.mkdir()
    unpack(archive, folder)
    found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert found == {"adapter.json": 2, "samples/after-1.png": 7, "pytorch_lora_weights.safetensors": 3_000_000}


@pytest.mark.parametrize(
    "hostile",
    [
        lambda: [entry("../escaped.json")],
        lambda: [entry("/var/escaped.json")],
        lambda: [entry("a/../../escaped.json")],
        lambda: [entry("link.json", kind=tarfile.SYMTYPE, link="/etc/passwd")],
        lambda: [entry("link.json", kind=tarfile.LNKTYPE, link="../escaped.json")],
        lambda: [entry("dir", kind=tarfile.SYMTYPE, link="/var"), entry("dir/escaped.json")],
        lambda: [entry("device.json", kind=tarfile.CHRTYPE)],
        lambda: [entry("pipe.json", kind=tarfile.FIFOTYPE)],
        lambda: [entry("model.py", b"print()")],
        lambda: [entry("weights.bin")],
        lambda: [entry("a.json"), entry("./a.json")],
        lambda: [entry("a/b/c/d/e.json")],
        lambda: [entry("spaced name.json")],
        lambda: [entry(f"{number}.json") for number in range(MOST_FILES + 1)],
    ],
)
def test_hostile_archives_are_refused_and_nothing_is_written_elsewhere(
    hostile: Callable[[], list[tuple[tarfile.TarInfo, bytes]]], tmp_path: Path
) -> None:
    archive = packed(tmp_path / "a.tar.gz", *hostile())
    folder = tmp_path / "in" / "out"
    folder.mkdir(parents=True)
    with pytest.raises(TrainingError):
        unpack(archive, folder)
    assert [path for path in tmp_path.rglob("escaped.json") if folder not in path.parents] == []


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 2_000_000)
    archive = packed(tmp_path / "a.tar.gz", entry("a.json", bytes(1_500_000)), entry("b.json", bytes(1_500_000)))
    with pytest.raises(TrainingError, match="unpacks to more than"):
        unpack(archive, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b" + bytes(20)])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be unpacked"):
        unpack(path, tmp_path)
