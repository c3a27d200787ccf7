"""Children that know the toys: a line in each registry, then what the product runs."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from engine.data.kinds import KINDS
from engine.data.names import CARRIES, StreamKind
from engine.messages.pipes import ToChild
from engine.messages.settings import ShardSettings, WriterSettings
from engine.process.pipe import Pipe
from tests.toys.kind import SETTLEMENT

Put = Callable[[Mapping[Any, Any], Any, Any], None]


def register(put: Put) -> None:
    """The lines. Kinds come first, as in the product: modules derive from them what they need when
    they are imported.
    """
    put(KINDS, SETTLEMENT.name, SETTLEMENT)
    put(CARRIES, StreamKind.FUNDING, (SETTLEMENT.name,))
    toy = import_module("tests.toys.venue")
    put(import_module("shards.venues").VENUES, toy.NAME, toy.VENUE)
    put(import_module("engine.writer.sinks").SINKS, "toy", _make_sink)


def sink_path(state_dir: Path) -> Path:
    """Where the toy sink of an engine writes."""
    return state_dir / "toy.jsonl"


def _make_sink(settings: WriterSettings, _: object) -> Any:
    return import_module("tests.toys.sink").ToySink(sink_path(Path(settings.paths.state_dir)))


def _put(registry: Mapping[Any, Any], name: Any, value: Any) -> None:
    cast("dict[Any, Any]", registry)[name] = value


async def shard(settings: ShardSettings, pipe: Pipe[ToChild]) -> int:
    """A shard."""
    register(_put)
    return cast("int", await import_module("shards.main").run(settings, pipe))


async def writer(settings: WriterSettings, pipe: Pipe[ToChild]) -> int:
    """A writer."""
    register(_put)
    return cast("int", await import_module("engine.writer.main").run(settings, pipe))
