"""Folders that are finished as a whole."""

import os
import shutil
from pathlib import Path


def replace_folder(draft: Path, final: Path, last: str) -> None:
    """Put a finished folder in its place, with one rename where that is possible.

    SageMaker mounts `final`, and a mount cannot be replaced: it is filled file by file then, the manifest `last`, so
    that what lacks files has no manifest.
    """
    if not os.path.ismount(final):
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        return
    for left in final.iterdir():  # of an earlier attempt in the same mount
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    manifest = draft / last
    for path in sorted(draft.iterdir()):
        if path != manifest:
            shutil.move(path, final / path.name)
    shutil.move(manifest, final / last)
    draft.rmdir()
