"""A finished folder in its place, also where that is a mount, which cannot be replaced."""

import os
from pathlib import Path

import pytest

from entrypoints.runtime.folders import replace_folder


@pytest.mark.parametrize("is_mount", [False, True])
def test_a_folder_is_replaced_whole_whatever_its_manifest_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_mount: bool
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda _: is_mount)
    final = tmp_path / "model"
    (final / "old").mkdir(parents=True)
    (final / "old" / "image.png").touch()
    draft = tmp_path / "draft"
    (draft / "images").mkdir(parents=True)
    (draft / "images" / "1.png").write_text("image")
    (draft / "index-1-of-1.json").write_text("{}")
    replace_folder(draft, final, "index-1-of-1.json")
    left = {path.relative_to(final).as_posix() for path in final.rglob("*") if path.is_file()}
    assert left == {"images/1.png", "index-1-of-1.json"}
    assert not draft.exists()
