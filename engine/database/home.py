"""The schema of our tables, said in the address, so that every program that gets that knows it.

It is the `search_path` among the address's `options`: libpq hands those to the server, in `psql` as
in our sessions. Where a pool refuses them, a session sets it itself.
"""

import re
from typing import Any, Final
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine.base.errors import ConfigError

_SAID: Final = re.compile(r'(?P<others>.*?)-c search_path="(?P<name>(?:[^"]|"")+)"', re.DOTALL)
_BYTES_MAX: Final = 63


def in_schema(database_url: str, schema: str) -> str:
    """The address, with its tables in `schema`. Raises ConfigError for what can be no name of one,
    and for an address that names a `search_path` of its own.
    """
    if not schema or "\0" in schema or len(schema.encode()) > _BYTES_MAX:
        raise ConfigError(f"{schema!r} can be no schema: a name has 1 to {_BYTES_MAX} bytes")
    if schema.lower().startswith("pg_") or schema == "information_schema":
        raise ConfigError(f"{schema!r} is PostgreSQL's own: choose another name")
    options = _options(database_url)
    if schema_of(database_url) == schema:
        return database_url
    if "search_path" in options:
        raise ConfigError(f"the address names a search_path itself, and this {schema!r}: keep one")
    name = re.sub(r"([\\\s])", r"\\\1", schema.replace('"', '""'))
    options = f'{options} -c search_path="{name}"'.strip()
    if "://" not in database_url:
        return make_conninfo(database_url, options=options)
    head, _, query = database_url.partition("?")
    others = [each for each in query.split("&") if each and not each.startswith("options=")]
    return f"{head}?{'&'.join([*others, f'options={quote(options)}'])}"


def schema_of(database_url: str) -> str | None:
    """The schema that `in_schema` put there; else None."""
    said = _SAID.fullmatch(_options(database_url))
    if said is None:
        return None
    return re.sub(r"\\(.)", r"\1", said["name"], flags=re.DOTALL).replace('""', '"')


def says_no_more(options: str) -> bool:
    """Whether `options` say nothing but the schema."""
    said = _SAID.fullmatch(options)
    return said is not None and not said["others"]


def _options(database_url: str) -> str:
    said: dict[str, Any] = conninfo_to_dict(database_url)
    return str(said.get("options") or "")
