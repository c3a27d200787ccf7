"""Where everything of an engine is: the note that it leaves for others, and lines for people."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import msgspec

from control.cli.footing import Footing
from control.cli.ground import Ground
from control.cli.stores.which import psql_command
from engine.base.clock import wall_ns
from engine.data.names import DEFAULT_DATABASE, is_database
from engine.process import instance
from engine.process.instance import EngineNote
from engine.servers.quoting import shell_word
from engine.start.addresses import masked_url

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where to look: shown at start and beside the table."""

    psql: str
    """A command a line, as all of these."""
    redis: str
    control: str
    dashboard: str
    log_file: Path
    databases: Mapping[str, str] = field(default_factory=dict)
    """Those beside the default."""
    metrics: str = ""
    """Where they have a port of their own."""

    @classmethod
    def of(cls, note: EngineNote, ground: Ground) -> "Addresses":
        """From the engine's note, and what it stands on."""
        log_file, config = ground.layout.log_file, ground.options.loaded.config
        key = config.redis.key_template.format(
            prefix=config.redis.prefix, kind="{trades,book,quotes,…}", venue="<venue>",
            symbol="<symbol>",
        )  # fmt: skip
        redis = f"{note.redis_cli}\nstream keys {key}" if note.redis_cli else "off"
        psql = f"{psql_command(log_file.parent)}\n{note.psql}" if note.psql else "off"
        return cls(
            psql,
            redis,
            note.control_url,
            f"{note.control_url}/ui",
            log_file,
            note.databases,
            note.metrics_url,
        )

    def lines(self, *, brief: bool = False) -> list[str]:
        """What can be copied has a line of its own; `brief`: the first of each alone."""
        found = {
            "database": self.psql,
            **self.databases,
            "redis": self.redis,
            "control": self.control,
            "dashboard": self.dashboard,
            **({"metrics": self.metrics} if self.metrics else {}),
            "log": str(self.log_file),
        }
        return [
            f"{'' if number else name:<9} {line}"
            for name, text in found.items()
            for number, line in enumerate(text.split("\n")[: 1 if brief else None])
        ]


def publish(ground: Ground, footing: Footing) -> Addresses:
    """Leave the note for others, and say where everything is."""
    config = ground.options.loaded.config
    note = make_note(ground, config.control.host, footing.port)
    if footing.metrics is not None:
        url = http_url(config.metrics.host, footing.metrics.getsockname()[1]) + config.metrics.path
        note = msgspec.structs.replace(note, metrics_url=url)
    if ground.options.back is not None and (before := instance.read_note(ground.layout)):
        note = msgspec.structs.replace(note, started_ns=before.started_ns)  # it is the same process
    instance.write_note(ground.layout, note)
    addresses = Addresses.of(note, ground)
    for line in addresses.lines() if ground.options.back is None else ():
        _log.info(line)
    return addresses


def make_note(ground: Ground, host: str, port: int) -> EngineNote:
    """Where everything is, without passwords."""
    database, redis = (
        masked_url(ground.urls[name]) if name in ground.urls else "off"
        for name in ("database", "redis")
    )
    return EngineNote(
        pid=os.getpid(),
        control_url=http_url(host, port),
        database=database,
        psql=f"psql {shell_word(database)}" if "database" in ground.urls else "",
        redis=redis,
        redis_cli=_redis_cli(redis) if "redis" in ground.urls else "",
        started_ns=wall_ns(),
        databases={
            name: masked_url(url)
            for name, url in ground.urls.items()
            if is_database(name) and name != DEFAULT_DATABASE
        },
    )


def http_url(host: str, port: int) -> str:
    """The address of a port of ours."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _redis_cli(url: str) -> str:
    if url.startswith("unix://"):
        path = unquote(url.removeprefix("unix://").partition("?")[0])
        return f"redis-cli -s {shell_word(path)}"
    return f"redis-cli -u {shell_word(url)}"
