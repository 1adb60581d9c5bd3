"""A program called docker that a test can put on PATH, tell to fail, and ask what it was asked."""

import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("docker_program.py")


class DockerStandIn:
    """The folder in which the program keeps what it knows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "bin" / "docker"
        self.program.parent.mkdir(parents=True)
        self.program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{SCRIPT}' \"$@\"\n")
        self.program.chmod(0o755)

    def fails(self, command: str, saying: str) -> None:
        (self.folder / f"fail-{command}").write_text(saying)

    def has_buildx(self, driver: str = "docker") -> None:
        """Give it the plugin, with a builder of that driver."""
        (self.folder / "buildx").write_text(driver)

    def makes(self, media_type: str) -> None:
        """Have it push images in another format than docker's own."""
        (self.folder / "media-type").write_text(media_type)

    def calls(self, command: str = "") -> list[dict[str, Any]]:
        """Return what it was asked, of one command or all."""
        path = self.folder / "calls.jsonl"
        noted = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [one for one in noted if command in {"", one["words"][0]}]
