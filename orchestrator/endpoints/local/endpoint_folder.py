"""An endpoint of this machine as files.

```
endpoints/NAME/
  token            every request carries it; only its owner can read it
  adapters/HASH/   the adapters, copied under the hash of their files
  servers/N/       a server: the newest that answers is the endpoint, and one that is to replace it has a higher number
    server.json    what it serves; with it the folder is a server
    state.json     its process, and how it ended, by its supervisor
    log.txt        what it printed
    lock           locked by the supervisor and the server as long as one of them lives
endpoints/.NAME.lock   locked by a command while it changes the endpoint
```
"""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from orchestrator.contract.command_line import command
from orchestrator.contract.events import Event, Failed, Listening, Phase, parse
from orchestrator.endpoints.deployment import Deployment
from orchestrator.endpoints.local.processes import Process
from orchestrator.endpoints.names import HostName
from orchestrator.errors import EndpointError
from orchestrator.storage import write_atomically

SERVING_PHASE = "serving"
LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.05
_HEAD_BYTES = 2**24
"""Of the log, within which a server says that it serves."""
_TAIL_BYTES = 2**16
_GONE = ".gone-"


class Served(BaseModel):
    """What a server serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment: Deployment
    """What was asked for."""
    created: AwareDatetime
    """When the endpoint was first deployed."""
    adapters: Mapping[str, str]
    """Hash of the files of each adapter, by its name."""
    base_folder: Path | None
    """Folder of the base model; None for one of the Hub."""
    base_sha256: str | None
    """Hash of its weights; None for one of the Hub."""

    def needs_another_server(self, other: "Served") -> bool:
        """Whether a server of this cannot become one of the other by learning and forgetting adapters."""
        return self._fixed() != other._fixed()  # noqa: SLF001

    def _fixed(self) -> tuple[object, ...]:
        asked = self.deployment.model_copy(update={"adapters": (), "lease": None})
        return asked, self.base_folder, self.base_sha256


class ServerState(BaseModel):
    """What the supervisor records of a server."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    process: Process
    """The server."""
    supervisor: Process
    """The process that waits for its end."""
    ended: AwareDatetime | None = None
    """When it ended."""
    exit_code: int | None = None
    """Negative: the signal that ended it."""


class Progress(NamedTuple):
    """What a server has said of itself."""

    port: int | None = None
    """Where it listens."""
    serves: bool = False
    """Whether it has loaded its base model."""
    failed: Failed | None = None
    """Why it has not."""
    phase: str = "starting"
    """What it does now."""


class ServerFolder:
    """Reads and writes the files of one server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = int(path.name)
        self.log = path / "log.txt"

    def exists(self) -> bool:
        """Whether the folder is a server, and not what an interrupted command has left."""
        return (self.path / "server.json").is_file()

    def served(self) -> Served:
        """Return what it serves; raises EndpointError for a damaged file."""
        path = self.path / "server.json"
        try:
            return Served.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError, UnicodeDecodeError) as error:
            name = self.path.parents[1].name
            message = f"{path} cannot be read, so it is not known what the endpoint {name} serves."
            raise EndpointError(
                message,
                next_step=command("endpoints", "delete", name),
            ) from error

    def write_served(self, served: Served) -> None:
        """Record what it serves."""
        write_atomically(self.path / "server.json", served.model_dump_json(indent=2))

    def state(self) -> ServerState | None:
        """Return what its supervisor has recorded; None before it was started, and for a damaged file."""
        try:
            return ServerState.model_validate_json((self.path / "state.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def write_state(self, state: ServerState) -> None:
        """Record the state, unless the endpoint was deleted meanwhile."""
        if self.path.is_dir():
            write_atomically(self.path / "state.json", state.model_dump_json())

    def lock(self) -> IO[str]:
        """Return the locked file, for the supervisor and the server to inherit."""
        file = (self.path / "lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def is_alive(self) -> bool:
        """Whether the server or its supervisor lives."""
        try:
            with (self.path / "lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def stop_reason(self) -> str | None:
        """Return why it was asked to end; None when nobody has asked."""
        try:
            return (self.path / "stop").read_text(encoding="utf-8")
        except OSError:
            return None

    def request_stop(self, reason: str) -> None:
        """Record why it is about to be ended."""
        if self.stop_reason() is None and self.path.is_dir():
            write_atomically(self.path / "stop", reason)

    def progress(self) -> Progress:
        """Return what the server has said of itself."""
        found = Progress()
        for event in self._events():
            if isinstance(event, Listening):
                found = found._replace(port=event.port)
            elif isinstance(event, Phase):
                found = found._replace(
                    phase=event.name,
                    serves=event.name == SERVING_PHASE,
                )
            elif isinstance(event, Failed):
                found = found._replace(failed=event, serves=False)
        return found

    def _events(self) -> Iterator[Event]:
        """Yield the events at the beginning of the log."""
        try:
            with self.log.open("rb") as log:
                head = log.read(_HEAD_BYTES)
        except OSError:
            return
        for line in head.split(b"\n"):
            event = parse(line.decode(errors="replace"))
            if event is not None:
                yield event

    def last_words(self, count: int) -> list[str]:
        """Return the last lines of the log that are no events."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _TAIL_BYTES))
                text = log.read(_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return []
        words = [line for line in text.splitlines() if line.strip() and parse(line) is None]
        return words[-count:]


class EndpointFolder:
    """Reads and writes the files of one endpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.adapters = path / "adapters"

    def exists(self) -> bool:
        """Whether the folder is an endpoint, and not what an interrupted command has left."""
        return bool(self.servers())

    def host(self) -> HostName:
        """Return the host that runs the endpoint, by its newest server; the local one where that cannot be read."""
        servers = self.servers()
        if not servers:
            return HostName.LOCAL
        try:
            return servers[-1].served().deployment.host
        except EndpointError:
            return HostName.LOCAL

    def servers(self) -> list[ServerFolder]:
        """Return all servers, the oldest first."""
        found = [ServerFolder(path) for path in self.path.glob("servers/*") if path.name.isdecimal()]
        found.sort(key=lambda server: server.number)
        return [server for server in found if server.exists()]

    def answering(self) -> ServerFolder | None:
        """Return the newest server that answers; None when none does."""
        for server in reversed(self.servers()):
            if server.is_alive() and server.progress().serves:
                return server
        return None

    def new_server(self, served: Served) -> ServerFolder:
        """Make the folder of another server."""
        last = 0
        for path in self.path.glob("servers/*"):
            last = max(last, int(path.name) if path.name.isdecimal() else 0)
        server = ServerFolder(self.path / "servers" / str(last + 1))
        server.path.mkdir(parents=True)
        server.write_served(served)
        return server

    def adapter(self, sha256: str) -> Path:
        """Return the folder of an adapter."""
        return self.adapters / sha256

    def token(self) -> str | None:
        """Return what every request carries; None when it is gone."""
        try:
            return (self.path / "token").read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def new_token(self) -> str:
        """Write a token that only the owner can read, and return it."""
        self.path.mkdir(parents=True, exist_ok=True)
        token = secrets.token_urlsafe(32)
        draft = self.path / ".token"
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        draft.replace(self.path / "token")
        return token

    @contextmanager
    def locked(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Keep other commands from changing the endpoint; raises EndpointError when one does for `seconds`."""
        path = self.path.with_name(f".{self.name}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + seconds
        while True:
            with path.open("w") as file:
                if _takes(file) and _is_at(file, path):
                    try:
                        yield
                    finally:
                        if not self.path.exists():
                            path.unlink(missing_ok=True)
                    return
            if time.monotonic() > deadline:
                message = f"Another command is changing the endpoint {self.name}."
                raise EndpointError(
                    message,
                    next_step=command("endpoints", "show", self.name),
                )
            time.sleep(_POLL_SECONDS)

    def remove(self) -> None:
        """Delete the folder: at once for everyone who looks, and what is left of it later if this is interrupted."""
        gone = self.path.with_name(f"{_GONE}{self.name}-{secrets.token_hex(4)}")
        try:
            self.path.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)


def left_behind(endpoints: Path) -> list[Path]:
    """Return what interrupted deletions have left."""
    return sorted(endpoints.glob(f"{_GONE}*"))


def _takes(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether a file is still the one of a path: whoever deleted the endpoint has deleted its lock."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
