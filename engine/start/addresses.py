"""Addresses of servers: where they are written, what is wrong with them, and who may see them.

The environment comes first, then the file that is named, then the plain key, which may hold no
password.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from engine.base.errors import ConfigError
from engine.base.masking import mask_url
from engine.data.layout import must_be_text
from engine.database.home import in_schema
from engine.messages.settings import VenueSettings


class Secret:
    """Text that does not show itself. `reveal` is the one way out, so its uses can be counted."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself: for the pipe to a child or for a client library."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(****)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class Written(Protocol):
    """A section with an address."""

    @property
    def url(self) -> str | None:
        """Without a password."""

    @property
    def url_file(self) -> str | None:
        """Path of the file that holds it."""


def owner_of(sink: str) -> str:
    """Under which name the address is of who owns a database's tables."""
    return f"{sink}.owner"


def variable_of(section: str) -> str:
    """`FTS_DATABASE_URL`, `FTS_DATABASE_URL_ARCHIVE` for `databases.archive`, and
    `FTS_DATABASE_OWNER_URL` and `FTS_DATABASE_OWNER_URL_ARCHIVE` for their owners.
    """
    sink = section.removesuffix(".owner")
    kind, _, name = sink.upper().partition(".")
    of = "_OWNER" if sink != section else ""
    return f"FTS_DATABASE{of}_URL_{name}" if name else f"FTS_{kind}{of}_URL"


def server_url(
    section: str,
    written: Written,
    check: Callable[[str], object],
    env: Mapping[str, str],
    source: str,
    base: Path,
) -> Secret | None:
    """The address of a server: environment first, then the file named, then the plain key.

    `check` raises a ConfigError that says what is wrong without repeating a password.
    """
    variable = variable_of(section)
    url, url_file = written.url, written.url_file
    in_plain_sight = False
    if env.get(variable):
        origin, text = variable, env[variable].strip()
    elif url is not None and url_file is not None:
        raise ConfigError(f"{source}: {section}.url and {section}.url_file are both set: keep one")
    elif url_file is not None:
        origin = f"{source}: {section}.url_file"
        text = _secret_file(base / at_home(Path(url_file)), origin)
    elif url is not None:
        origin, text, in_plain_sight = f"{source}: {section}.url", url, True
    else:
        return None
    try:
        check(text)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    if in_plain_sight and has_password(text):
        raise ConfigError(
            f"{origin}: holds a password; move it to {variable} or to a file"
            f" named by {section}.url_file"
        )
    return Secret(text)


def in_schemas(
    urls: Mapping[str, Secret], schemas: Mapping[str, str | None], source: str
) -> dict[str, Secret]:
    """The addresses, those of databases with the schema of their tables in them, and their owners'
    as well. `schemas` by the name of the sink.
    """
    found = dict(urls)
    for sink, schema in schemas.items():
        if schema is None:
            continue
        if sink not in urls:
            raise ConfigError(
                f"{source}: {sink}.schema: the private server is this engine's alone and needs"
                f" none; set {sink}.url, {sink}.url_file or {variable_of(sink)}"
            )
        for name in (sink, owner_of(sink)):
            try:
                if name in urls:
                    found[name] = Secret(in_schema(urls[name].reveal(), schema))
            except ConfigError as error:
                raise ConfigError(f"{source}: {sink}.schema: {error}") from None
    return found


def with_credentials(
    venues: Mapping[str, VenueSettings], source: str, base: Path
) -> dict[str, VenueSettings]:
    """The settings with files of credentials by absolute path, which can be read and have a name
    and a secret.
    """
    found = dict(venues)
    for name, settings in venues.items():
        if settings.credentials_file is None:
            continue
        origin = f"{source}: venues.{name}.credentials_file"
        path = base / at_home(Path(settings.credentials_file))
        if not all(_secret_file(path, origin).partition(":")):
            raise ConfigError(f"{origin}: {path} does not say name:secret")
        found[name] = msgspec.structs.replace(settings, credentials_file=str(path))
    return found


def _secret_file(path: Path, origin: str) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{origin}: cannot read {path}") from error
    if not text:
        raise ConfigError(f"{origin}: {path} is empty")
    return text


def check_database_url(url: str) -> None:
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The text of this error repeats the address, password included.
        raise ConfigError(
            "neither a URL (postgresql://user@host/database) nor key=value words"
            " (host=… dbname=…) that PostgreSQL's client understands"
        ) from None


def has_password(url: str) -> bool:
    """Whether a server address carries a password: in a URL or in `key=value` form."""
    if "://" not in url:
        return any(word.strip().startswith("password") for word in url.split())
    parts = urlsplit(url)
    return bool(parts.password) or any(key == "password" for key, _ in parse_qsl(parts.query))


def masked_url(secret: Secret | None) -> str:
    """An address fit for eyes and logs."""
    return mask_url(secret.reveal()) if secret is not None else "private"


def at_home(path: Path) -> Path:
    """`path` with `~` and `~name` filled in."""
    must_be_text(path, "path")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{path}: nobody knows that home directory: set HOME, or choose a state directory with"
            " --state-dir, FTS_STATE_DIR or state_dir"
        ) from None
