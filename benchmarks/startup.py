"""How long `--help` takes, beside an empty interpreter and `import boto3`."""

import subprocess
import sys
import time
from statistics import median

from benchmarks.report import write_section

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -m orchestrator --help": ["-m", "orchestrator", "--help"],
    'python -c "import boto3"': ["-c", "import boto3"],
}


def main() -> None:
    """Run the commands in turn, so that a slow moment of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            seconds[name].append(_time(words))
    empty = median(seconds["python -c pass"])
    rows = [f"| `{name}` | {median(times):.3f} | {median(times) / empty:.1f} |" for name, times in seconds.items()]
    head = "| command | seconds, median | times an empty interpreter |\n| --- | --- | --- |"
    write_section("Start-up", "\n".join([f"{ROUNDS} rounds, interleaved.\n", head, *rows]))


def _time(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
