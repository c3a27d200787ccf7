"""Who may do what: two tokens, compared in constant time, read again when their file changes.

The command token allows everything, the read token only GET. Without any token the port is open to
this machine (`engine.start.config` refuses other addresses then).
"""

import hmac
import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import HTTPConnection

from control.http.errors import ApiError
from engine.base.clock import monotonic_s
from engine.base.errors import ConfigError

_log = logging.getLogger(__name__)

COMMAND_VARIABLE = "FTS_CONTROL_TOKEN"
READ_VARIABLE = "FTS_CONTROL_READ_TOKEN"
_LOOK_EVERY_S = 1.0
_WRONG_MAX = 10
_WRONG_WINDOW_S = 10.0
_CLIENTS_MAX = 1024


class Token:
    """A secret from a file or the environment. A changed file counts within a second."""

    def __init__(self, file: Path | None, text: str | None, source: str) -> None:
        self._file = file
        self._text = text
        self._source = source
        self._seen: tuple[int, int, int] | None = None
        self._looked_s = 0.0
        if file is not None:
            self._text = self._read(file)
        elif text is not None:
            _check_strength(text, source)

    def matches(self, shown: bytes) -> bool:
        """Whether `shown` is the token. Takes as long for a wrong one as for the right one."""
        self._look_again()
        return self._text is not None and hmac.compare_digest(shown, self._text.encode())

    @property
    def is_set(self) -> bool:
        """Whether there is one."""
        return self._text is not None

    def _look_again(self) -> None:
        now_s = monotonic_s()
        if self._file is None or now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            if _identity(self._file) != self._seen:
                self._text = self._read(self._file)
                _log.info(f"{self._source}: a new token is in force")
        except (ConfigError, OSError) as error:
            _log.error(f"the token in force stays: {error}")

    def _read(self, file: Path) -> str:
        try:
            found = file.stat()
            if found.st_mode & _forbidden(found):
                raise ConfigError(f"{self._source}: {file} may be read by others: chmod 600 {file}")
            self._seen = _identity(file)
            text = file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._source}: cannot read {file}") from error
        _check_strength(text, f"{self._source}: {file}")
        return text


class WrongTokens:
    """Counts wrong tokens by client address, in a window."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}

    def count(self, client: str) -> float:
        """One more; returns how long that client has to wait, 0 when it may try again."""
        now_s = monotonic_s()
        since_s, count = self._counts.get(client, (now_s, 0))
        if now_s - since_s >= _WRONG_WINDOW_S:
            since_s, count = now_s, 0
        if client not in self._counts and len(self._counts) >= _CLIENTS_MAX:
            self._counts.pop(next(iter(self._counts)))
        self._counts[client] = (since_s, count + 1)
        return since_s + _WRONG_WINDOW_S - now_s if count >= _WRONG_MAX else 0.0


class Guard:
    """Decides on every request. The right token always passes; wrong ones are slowed down."""

    def __init__(self, command: Token, read: Token) -> None:
        self._command = command
        self._read = read
        self._wrong = WrongTokens()

    @classmethod
    def load(
        cls,
        token_file: str | None,
        read_token_file: str | None,
        env: Mapping[str, str] = os.environ,
    ) -> "Guard":
        """Files win over the environment. Raises ConfigError for a token that protects nothing."""
        tokens = []
        for name, file, variable in (
            ("control.token_file", token_file, COMMAND_VARIABLE),
            ("control.read_token_file", read_token_file, READ_VARIABLE),
        ):
            path = Path(file) if file else None
            tokens.append(Token(path, env.get(variable) or None, name if file else variable))
        command, read = tokens
        if read.is_set and not command.is_set:
            raise ConfigError(
                "control.read_token_file: a read token without a command token (control.token_file)"
                " would leave every command open"
            )
        return cls(command, read)

    @property
    def is_armed(self) -> bool:
        """Whether a token is asked for at all."""
        return self._command.is_set

    def may_command(self, request: HTTPConnection) -> bool:
        """Whether a request that was let in could also have been a command."""
        try:
            shown = request.headers.get("authorization")
            self.check(shown, is_command=True, client="")
        except ApiError:
            return False
        return True

    def check(self, authorization: str | None, *, is_command: bool, client: str) -> None:
        """Raises ApiError: 401 without the right token, 403 when it allows less, 429 after too
        many wrong ones.
        """
        if not self.is_armed:
            return
        challenge = {"WWW-Authenticate": "Bearer"}
        scheme, _, shown = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not shown:
            raise ApiError("unauthorized", "a bearer token is needed", headers=challenge)
        text = shown.strip().encode("utf-8", "surrogateescape")
        if self._command.matches(text):
            return
        if self._read.matches(text):
            if is_command:
                raise ApiError("forbidden", "this token only allows reading")
            return
        if wait_s := self._wrong.count(client):
            raise ApiError("too_many_requests", "too many wrong tokens", retry_after_s=wait_s)
        raise ApiError("unauthorized", "this token is wrong", headers=challenge)


def _check_strength(text: str, source: str) -> None:
    """At least 256 bits: 64 hexadecimal digits, or 43 of any other letters and digits."""
    needed = 64 if re.fullmatch(r"[0-9a-fA-F]+", text) else 43
    if not re.fullmatch(r"[!-~]+", text) or len(text) < needed or len(set(text)) < 8:
        raise ConfigError(
            f"{source}: a token has at least 256 random bits on one line;"
            " make one with: openssl rand -hex 32"
        )


def _forbidden(found: os.stat_result) -> int:
    """Mode bits that a token's file may not have. What root hands to our group alone is as good as
    ours: systemd's credentials come like that, and Kubernetes' secrets.
    """
    is_handed_over = found.st_uid == 0 and os.geteuid() != 0
    group = stat.S_IWGRP | stat.S_IXGRP if is_handed_over else stat.S_IRWXG
    return group | stat.S_IRWXO


def _identity(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size
