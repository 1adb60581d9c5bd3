"""Who may talk to the page's server: the browser that opened the link, and no other page in it."""

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
TOKEN_PARAMETER = "token"  # noqa: S105  (the name of one)
_READING = {"GET", "HEAD"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the link holds the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Refuses requests without the token, from other pages, and to other names of this machine.

    - A page elsewhere may have its own name resolve to 127.0.0.1 (DNS rebinding): the Host header gives it away.
    - A page elsewhere may send forms and scripts here: their Origin gives them away, and the cookie does not go along.
    - Another user of this machine may connect to the port, and does not know the token.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app = app
        self._token = token
        self._cookie = f"orchestrator-label-{port}"  # cookies do not tell ports apart
        names = (f"{HOST}:{port}", f"localhost:{port}")
        self._hosts = frozenset(names)
        self._origins = frozenset(f"http://{name}" for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that may be answered."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        brought = self._brought_token(scope)
        refusal = self._refusal(scope["method"], headers, brought=brought)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answered[name] = value
                answered.setdefault("Cache-Control", "no-store")
                if brought and not refusal:
                    cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
                    answered.append("Set-Cookie", cookie)
            await send(message)

        if refusal:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, guarded)
        else:
            await self.app(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers, *, brought: bool) -> str:
        """Return why a request is refused, or an empty text."""
        if headers.get("host") not in self._hosts:
            return "This page is read at the link that the command has printed."
        origin = headers.get("origin")
        is_foreign = origin is not None and origin not in self._origins
        if is_foreign or (method not in _READING and origin is None):
            return "Only the page itself may send labels."
        cookie = self._cookie_of(headers)
        if not brought and not self._same(cookie):
            return "Open the link that the command has printed: this one lacks its token, or is of an earlier run."
        return ""

    def _brought_token(self, scope: Scope) -> bool:
        """Whether a request has the token in its address.

        Labels are not sent that way: an address is kept in histories and logs.
        """
        if scope["method"] not in _READING:
            return False
        text = scope["query_string"].decode("latin-1")
        query = parse_qs(text)
        tokens = query.get(TOKEN_PARAMETER, [""])
        return self._same(tokens[0])

    def _cookie_of(self, headers: Headers) -> str:
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return ""
        found = cookies.get(self._cookie)
        if found is None:
            return ""
        return found.value

    def _same(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), self._token.encode())
