"""The reference of the configuration is made of the settings: types, defaults, texts, and what a
running engine takes over.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import Meta

from engine.base.errors import ConfigError
from engine.data.kinds import KINDS
from engine.messages.settings import RedisKind, VenueSettings
from engine.start.config import ENVIRONMENT, Config, LoadedConfig, StreamsConfig
from engine.start.file.change import changed
from tests.docs.generated import agree

PAGE = "docs/configuration.md"
_NAMED: Final = {
    "venues": ("venues.<name>", VenueSettings),
    "streams": ("streams[]", StreamsConfig),
}
_MORE: Final = {
    "control": "More: [Control API](control-api.md).",
    "metrics": "More: [Metrics](metrics.md).",
    "health": "More: [how lights turn](#health).",
    "database": "More: [The database](database.md), [several of them](#several-databases),"
    " [Storage](storage.md), [Bars](bars.md), [Parquet files](lake.md).",
    "redis": "More: [Redis](redis.md).",
    "limits": "More: [Limits](limits.md).",
    "log": "More: [Logs](logs.md).",
    "venues": "More: [Venues](venues/README.md),"
    " [limits of your own](limits.md#limits-of-your-own).",
    "streams": "More: [which streams run](#streams-of-the-file-and-streams-of-the-api).",
}
_VARIABLES: Final = {f"{part}.{key}": name for name, (part, key) in ENVIRONMENT.items()} | {
    "state_dir": "FTS_STATE_DIR", "share": "FTS_SHARE", "database.url": "FTS_DATABASE_URL",
    "database.owner.url": "FTS_DATABASE_OWNER_URL", "redis.url": "FTS_REDIS_URL",
    "control.token_file": "FTS_CONTROL_TOKEN", "control.read_token_file": "FTS_CONTROL_READ_TOKEN",
}  # fmt: skip
_TYPES: Final = {bool: "true or false", int: "integer", float: "number", str: "text"}


class Row(NamedTuple):
    """A key of the reference."""

    key: str
    default: str
    type: str
    is_live: bool
    meaning: str

    def __str__(self) -> str:
        live = "at once" if self.is_live else ""
        variable = f" Variable: `{_VARIABLES[self.key]}`." if self.key in _VARIABLES else ""
        return (
            f"| `{self.key}` | {self.default} | {self.type} | {live} | {self.meaning}{variable} |"
        )


def test_the_reference_is_made_of_the_settings() -> None:
    agree(PAGE, "".join(sections()))


def sections() -> Iterator[str]:
    """A heading and a table for each section of the file."""
    yield table("The file itself", "", list(rows(Config, "")))
    for field in msgspec.structs.fields(Config):
        name, struct = _NAMED.get(field.encode_name, (field.encode_name, field.type))
        if is_section(struct):
            written = "[[streams]]" if name == "streams[]" else f"[{name}]"
            text = f"{first_sentence(struct)} {_MORE.get(field.encode_name, '')}".strip()
            yield table(f"`{written}`", text, list(rows(struct, f"{name}.")))
        elif field.encode_name == "databases":
            yield table("`[databases.<name>]`", "", [named_databases()])


def table(title: str, text: str, found: list[Row]) -> str:
    """In Markdown."""
    head = "| key | default | value | SIGHUP | meaning |\n|---|---|---|---|---|\n"
    said = f"{text[:1].upper()}{text[1:]}\n\n" if text else ""
    return f"\n### {title}\n\n{said}{head}" + "".join(f"{row}\n" for row in found)


def rows(struct: type[msgspec.Struct], above: str) -> Iterator[Row]:
    """The keys of a section and of those below it; of the file, those that are in no section."""
    said = texts(struct)
    for field in msgspec.structs.fields(struct):
        key = f"{above}{field.encode_name}"
        if key == "shards.ring_records":
            yield from ring_rows(said[field.name])
        elif is_section(field.type):
            if above:
                yield from rows(field.type, f"{key}.")
        elif key not in (*_NAMED, "databases"):
            yield row(key, field, said[field.name])


def row(key: str, field: msgspec.structs.FieldInfo, said: str) -> Row:
    """One key. What its text says of absence is its default."""
    meaning, _, absent = said.partition("Absent: ")
    value = field.default
    if value is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.NODEFAULT:
        default = "needed"
    elif absent:
        default = absent.rstrip(".")
    else:
        default = "" if value in (None, "", [], {}) else f"`{shown(value)}`"
    name = "database.routes[]" if key == "database.routes" else key
    return Row(name, default, value_of(field.type), is_live(key), meaning.strip())


def ring_rows(said: str) -> Iterator[Row]:
    """Capacities, whose defaults are the kinds'."""
    meaning = said.partition("Absent: ")[0].strip()
    for kind in KINDS.values():
        default = f"`{kind.ring_records_min}`"
        if kind.is_fast:
            default += f" to `{kind.ring_records}`, by the number of streams"
        key = f"shards.ring_records.{kind.name}"
        yield Row(key, default, "integer, 64 to 2^30", is_live(key), meaning)


def named_databases() -> Row:
    """Those beside the default one have its keys."""
    text = (
        "A database beside the default one: the keys of `[database]`, but for `private_settings`"
        " and `registry_name`; its address is needed."
    )
    return Row("databases.<name>.*", "", "table", False, text)


# -- what a type is called -----------------------------------------------------------------------


def value_of(kind: Any) -> str:
    """What may be written."""
    if get_origin(kind) is Annotated:
        plain, *metas = get_args(kind)
        return value_of(plain) + "".join(bounds(meta) for meta in metas if isinstance(meta, Meta))
    if get_origin(kind) in (Union, UnionType):
        (known,) = [each for each in get_args(kind) if each is not type(None)]
        return value_of(known)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {value_of(get_args(kind)[0])}".replace("table", "tables")
    if get_origin(kind) is tuple:
        return "`[yellow, red]`"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{each.value}`" for each in kind)
    return _TYPES.get(kind, "table")


def bounds(meta: Meta) -> str:
    """From where to where, where that is said."""
    if meta.ge is None or meta.le is None:
        return ""
    return f", {shown(meta.ge)} to {shown(meta.le)}"


def shown(value: Any) -> str:
    """As TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(each) for each in value)}]"
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e5 else str(int(value))


# -- what the source says ------------------------------------------------------------------------


def texts(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The text below each field. A key without one fails here."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for statement in body.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and name:
            found[name] = " ".join(inspect.cleandoc(str(statement.value.value)).split())
    plain = {field.name for field in msgspec.structs.fields(struct) if not is_section(field.type)}
    assert plain - found.keys() - {*_NAMED, "databases"} == set(), f"{struct.__name__}: no text"
    return found


def is_section(kind: Any) -> bool:
    """Whether keys are below it."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def first_sentence(struct: type[msgspec.Struct]) -> str:
    """Of what the section is, without its name."""
    said = " ".join(inspect.getdoc(struct).split())  # type: ignore[union-attr]
    return re.split(r"(?<=\.)\s", said.partition("`: ")[2] or said)[0]


# -- what SIGHUP changes -------------------------------------------------------------------------


def is_live(key: str) -> bool:
    """Whether an engine takes over another value of this key, by asking what it would do."""
    steps = key.replace("<name>", "name").replace("streams[]", "streams.0").split(".")
    try:
        change = changed(loaded(BEFORE), loaded(with_another(BEFORE, steps, _OTHERS.get(key))))
    except ConfigError:
        return True  # it would, if it were not for this value
    assert bool(change.now) != bool(change.later), (key, change)
    return bool(change.now)


BEFORE: Final = Config(
    venues={"name": VenueSettings()}, streams=[StreamsConfig(venue="name", symbols=["one"])]
)


_OTHERS: Final = {
    "health.hold_s": {"db": 1.0}, "health.process_memory_mb": (1.0, 2.0),
    "redis.kinds": {"book": RedisKind()},
    "redis.key_template": "{prefix}:{venue}:{symbol}:{kind}",
}  # fmt: skip
"""Where a section looks at its values itself."""


def loaded(config: Config) -> LoadedConfig:
    """As if it had been read."""
    return LoadedConfig(config, "fts.toml", Path("/nowhere"), {})


def with_another(inside: Any, steps: list[str], value: Any) -> Any:
    """The same with `value` there, or with any other one."""
    if not steps:
        return another(inside) if value is None else value
    step, *below = steps
    if isinstance(inside, list):
        return [with_another(inside[int(step)], below, value)]
    if isinstance(inside, dict):
        return {**inside, step: with_another(inside[step], below, value)}
    (name,) = [each.name for each in msgspec.structs.fields(inside) if each.encode_name == step]
    changed_one = with_another(getattr(inside, name), below, value)
    return msgspec.structs.replace(inside, **{name: changed_one})


def another(value: Any) -> Any:
    """A value that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + (value == 0)
    if isinstance(value, tuple):
        return tuple(each / 2 for each in value)
    return [*value, value] if isinstance(value, list) else f"not {value}"
