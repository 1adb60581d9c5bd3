"""Calls to a server on this machine."""

import http.client
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from orchestrator.contract.command_line import command
from orchestrator.contract.serving import LOCALHOST
from orchestrator.endpoints.hosts import Answer
from orchestrator.errors import EndpointError

MOST_ANSWER_BYTES = 2**30
"""64 images of 2048 pixels a side, in base64."""
QUICK_SECONDS = 5.0
"""For what a server answers without drawing."""
LONG_SECONDS = 120.0
"""For what it draws or reads: twice its own deadline."""
_JSON = "application/json"
_FIRST_ERROR = 400


class RefusedError(EndpointError):
    """A server has answered with an error."""

    def __init__(
        self,
        message: str,
        *,
        next_step: str,
        status: int,
        retry_after: float | None,
    ) -> None:
        super().__init__(message, next_step=next_step)
        self.status = status
        self.retry_after = retry_after


class ServerCalls:
    """Calls the server of an endpoint."""

    def __init__(
        self,
        name: str,
        port: int,
        token: str,
    ) -> None:
        self.name = name
        self.port = port
        self.token = token

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        accept: str = _JSON,
        seconds: float = LONG_SECONDS,
    ) -> Answer:
        """Send a request and return its answer; raises RefusedError for an error, EndpointError without an answer."""
        connection = http.client.HTTPConnection(
            LOCALHOST,
            self.port,
            timeout=seconds,
        )
        headers = {"Authorization": f"Bearer {self.token}", "Accept": accept}
        if body is not None:
            headers["Content-Type"] = _JSON
        try:
            connection.request(method, path, body, headers)
            with connection.getresponse() as response:
                content = response.read(MOST_ANSWER_BYTES + 1)
        except TimeoutError as error:
            message = f"The endpoint {self.name} has not answered within {seconds:g} seconds."
            raise EndpointError(
                message,
                next_step=command("endpoints", "show", self.name),
            ) from error
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            message = f"The server of the endpoint {self.name} does not answer on port {self.port}: {why}."
            raise EndpointError(
                message,
                next_step=command("endpoints", "logs", self.name),
            ) from error
        finally:
            connection.close()
        if len(content) > MOST_ANSWER_BYTES:
            message = f"The endpoint {self.name} answers with more than {MOST_ANSWER_BYTES:,} bytes."
            raise EndpointError(
                message,
                next_step="ask for fewer or smaller images",
            )
        received = {name.lower(): value for name, value in response.getheaders()}
        if response.status >= _FIRST_ERROR:
            raise self._refused(response.status, content, received)
        return Answer(content, received.get("content-type", ""), received)

    def json(
        self,
        method: str,
        path: str,
        value: object = None,
        seconds: float = LONG_SECONDS,
    ) -> Any:
        """Send a JSON value and return that of the answer; None for an answer that is text."""
        body = None if value is None else json.dumps(value).encode()
        answer = self.call(method, path, body, seconds=seconds)
        if not answer.media_type.startswith(_JSON):
            return None
        return json.loads(answer.content)

    def _refused(
        self,
        status: int,
        content: bytes,
        headers: Mapping[str, str],
    ) -> RefusedError:
        """Return the error for an answer: the server's own words, and what it says to do next."""
        message = f"it answers with the status {status}"
        next_step = command("endpoints", "show", self.name)
        with suppress(
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ):  # it is not one of ours that answers
            said = json.loads(content)["error"]
            message = str(said["message"])
            next_step = str(said.get("next") or next_step)
        try:
            retry_after = float(headers["retry-after"])
        except (KeyError, ValueError):
            retry_after = None
        return RefusedError(
            f"The endpoint {self.name} refuses: {message}",
            next_step=next_step,
            status=status,
            retry_after=retry_after,
        )
