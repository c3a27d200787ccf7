"""The API's client, for the command line: finds the engine, asks, turns refusals into errors."""

import argparse
import json
import os
import re
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from control.cli.options import add_config, load, used_places
from control.http.auth import COMMAND_VARIABLE, READ_VARIABLE
from engine.base.errors import ConfigError, EngineError
from engine.process import instance
from engine.start.config import LoadedConfig

EXIT_CODES = """
exit codes: 0 done, 1 refused by the engine, 2 cannot be asked like this, 3 no engine answers
"""
_TOKEN_HINT = f"; name its file with --token-file, or set {COMMAND_VARIABLE}"
_TIMEOUT_S = 30.0
_BODY_BYTES_MAX = 256 << 20
_PAGE_ROWS = 10_000
"""As many as the API gives at a time."""


class RefusedError(EngineError):
    """The engine answered, and the answer is no."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        hint = _TOKEN_HINT if status == 401 else ""
        # Which of several it was is for those who wrote a list: `[0].exchange: unknown ...`.
        text = re.sub(r"^\[\d+\]\.", "", str(body.get("error", f"HTTP {status}")))
        super().__init__(f"{text}{hint}")
        self.status = status
        self.body = body


class UnreachableError(EngineError):
    """No engine answers there."""


class Client:
    """One engine's API."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = _TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url: {url!r} is not an address like http://127.0.0.1:8080")
        self.url = url.rstrip("/")
        self._parts = parts
        self._token = token
        self._timeout_s = timeout_s

    def get(self, path: str, **query: object) -> Any:
        """Read something. Absent filters are left out."""
        return self.ask("GET", path, **query)

    def light(self, name: str) -> Any:
        """`/health/...`: a red light comes as a refusal, with the whole light in it."""
        try:
            return self.get(f"/health/{name}")
        except RefusedError as error:
            if error.status == 503 and "status" in error.body:
                return error.body
            raise

    def get_all(self, path: str, **query: object) -> list[Any]:
        """Read a list that comes in pages, to its end."""
        rows: list[Any] = []
        while True:
            page = self.get(path, **query, limit=_PAGE_ROWS, offset=len(rows))
            rows += page
            if len(page) < _PAGE_ROWS:
                return rows

    def ask(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """One request. Raises RefusedError or UnreachableError."""
        wanted = {name: value for name, value in query.items() if value is not None}
        if wanted:
            path = f"{path}?{urlencode(wanted)}"
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(str(self._parts.hostname), self._parts.port, timeout=self._timeout_s)
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, payload, headers)
            reply = connection.getresponse()
            answer = json.loads(reply.read(_BODY_BYTES_MAX))
        except (OSError, HTTPException, ValueError) as error:
            raise UnreachableError(f"no engine answers at {self.url}: {error}") from error
        finally:
            connection.close()
        if reply.status >= 400:
            raise RefusedError(reply.status, answer if isinstance(answer, dict) else {})
        return answer


def add_client_options(parser: argparse.ArgumentParser) -> None:
    """Which engine, and how to print."""
    add_config(parser)
    parser.add_argument(
        "--url", metavar="URL", help="the engine's control address (default: the one that runs"
        " on the state directory, or the demo below it)",
    )  # fmt: skip
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE",
        help=f"file with the token (default: {COMMAND_VARIABLE} or control.token_file)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the engine's answer as JSON")


def connect(options: argparse.Namespace) -> Client:
    """The client that the options ask for. Raises UnreachableError when nothing runs."""
    loaded = load(options)
    return Client(options.url or _running_url(loaded), _token(options.token_file, loaded))


def running(loaded: LoadedConfig, timeout_s: float) -> Client | None:
    """The client of the engine that runs on the state directory; None where none does."""
    try:
        return Client(_running_url(loaded), _token(None, loaded), timeout_s)
    except UnreachableError:
        return None


def stream_path(exchange: str, symbol: str, kind: str, transport: str) -> str:
    """`/streams/...` of one stream."""
    return "/streams/" + "/".join(
        quote(part, safe="") for part in (exchange, symbol, kind, transport)
    )


def _running_url(loaded: LoadedConfig) -> str:
    for layout in used_places(loaded):
        if (note := instance.read_note(layout)) is not None:
            return note.control_url
    raise UnreachableError(
        f"no engine runs on {loaded.state_dir}; start one with `fts up` or `fts demo`, or name one"
        " with --url"
    )


def _token(file: Path | None, loaded: LoadedConfig) -> str | None:
    control = loaded.config.control
    if file is None:
        from_environment = os.environ.get(COMMAND_VARIABLE) or os.environ.get(READ_VARIABLE)
        if from_environment:
            return from_environment
        configured = control.token_file or control.read_token_file
        if configured is None:
            return None
        file = Path(configured)
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token in {file}") from error
