"""Processes of a job begin and end quickly, and lose nothing by it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(main: str) -> subprocess.CompletedProcess[str]:
    code = f"import gc, sys, weakref\nfrom entrypoints.runtime import process\n{main}\nprocess.run(main)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_all_that_was_printed_arrives_and_the_status_is_that_of_main() -> None:
    done = run("def main():\n    print('x' * 100_000)\n    sys.stderr.write('why')\n    return 3")
    assert (done.stdout, done.stderr, done.returncode) == ("x" * 100_000 + "\n", "why", 3)


def test_an_error_that_nobody_expected_is_still_shown() -> None:
    done = run("def main():\n    raise ValueError('a bug')")
    assert "ValueError: a bug" in done.stderr
    assert done.returncode == 1


def test_garbage_is_collected_again_once_everything_is_imported() -> None:
    main = """
class Node:
    pass
def main():
    paused = not gc.isenabled()
    process.resume_collector()
    node = Node()
    node.itself = node
    watched = weakref.ref(node)
    del node
    gc.collect()
    return 10 * paused + 2 * gc.isenabled() + (watched() is None)
"""
    assert run(main).returncode == 13
