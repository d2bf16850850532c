"""Streamable HTTP on the loopback interface, for clients that hold the token."""

import hmac
from typing import Any

from mcp.server.lowlevel import Server
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
PATH = "/mcp"
MAX_BODY = 1 << 20
SESSION_IDLE_S = 1_800.0
MAX_SESSIONS = 256
SCHEME = b"bearer "


class TokenGuard:
    """Lets requests through that carry the token, and nothing else."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 where the token is missing or wrong."""
        if scope["type"] == "http" and not self._holds(Headers(scope=scope)):
            refusal = PlainTextResponse("a bearer token is needed", 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _holds(self, headers: Headers) -> bool:
        given = headers.get("authorization", "").encode("latin-1", "replace")
        scheme, token = given[: len(SCHEME)], given[len(SCHEME) :]
        # Constant time: how long a wrong token took must not say how much of it was right.
        return hmac.compare_digest(token, self.token) and scheme.lower() == SCHEME


def http_app(server: Server[Any], token: str) -> Starlette:
    """Return the application; foreign `Host` and `Origin` headers are refused."""
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        host=HOST,
        max_request_body_size=MAX_BODY,
        session_idle_timeout=SESSION_IDLE_S,
        max_sessions=MAX_SESSIONS,
    )
    app.add_middleware(TokenGuard, token=token)
    return app
