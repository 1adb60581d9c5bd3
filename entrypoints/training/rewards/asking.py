"""One question to a server: sent again while it fails, within a deadline that holds for all attempts together."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

MOST_BYTES = 1_000_000
"""Of an answer."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt; each wait is twice as long as the one before."""
LONGEST_WAIT = 8.0
_CHUNK = 65_536
_OK = 200
_REDIRECTS = range(300, 400)
_BUSY = (408, 429)
_FAILING = range(500, 600)


class JudgeError(Exception):
    """A server gave no answer that can be used."""


class _TryAgainError(JudgeError):
    """An attempt failed, and the next one may not."""


class Asking:
    """Sends JSON to one address. It follows no redirect: what is sent goes to the server that was named, or nowhere."""

    def __init__(self, url: str, deadline_seconds: float) -> None:
        self.parts = urlsplit(url)
        self.seconds = deadline_seconds
        self.context = ssl.create_default_context()
        self.target = self.parts.path or "/"
        if self.parts.query:
            self.target += f"?{self.parts.query}"

    def ask(self, body: bytes) -> bytes:
        """Return what the server answers; raises JudgeError when that is no answer, or takes too long."""
        deadline = time.monotonic() + self.seconds
        wait = FIRST_WAIT
        while True:
            try:
                return self._attempt(body, deadline)
            except _TryAgainError as error:
                next_at = time.monotonic() + wait
                if next_at >= deadline:
                    seconds = f"{self.seconds:g} seconds"
                    raise JudgeError(f"no answer within {seconds}; the last attempt: {error}") from error
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    def _attempt(self, body: bytes, deadline: float) -> bytes:
        """Send the question once."""
        try:
            with self._connection(deadline) as connection:
                connection.request("POST", self.target, body, {"Content-Type": "application/json"})
                with connection.getresponse() as response:
                    content = _content(response)
                if time.monotonic() >= deadline:  # where the connection is closed, headers may seem to end
                    raise TimeoutError("the answer was not complete at the deadline")
                _require_ok(response)
                return content
        except ssl.SSLCertVerificationError as error:  # the next attempt would meet the same certificate
            raise JudgeError(f"its certificate is not valid: {error.verify_message}") from error
        except UnicodeError as error:  # letters that neither a request nor the name of a host may hold
            raise JudgeError(f"its url cannot be asked: {error}") from error
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgainError(f"{type(error).__name__}: {error}") from error

    @contextmanager
    def _connection(self, deadline: float) -> Iterator[http.client.HTTPConnection]:
        """Connect; at the deadline the connection is closed, however slowly the server still sends."""
        host = self.parts.hostname or ""
        is_encrypted = self.parts.scheme == "https"
        port = self.parts.port or (http.client.HTTPS_PORT if is_encrypted else http.client.HTTP_PORT)
        connection: http.client.HTTPConnection
        if is_encrypted:
            connection = http.client.HTTPSConnection(host, port, context=self.context)
        else:
            connection = http.client.HTTPConnection(host, port)
        connected = _connected(host, port, deadline)
        if is_encrypted:  # the socket's timeout holds for the handshake as a whole
            connected = self.context.wrap_socket(connected, server_hostname=host)
        connection.sock = connected
        timer = threading.Timer(_remaining(deadline), _shut, [connected])
        timer.daemon = True
        timer.start()
        try:
            yield connection
        finally:
            timer.cancel()
            connection.close()


def _connected(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of a host that answers; each has an equal share of the time that is left."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        untried = len(addresses) - place
        share = _remaining(deadline) / untried
        try:
            connected = _connected_to(family, kind, protocol, address, share)
        except OSError:
            if untried == 1:
                raise
        else:
            connected.settimeout(_remaining(deadline))
            return connected
    raise OSError(f"{host} has no address")


def _connected_to(family: int, kind: int, protocol: int, address: Any, seconds: float) -> socket.socket:
    """Connect to one address; raises OSError, also where this machine has none of its family."""
    connected = socket.socket(family, kind, protocol)
    try:
        connected.settimeout(seconds)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # headers and body are sent one by one
        connected.connect(address)
    except OSError:
        connected.close()
        raise
    return connected


def _remaining(deadline: float) -> float:
    """Return the seconds that are left, a hundredth at least: 0 would mean not to wait at all."""
    return max(0.01, deadline - time.monotonic())


def _shut(connected: socket.socket) -> None:
    """End a connection, so that whoever reads from it wakes up."""
    with suppress(OSError):  # it was closed meanwhile
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # that of TLS would take its state from under the reader


def _require_ok(response: http.client.HTTPResponse) -> None:
    """Raise JudgeError for an answer that says that there is none."""
    status = response.status
    if status == _OK:
        return
    said = f"it answers {status} {response.reason}"
    if status in _REDIRECTS:
        elsewhere = response.headers.get("Location", "elsewhere")
        raise JudgeError(f"{said}: it sends on to {elsewhere}, which is not followed; write the address itself as url")
    if status in _BUSY or status in _FAILING:
        raise _TryAgainError(said)
    raise JudgeError(said)


def _content(response: http.client.HTTPResponse) -> bytes:
    """Read an answer, and no more of it than an answer has."""
    content = bytearray()
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) > MOST_BYTES:
            raise JudgeError(f"its answer is longer than {MOST_BYTES} bytes")
    if response.length:
        raise _TryAgainError(f"its answer ends {response.length} bytes too early")
    return bytes(content)
