"""A Hugging Face Hub on a loopback address: the requests of the client library that look up and fetch a model.

It imitates https://huggingface.co/docs/hub/api and what `huggingface_hub` reads of the answers. Small files come from
the Hub itself; weights from another host, to which it redirects and which must not get a token.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

Files = dict[str, bytes]
_STORED_APART = (".safetensors", ".bin", ".ckpt")


class Asked(NamedTuple):
    """A request to the Hub."""

    method: str
    path: str
    token: str | None


class Answer(NamedTuple):
    """An answer of the Hub."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Repository:
    """A model with its commits; each push becomes the newest of `main`."""

    def __init__(self, *, gated: bool = False, private: bool = False) -> None:
        self.gated = gated
        self.private = private
        self.commits: dict[str, Files] = {}
        self.refs: dict[str, str] = {}

    def push(self, files: Files, *, ref: str = "main") -> str:
        """Make a commit and return its hash."""
        parts = list(self.commits)
        for name, content in sorted(files.items()):
            parts.append(f"{name} {_sha1(content)}")
        commit = _sha1("\n".join(parts).encode())
        self.commits[commit] = files
        self.refs[ref] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        commit = self.refs.get(revision, revision)
        return commit if commit in self.commits else None


class HubServer:
    """The Hub; `tokens` are those it accepts, with the models each has been given access to."""

    def __init__(self) -> None:
        self.models: dict[str, Repository] = {}
        self.tokens: dict[str, set[str]] = {}
        self.asked: list[Asked] = []
        self.broken: Answer | None = None
        """Answer to every request with `broken_at` in its path, when it is set."""
        self.broken_at = ""
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(
        self,
        model_id: str,
        files: Files,
        *,
        gated: bool = False,
        private: bool = False,
    ) -> Repository:
        """Make a model with one commit."""
        self.models[model_id] = repository = Repository(gated=gated, private=private)
        repository.push(files)
        return repository

    def downloads(self) -> list[str]:
        """Return the paths whose content was sent."""
        return [one.path for one in self.asked if one.method == "GET" and not one.path.startswith("/api/")]

    def answer(self, asked: Asked) -> Answer:
        """Answer a request as the Hub would."""
        self.asked.append(asked)
        if self.broken is not None and self.broken_at in asked.path:
            return self.broken
        parts = [unquote(part) for part in asked.path.strip("/").split("/")]
        if parts[0] == "stored":
            return _content(self._stored(parts[1]), {})
        if asked.token is not None and asked.token not in self.tokens:
            return _refusal(401, message="Invalid credentials in Authorization header")
        match parts:
            case ["api", "models", owner, name, *rest]:
                return self._api(asked, f"{owner}/{name}", rest)
            case [owner, name, "resolve", revision, *path]:
                return self._file(asked, f"{owner}/{name}", revision, "/".join(path))
        return _refusal(404, code="EntryNotFound")

    def _found(
        self,
        asked: Asked,
        model_id: str,
        revision: str,
    ) -> tuple[Repository, str] | Answer:
        repository = self.models.get(model_id)
        if repository is None or (repository.private and not self._may(asked, model_id)):
            # the Hub does not reveal whether a private model exists
            status = 401 if asked.token is None else 404
            return _refusal(status, code="RepoNotFound", message="Repository not found")
        commit = repository.resolve(revision)
        if commit is None:
            return _refusal(404, code="RevisionNotFound", message=f"Invalid rev id: {revision}")
        return repository, commit

    def _may(self, asked: Asked, model_id: str) -> bool:
        return asked.token is not None and model_id in self.tokens.get(asked.token, set())

    def _api(self, asked: Asked, model_id: str, rest: list[str]) -> Answer:
        what, revision = (rest[0], rest[1]) if rest else ("revision", "main")
        found = self._found(asked, model_id, revision)
        if isinstance(found, Answer):
            return found
        repository, commit = found
        files = repository.commits[commit]
        if what == "tree":
            tree = []
            for name, content in files.items():
                entry = _entry(name, content, "oid")
                tree.append({"type": "file", "path": name, **entry})
            return _json(tree)
        siblings = []
        for name, content in files.items():
            entry = _entry(name, content, "blobId")
            siblings.append({"rfilename": name, **entry})
        return _json(
            {
                "_id": "1",
                "id": model_id,
                "modelId": model_id,
                "sha": commit,
                "siblings": siblings,
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "tags": [],
            }
        )

    def _file(
        self,
        asked: Asked,
        model_id: str,
        revision: str,
        path: str,
    ) -> Answer:
        found = self._found(asked, model_id, revision)
        if isinstance(found, Answer):
            return found
        repository, commit = found
        if repository.gated and not self._may(asked, model_id):
            message = f"Access to model {model_id} is restricted."
            return _refusal(401 if asked.token is None else 403, code="GatedRepo", message=message)
        content = repository.commits[commit].get(path)
        if content is None:
            return _refusal(404, code="EntryNotFound", headers={"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob_id(content)}"'}
        if not path.endswith(_STORED_APART):
            return _content(content, headers)
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        headers["Location"] = f"http://localhost:{self.port}/stored/{sha256}"  # to a client, another host
        return Answer(302, headers)

    def _stored(self, sha256: str) -> bytes:
        for model in self.models.values():
            for files in model.commits.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == sha256:
                        return content
        raise KeyError(sha256)


def ask_only(server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the library at a Hub, with an empty cache and without a token.

    It reads its variables (HF_ENDPOINT, HF_HOME) when it is imported, so its constants are changed.
    """
    monkeypatch.delenv("HF_TOKEN", raising=False)
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "no-token"))


def files_of(folder: Path) -> Files:
    """Return the files below a folder by their relative paths."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            files[name] = path.read_bytes()
    return files


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()  # noqa: S324  (as git does)


def _blob_id(content: bytes) -> str:
    """Return git's name of a file's content."""
    header = f"blob {len(content)}\0".encode()
    return _sha1(header + content)


def _entry(name: str, content: bytes, oid: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": len(content), oid: _blob_id(content)}
    if name.endswith(_STORED_APART):
        key = "oid" if oid == "oid" else "sha256"
        entry["lfs"] = {key: hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _json(value: object) -> Answer:
    return _content(json.dumps(value).encode(), {"Content-Type": "application/json"})


def _content(content: bytes, headers: dict[str, str]) -> Answer:
    return Answer(200, headers, content)


def _refusal(
    status: int,
    *,
    code: str = "",
    message: str = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    headers = dict(headers or {})
    if code:
        headers["X-Error-Code"] = code
    if message:
        headers["X-Error-Message"] = message
    body = json.dumps({"error": message}).encode()
    return Answer(status, headers, body)


@contextmanager
def serving() -> Iterator[HubServer]:
    """Serve a Hub without models until the block ends."""
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            answer = hub.answer(Asked(self.command, urlsplit(self.path).path, token))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
