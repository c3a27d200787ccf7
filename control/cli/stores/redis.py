"""`fts redis`: Redis commands on the live view, with `redis-cli` where that is installed."""

import argparse
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from control.cli.exits import Exit
from control.cli.options import EXAMPLE
from control.cli.remote.client import UnreachableError
from control.cli.stores.foreign import add_foreign, become, split
from control.cli.stores.which import Stores
from engine.base.masking import scrub
from engine.base.redis_link import parse_redis_url

_EPILOG = f"""\
examples:
  fts redis                                           interactive
  fts redis XREVRANGE fts:trades:{EXAMPLE.name}:{EXAMPLE.examples[0]} + - COUNT 1
  fts redis XLEN fts:gaps

With a redis-cli or valkey-cli on PATH, and no password, it becomes that, and takes its options.
Otherwise it takes commands, and prints replies as `redis-cli --raw` does.
"""
_PROGRAMS = ("redis-cli", "valkey-cli")
_CONNECT_S = 5.0
_ENDLESS = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR"})


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """`fts redis`."""
    parser = add_foreign(commands, "redis", "read the live view in Redis")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Become redis-cli, or do a little of what it does."""
    loaded, sink, arguments = split("redis", _EPILOG, options.arguments)
    url = Stores.find(loaded).url(sink).reveal()
    address = parse_redis_url(url)
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is not None and not address.password:
        where = ["-s", address.path, "-n", str(address.database)] if address.path else ["-u", url]
        become(program, [*where, *arguments], {})
    with closing(Redis.from_url(url, socket_connect_timeout=_CONNECT_S)) as client:
        try:
            client.ping()
            if arguments:
                return _ask(client, arguments)
            return _converse(client)
        except (RedisError, OSError) as error:
            raise UnreachableError(f"{address}: {scrub(str(error), url)}") from error


def _converse(client: "Redis") -> int:
    """Commands from the standard input, one a line, until it ends."""
    for line in _lines():
        try:
            words = shlex.split(line)
        except ValueError as error:
            sys.stderr.write(f"{error}\n")
            continue
        if words and words[0].lower() in ("quit", "exit"):
            break
        if words:
            _ask(client, words)
    return Exit.OK


def _lines() -> Iterator[str]:
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    while True:
        try:
            yield input("redis> ")
        except EOFError:
            sys.stdout.write("\n")
            return


def _ask(client: "Redis", words: Sequence[str]) -> int:
    if words[0].upper() in _ENDLESS:
        sys.stderr.write(f"fts: {words[0]} takes a redis-cli on PATH\n")
        return Exit.USAGE
    try:
        client.response_callbacks.clear()  # replies as they are
        reply = client.execute_command(*words)  # type: ignore[no-untyped-call]
    except ResponseError as error:
        sys.stderr.write(f"(error) {error}\n")
        return Exit.FAILED
    sys.stdout.buffer.write(b"".join(each + b"\n" for each in _flat(reply)))
    sys.stdout.flush()
    return Exit.OK


def _flat(reply: Any) -> Iterable[bytes]:
    """A reply as lines, what is nested one after the other."""
    if isinstance(reply, list | tuple):
        return [line for each in reply for line in _flat(each)]
    if isinstance(reply, dict):
        return [line for pair in reply.items() for each in pair for line in _flat(each)]
    if isinstance(reply, bytes):
        return [reply]
    return [b"" if reply is None else str(reply).encode()]
