"""What holds for every answer: which hosts are ours, what a browser may do with what it gets."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def allowed_hosts(address: str) -> frozenset[str] | None:
    """Tell by which names a page may be called; None for any.

    On loopback another site's name that was pointed here (DNS rebinding) is
    refused. Elsewhere the session's cookie, which belongs to one name, does that.

    Parameters
    ----------
    address
        Where the page listens.
    """
    return _LOCAL | {address.lower()} if is_loopback(address) else None


def is_loopback(address: str) -> bool:
    """Tell whether an address reaches this machine alone."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_name(header: str) -> str:
    """Give the name in a Host header, without its port and brackets, in lower case."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if ":" in name else name


class Guard:
    """Refuses foreign hosts, and gives every answer its headers.

    Parameters
    ----------
    app
        What is guarded.
    hosts
        Names by which it may be called; None for any.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        named = Headers(scope=scope).getlist("host")
        if self.hosts is not None and [host_name(one) in self.hosts for one in named] != [True]:
            refusal = PlainTextResponse("this page is not called so\n", status_code=421)
            await refusal(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)
