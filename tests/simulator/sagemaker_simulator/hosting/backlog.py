"""The queue of an asynchronous endpoint: requests wait in it for instances, and answers go to the bucket.

https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference.html
"""

import json
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from sagemaker_simulator.errors import ServiceError
from sagemaker_simulator.training.storage import described, split
from sagemaker_simulator.wire import Answer

from .records import Endpoint
from .runtime import Asked, passed_on, refused
from .server import ModelServer

if TYPE_CHECKING:
    from .endpoint_driver import EndpointDriver

_TIMEOUT = 900  # seconds for an answer, unless a request says otherwise
_TTL = 21_600  # seconds in the queue
_CONCURRENT = 4  # of an instance; the service's own choice is not documented


@dataclass(frozen=True)
class Waiting:
    """A request in the queue."""

    headers: dict[str, str]
    body: bytes | None
    """None when it lies in the bucket."""
    location: str | None
    output: str
    failure: str | None
    seconds: float
    expires: datetime


class Backlog:
    """The requests of one endpoint; threads of its own send them to its container."""

    def __init__(self, driver: "EndpointDriver") -> None:
        self.driver = driver
        self.hosting = driver.hosting
        self.waiting: deque[Waiting] = deque()
        self.working = 0
        """Requests that a container has now."""
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """How many requests have no answer yet."""
        return len(self.waiting) + self.working

    @property
    def _endpoint(self) -> Endpoint:
        return self.driver.endpoint

    @property
    def _config(self) -> dict[str, Any]:
        config = self._endpoint.config
        found: dict[str, Any] = config.request.get("AsyncInferenceConfig", {}) if config is not None else {}
        return found

    def accept(self, parameters: dict[str, Any], asked: Asked) -> Answer:
        """Queue a request and say where its answer will lie; raises ServiceError."""
        location = parameters.get("InputLocation")
        if not self._config:
            raise refused(f"Endpoint {self._endpoint.name} is not asynchronous: InvokeEndpointAsync is not supported.")
        if (location is None) == (not asked.body):
            raise refused("Either InputLocation or Body must be specified, and not both.")
        if location is not None and not location.startswith("s3://"):
            raise refused("The simulator reads s3:// URIs only.")
        number = parameters.get("InferenceId") or secrets.token_hex(16)
        places = self._config["OutputConfig"]
        name = parameters.get("Filename") or f"{secrets.token_hex(16)}.out"
        extension = parameters.get("S3OutputPathExtension", "").strip("/")
        output = "/".join(part for part in (places["S3OutputPath"].rstrip("/"), extension, name) if part)
        failure = None
        if "S3FailurePath" in places:
            failure = f"{places['S3FailurePath'].rstrip('/')}/{name.removesuffix('.out')}-error.out"
        seconds = parameters.get("InvocationTimeoutSeconds", _TIMEOUT)
        now = self.hosting.clock.now()
        expires = datetime.fromtimestamp(now.timestamp() + parameters.get("RequestTTLSeconds", _TTL), now.tzinfo)
        body = None if location else asked.body
        self.waiting.append(Waiting(passed_on(asked.headers), body, location, output, failure, seconds, expires))
        self._measure()
        self.work()
        headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-OutputLocation": output}
        if failure:
            headers["X-Amzn-SageMaker-FailureLocation"] = failure
        return 202, headers, json.dumps({"InferenceId": number}).encode()

    def work(self) -> None:
        """Send waiting requests to the container, as far as there is one and it takes them."""
        server = next(iter(self.driver.servers.values()), None)
        if server is None or not server.is_healthy:
            return
        most = self._config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", _CONCURRENT)
        while True:
            with self._lock:
                if not self.waiting or self.working >= most:
                    return
                self.working += 1
                request = self.waiting.popleft()
            thread = threading.Thread(
                target=self.hosting.simulator.guarded,
                args=(lambda one=request: self._carry_out(one, server),),
                name="async-invocation",
                daemon=True,
            )
            thread.start()

    def _carry_out(self, request: Waiting, server: ModelServer) -> None:
        try:
            self._store(request, server)
        finally:
            with self._lock:
                self.working -= 1
            self.hosting.simulator.changed()
        if not self.hosting.simulator.closed:
            self._measure()
            self.work()

    def _store(self, request: Waiting, server: ModelServer) -> None:
        """Get the answer to a request and put it, or what went wrong, into the bucket."""
        s3 = self.hosting.simulator.client_for(server.order, "s3")
        try:
            content = self._answer(request, server, s3)
            place = request.output
        except (ServiceError, ClientError) as error:
            words = described(error) if isinstance(error, ClientError) else error.message
            content, place = words.encode(), request.failure or ""
        if self.hosting.simulator.closed or not place:
            return
        bucket, key = split(place)
        kms_key = self._config["OutputConfig"].get("KmsKeyId")
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=content, **encryption)
        except ClientError as error:  # the role may not write: nothing will ever lie there
            self.hosting.note(server.order.log_group, f"could not store {place}: {described(error)}")

    def _answer(self, request: Waiting, server: ModelServer, s3: Any) -> bytes:
        if self.hosting.clock.now() > request.expires:
            raise refused("The request expired before it was processed: RequestTTLSeconds.")
        body = request.body
        if request.location is not None:
            bucket, key = split(request.location)
            body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        endpoint = self._endpoint
        variant = server.order.variant
        reply = self.hosting.runtime.ask(endpoint, server, variant, request.headers, body or b"", request.seconds)
        return reply.content

    def _measure(self) -> None:
        self.hosting.metrics.write(
            self._endpoint, "ApproximateBacklogSize", {"EndpointName": self._endpoint.name}, float(self.size)
        )
