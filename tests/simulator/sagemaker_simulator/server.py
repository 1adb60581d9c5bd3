"""The simulator and moto behind one loopback URL, for clients in other processes."""

import re
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs

from moto.core.base_backend import BackendDict
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from .calls import Call
from .faults import Manner
from .gate import NoAnswerError, pass_through
from .hosting import runtime
from .hosting.runtime import Asked
from .roles import account_of
from .wire import TARGET, Answer

if TYPE_CHECKING:
    from .simulator import SageMakerSimulator

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
_SCOPE = re.compile(r"Credential=([^/]+)/[^/]+/([^/]+)/([^/]+)/aws4_request")
# The services whose signing name is not what botocore's events call them.
_NAMES = {
    "logs": "cloudwatch-logs",
    "monitoring": "cloudwatch",
    "application-autoscaling": "application-auto-scaling",
}

_PHRASES = {one.value: one.phrase for one in HTTPStatus}
_S3_BY_PARAMETER = {
    "uploads": {"POST": "CreateMultipartUpload", "GET": "ListMultipartUploads"},
    "uploadId": {
        "PUT": "UploadPart",
        "POST": "CompleteMultipartUpload",
        "DELETE": "AbortMultipartUpload",
        "GET": "ListParts",
    },
    "list-type": {"GET": "ListObjectsV2"},
    "versions": {"GET": "ListObjectVersions"},
    "delete": {"POST": "DeleteObjects"},
    "tagging": {"GET": "GetObjectTagging", "PUT": "PutObjectTagging"},
    "location": {"GET": "GetBucketLocation"},
    "encryption": {"GET": "GetBucketEncryption", "PUT": "PutBucketEncryption"},
    "versioning": {"GET": "GetBucketVersioning", "PUT": "PutBucketVersioning"},
    "policy": {"GET": "GetBucketPolicy", "PUT": "PutBucketPolicy"},
    "attributes": {"GET": "GetObjectAttributes"},
}
_S3_OBJECT = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
_S3_BUCKET = {"GET": "ListObjects", "HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}


class Application:
    """A WSGI application: SageMaker's requests are ours, all others moto's."""

    def __init__(self, simulator: "SageMakerSimulator") -> None:
        self.simulator = simulator
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.stopped = threading.Event()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        from .simulator import USER_AGENT

        if USER_AGENT in environ.get("HTTP_USER_AGENT", ""):
            untouched: Iterable[bytes] = self.moto(environ, start_response)
            return untouched
        body = _read(environ)
        call = _call(environ, body)
        try:
            answer = pass_through(
                self.simulator,
                call,
                body,
                lambda: self._ask_moto(environ),
                has_body=environ["REQUEST_METHOD"] != "HEAD",
                asked=_asked(environ, body) if call.service == runtime.SERVICE else None,
            )
        except NoAnswerError as broken:
            self._break(environ, broken)
            raise ConnectionAbortedError from broken
        status, headers, content = answer or (404, {}, b"")
        start_response(f"{status} {_PHRASES.get(status, '')}", list(headers.items()))
        return [content]

    def _ask_moto(self, environ: Environ) -> Answer:
        answer: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            answer.update(status=int(status.split(maxsplit=1)[0]), headers=dict(headers))

        parts = self.moto(environ, start_response)
        try:
            content = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        return answer["status"], answer["headers"], content

    def _break(self, environ: Environ, broken: NoAnswerError) -> None:
        connection: socket.socket = environ["werkzeug.socket"]
        if broken.fault.manner is Manner.SILENCE:
            connection.settimeout(0.1)
            while not self.stopped.is_set() and not _has_hung_up(connection):
                pass
        connection.shutdown(socket.SHUT_RDWR)


class SimulatorServer:
    """Serves on 127.0.0.1, on a port the system picks; moto starts empty and is empty again at the end."""

    def __init__(self, simulator: "SageMakerSimulator") -> None:
        self.simulator = simulator
        self._application = Application(simulator)
        self._server = make_server("127.0.0.1", 0, self._application, threaded=True, request_handler=_QuietHandler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="sagemaker-simulator", daemon=True)

    @property
    def url(self) -> str:
        """What AWS_ENDPOINT_URL has to be."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        BackendDict.reset()
        self.simulator.endpoint = self.url
        self._thread.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._application.stopped.set()
        try:
            self.simulator.close()
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            BackendDict.reset()
        if error is None:
            self.simulator.require_faults_happened()


class _QuietHandler(MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Keep each request out of the test's output; errors still show."""
        if type == "error":
            super().log(type, message, *args)


def _read(environ: Environ) -> bytes:
    """Read the body and put it back for moto."""
    if environ.get("wsgi.input_terminated"):
        body = environ["wsgi.input"].read()
    else:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = BytesIO(body)
    return bytes(body)


def _call(environ: Environ, body: bytes) -> Call:
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    access_key, region, signing_name = scope.groups() if scope else (None, "us-east-1", "s3")
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    invoked = runtime.operation_of(environ["PATH_INFO"]) if signing_name == "sagemaker" else None
    if target.startswith(TARGET):
        service, operation = "sagemaker", target.removeprefix(TARGET)
    elif invoked is not None:
        service, operation = runtime.SERVICE, invoked
    else:
        service = _NAMES.get(signing_name, signing_name)
        operation = _operation(environ, body, target, service)
    token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
    return Call(service, operation, account_of(access_key), region, {}, access_key, token, len(body))


def _asked(environ: Environ, body: bytes) -> Asked:
    """Return a request to the runtime API."""
    headers = {name[5:].replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
    if environ.get("CONTENT_TYPE"):
        headers["Content-Type"] = environ["CONTENT_TYPE"]
    return Asked(environ["PATH_INFO"], headers, body)


def _operation(environ: Environ, body: bytes, target: str, service: str) -> str:
    if target:
        return target.rpartition(".")[2]
    if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        return parse_qs(body.decode(errors="replace")).get("Action", ["?"])[0]
    return _s3_operation(environ) if service == "s3" else "?"


def _s3_operation(environ: Environ) -> str:
    """Return the name of the S3 operations that matter here, told from method, path and query."""
    method, query = environ["REQUEST_METHOD"], parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    _, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
    if method == "PUT" and "HTTP_X_AMZ_COPY_SOURCE" in environ:
        return "CopyObject"
    for parameter, names in _S3_BY_PARAMETER.items():
        if parameter in query:
            return names.get(method, "?")
    return (_S3_OBJECT if key else _S3_BUCKET).get(method, "?")


def _has_hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
