"""What the benchmark beside diffusers' script counts, and what it says without the script."""

import sys
from pathlib import Path

import pytest

from benchmarks import beside_diffusers
from benchmarks.process_tree import NOT_STARTED, measure

# Ends at once, as our client may, and leaves a process of another session that works and takes memory, as our worker.
DETACHED = """
import os, time
if os.fork() == 0:
    os.setsid()
    for number in (0, 1, 2):
        os.close(number)
    taken = b"x" * 300_000_000
    while time.process_time() < 0.5:
        pass
    open("done", "w").close()
    os._exit(0)
print("step 1/2 done", flush=True)
os._exit(7)
"""


def test_what_a_command_leaves_behind_is_counted_with_it(tmp_path: Path) -> None:
    usage = measure([sys.executable, "-c", DETACHED], {}, tmp_path, mark=b" 1/2 ")
    assert (tmp_path / "done").exists()
    assert usage.cpu_seconds >= 0.5
    assert usage.peak_bytes >= 300_000_000
    assert usage.exit_code == 7
    assert usage.output == b"step 1/2 done\n"
    assert usage.marked is not None
    assert usage.marked < usage.wall_seconds


def test_a_command_that_does_not_exist_is_no_figure(tmp_path: Path) -> None:
    usage = measure([str(tmp_path / "python")], {}, tmp_path, mark=b"1/2")
    assert usage.exit_code == NOT_STARTED
    assert b"No such file" in usage.output
    assert usage.marked is None


@pytest.mark.parametrize("words", [[], ["--script", "nowhere.py"]])
def test_without_the_script_it_says_where_to_get_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        beside_diffusers.main(words)
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "https://github.com/huggingface/diffusers" in message
    assert "--script" in message
