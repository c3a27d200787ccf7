"""What every request passes before a route sees it, and every answer on its way out.

Order: framing, Host (DNS rebinding), token, Origin and content type (cross-site requests). A fault
in a route ends here as a plain 500 with the details in the log alone.
"""

import ipaddress
import logging
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control.http.auth import Guard
from control.http.errors import ApiError

_log = logging.getLogger(__name__)

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADER_BYTES_MAX = 16_384
_HEADER_FIELDS_MAX = 100
_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
}
"""On every answer that does not say otherwise itself."""


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        guard: Guard,
        *,
        allowed_hosts: Iterable[str] = (),
        public_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._guard = guard
        self._hosts = _LOCAL_NAMES | {name.lower() for name in allowed_hosts}
        self._public_paths = frozenset(public_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        is_complete = False

        async def send_hardened(message: Message) -> None:
            nonlocal is_complete
            if message["type"] == "http.response.body":
                is_complete = not message.get("more_body", False)
            else:
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except ApiError as error:
            # Whatever body follows is not read: the connection is of no more use.
            error.headers.setdefault("Connection", "close")
            await error.response()(scope, receive, send_hardened)
            return
        try:
            await self._app(scope, receive, send_hardened)
        except Exception:
            # Starlette has answered (`on_fault`) before it raises, unless an answer was under way.
            _log.exception(f"{scope['method']} {scope['path']}: a route failed")
            if not is_complete:
                raise

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        _check_size(scope)
        _check_framing(headers)
        self._check_host(headers)
        is_command = scope["method"] not in _READING
        if not self._is_public(scope):
            client = scope.get("client")
            self._guard.check(
                headers.get("authorization"),
                is_command=is_command,
                client=client[0] if client else "",
            )
        _check_origin(headers)
        if is_command:
            _check_content(headers)

    def _is_public(self, scope: Scope) -> bool:
        return scope["method"] in ("GET", "HEAD") and scope["path"] in self._public_paths

    def _check_host(self, headers: Headers) -> None:
        """A name that an attacker's DNS may point at us is refused; addresses cannot be."""
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise ApiError("invalid_argument", "exactly one Host header is needed", field="Host")
        name = host_name(hosts[0])
        if name not in self._hosts and not _is_address(name):
            raise ApiError(
                "forbidden",
                f"this server is not called {name!a}; add it to control.allowed_hosts",
                field="Host",
            )


def host_name(host: str) -> str:
    """`Example.org:80` and `[::1]:80` without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _check_size(scope: Scope) -> None:
    """h11 only limits a header that arrives in parts."""
    fields = scope["headers"]
    size = sum(len(name) + len(value) + 4 for name, value in fields)
    size += len(scope.get("raw_path", b"")) + len(scope.get("query_string", b""))
    if size > _HEADER_BYTES_MAX or len(fields) > _HEADER_FIELDS_MAX:
        raise ApiError("header_too_large", "the header is too large")


def _check_framing(headers: Headers) -> None:
    """Two lengths for one body is how requests are smuggled past a proxy."""
    if "content-length" in headers and "transfer-encoding" in headers:
        raise ApiError("invalid_argument", "Content-Length and Transfer-Encoding contradict")


def _check_origin(headers: Headers) -> None:
    """A browser says which page a request comes from; only our own pages may."""
    for origin in headers.getlist("origin"):
        try:
            ours = urlsplit(origin).netloc.lower() == headers["host"].lower()
        except ValueError:
            ours = False
        if not ours:
            raise ApiError("forbidden", "requests from other sites are refused", field="Origin")


def _check_content(headers: Headers) -> None:
    """A form cannot send JSON, so a request that must be JSON did not come from a foreign form."""
    kind = headers.get("content-type")
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if kind is None and not has_body:
        return
    if (kind or "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(
            "unsupported_media_type", "the body must be application/json", field="Content-Type"
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(
            "unsupported_media_type", "compressed bodies are refused", field="Content-Encoding"
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
