"""Which servers a command line means: those of the engine that runs, the
configured ones, or the private database that an engine left.

The engine is chosen as everywhere: the one on the state directory, or the demo below it.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from control.cli.options import used_places
from control.cli.remote.client import UnreachableError
from engine.base.errors import ConfigError
from engine.base.masking import MASK
from engine.data.layout import Layout
from engine.data.names import DEFAULT_DATABASE, database_sink, is_database
from engine.process import instance
from engine.process.instance import EngineNote
from engine.servers import host
from engine.servers.postgres import has_database
from engine.start.addresses import Secret, masked_url
from engine.start.config import LoadedConfig, default_state_dir

_OFF = "off"


@dataclass(frozen=True, slots=True)
class Stores:
    """What there is."""

    loaded: LoadedConfig
    engine: EngineNote | None
    """The engine that runs."""
    layout: Layout | None
    """Where a private database is that no engine has open."""

    @classmethod
    def find(cls, loaded: LoadedConfig) -> "Stores":
        """Look at the state directory and the demo below it."""
        places = used_places(loaded)
        for layout in places:
            if (note := instance.read_note(layout)) is not None:
                return cls(loaded, note, None)
        kept = [each for each in places if has_database(each.state_dir)]
        return cls(loaded, None, kept[0] if kept and loaded.database_url is None else None)

    def opened_url(self, sink: str) -> Secret:
        """Where a database answers. A private one that nobody has open is opened for the rest of
        this process's life. Raises as `url` does, and ServerStartError.
        """
        if self.layout is not None and sink == DEFAULT_DATABASE:
            return Secret(host.enter(self.layout))
        return self.url(sink)

    def url(self, name: str) -> Secret:
        """Where a sink's server is: the engine's or the configured one. Raises UnreachableError,
        and ConfigError for a database that nobody has named.
        """
        configured = self.loaded.urls.get(name)
        if self.engine is None:
            if configured is None:
                if _is_named_database(name):
                    raise _no_such_database(self.loaded.source, name, self.loaded.urls)
                nothing = _NOT_STORED if name == "database" else _NOT_LIVE
                raise UnreachableError(nothing.format(self.loaded.state_dir))
            return configured
        noted = self.engine.address(name)
        if noted == _OFF:
            engine = f"the engine that runs (pid {self.engine.pid})"
            if _is_named_database(name):
                raise _no_such_database(engine, name, self.engine.databases)
            raise UnreachableError(f"{engine} has no {name}")
        if MASK not in noted:
            return Secret(noted)
        if configured is None or masked_url(configured) != noted:
            raise ConfigError(
                f"the engine that runs (pid {self.engine.pid}) uses {noted}: name its configuration"
                " with --config, for the password"
            )
        return configured


def _is_named_database(sink: str) -> bool:
    return is_database(sink) and sink != DEFAULT_DATABASE


def _no_such_database(who: str, sink: str, sinks: Iterable[str]) -> ConfigError:
    named = ", ".join(sorted(filter(_is_named_database, sinks)))
    return ConfigError(f"{who} has no {sink}, but {named or 'the default database alone'}")


def add_database(parser: argparse.ArgumentParser) -> None:
    """`--database`."""
    parser.add_argument(
        "--database", metavar="NAME", help="one of [databases.NAME]; absent: the default one"
    )


def chosen_sink(options: argparse.Namespace) -> str:
    """The sink of the database that was chosen."""
    return database_sink(options.database) if options.database else DEFAULT_DATABASE


def psql_command(state_dir: Path) -> str:
    """What opens the database of this state directory, whatever else runs."""
    chosen = "" if state_dir == default_state_dir() else f" --state-dir {quote(str(state_dir))}"
    return f"fts psql{chosen}"


_NOT_STORED = (
    "nothing has been stored in {} yet; `fts demo` or `fts up` does, or name another directory with"
    " --state-dir"
)
_NOT_LIVE = (
    "no engine runs on {}, and its private Valkey keeps nothing when it ends; start one with"
    " `fts up` or `fts demo`"
)
