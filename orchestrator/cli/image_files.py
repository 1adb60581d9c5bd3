"""Where images that a command draws are written, and the seeds that they have."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from orchestrator.contract.generation import MAX_SEED, MOST_IMAGES
from orchestrator.contract.problem import Problem
from orchestrator.errors import MachineError, SpecError
from orchestrator.settings import typed_path
from orchestrator.storage import write_atomically

_PNG = ".png"


def seeds_of(first: int, count: int) -> tuple[list[int], list[Problem]]:
    """Return the seed of each image, or what is wrong with those that were asked for."""
    last = first + count - 1
    problem = None
    if not 1 <= count <= MOST_IMAGES:
        problem = Problem(where="-n", what=f"should be from 1 to {MOST_IMAGES}, not {count}")
    elif not 0 <= first <= MAX_SEED:
        problem = Problem(where="--seed", what=f"should be from 0 to {MAX_SEED}, not {first}")
    elif last > MAX_SEED:
        what = f"the last image would have the seed {last}; the highest is {MAX_SEED}"
        problem = Problem(where="--seed", what=what)
    if problem is not None:
        return [0], [problem]
    return list(range(first, first + count)), []


def image_files(named: str | None, name: str, count: int) -> list[Path]:
    """Return the file of each image: the one that was named, or with numbers for several, or files in a folder.

    Raises SpecError for a file that is no PNG, and as `typed_path` does.
    """
    named = named or f"{name}{_PNG}"
    output = typed_path(named)
    is_folder = named.endswith("/") or output.is_dir() or not output.suffix
    if is_folder:
        output = output / f"{name}{_PNG}"
    if output.suffix.lower() != _PNG:
        better = output.with_suffix(_PNG)
        raise SpecError(f"{output} is not a PNG file.", next_step=f"name it {better}, or a folder")
    if count == 1:
        return [output]
    files = []
    for number in range(1, count + 1):
        numbered = f"{output.stem}-{number}{output.suffix}"
        files.append(output.with_name(numbered))
    return files


def require_free(files: Sequence[Path], *, force: bool) -> None:
    """Make the folder of the files; raises MachineError when they cannot be written, or one exists and must be kept."""
    folder = files[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # on a read-only disk, permissions tell nothing
            pass
    except OSError as error:
        message = f"No image can be written into {folder}: {error.strerror}. Nothing was drawn."
        raise MachineError(message, next_step="name another place with -o") from error
    for file in files:
        may_be_written = force or not file.exists()
        if file.is_dir() or not may_be_written:
            next_step = "name another file with -o, or add --force"
            raise MachineError(f"{file} exists; nothing was drawn.", next_step=next_step)


def write_image(file: Path, content: bytes, *, force: bool) -> None:
    """Write an image; without `force` a file that came to be meanwhile is kept."""
    if force:
        write_atomically(file, content)
        return
    with file.open("xb") as new:
        new.write(content)
