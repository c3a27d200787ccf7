"""What `fts doctor` says of what is reached over the network: our own port, Redis, the venues."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import RedisError

from control.cli.findings import Complaint, Finding, fine
from control.cli.footing import bind
from control.cli.ground import ServiceOptions, redis_plan
from engine.base.errors import ConfigError
from engine.base.masking import scrub
from engine.data.layout import Layout
from engine.process import instance
from engine.start.addresses import masked_url
from engine.start.config import LoadedConfig
from engine.start.redis_memory import does_not_fit
from shards.venues import VENUES

PORT_TAKEN: Final = Complaint("port_taken", "the engine does not start")
PORT_EPHEMERAL: Final = Complaint(
    "port_ephemeral", "any outgoing connection may have it when the engine starts, which then fails"
)
REDIS_UNREACHABLE: Final = Complaint(
    "redis_unreachable", "nothing is published; the database does not depend on it"
)
REDIS_EVICTS: Final = Complaint(
    "redis_evicts", "it drops whole streams, and shared limits, without a word to anybody"
)
REDIS_SMALL: Final = Complaint("redis_small", "the largest streams keep fewer rows than they may")
REDIS_REFUSES: Final = Complaint("redis_refuses", "nothing is published while it takes nothing")
REDIS_VOLATILE: Final = Complaint(
    "redis_volatile", "after its restart the streams are empty, and readers begin anew"
)
VENUE_UNREACHABLE: Final = Complaint(
    "venue_unreachable", "nothing comes from there, which becomes gaps; `fts up` keeps trying"
)
VENUE_TLS: Final = Complaint(
    "venue_tls", "somebody else answers in the venue's name: a proxy that reads along, or worse"
)

_TIMEOUT_S: Final = 2.0
_AT_ONCE: Final = 16
_LOCAL_PORTS: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def control_port(loaded: LoadedConfig, layout: Layout, local_ports: Path = _LOCAL_PORTS) -> Finding:
    """Whether an engine could listen where it is to; the one that runs here does already."""
    host, port = loaded.config.control.host, loaded.config.control.port
    if port == 0:
        return fine("control port", "a free one")
    note = instance.read_note(layout)
    if note is not None and urlsplit(note.control_url).port == port:
        return fine("control port", f"{port} on {host}, the engine's that runs")
    try:
        bind(host, port).close()
    except ConfigError as error:
        text, _, advice = str(error).partition("; ")
        return PORT_TAKEN.problem("control port", text.removeprefix("control port "), advice)
    with contextlib.suppress(OSError, ValueError):
        first, last = map(int, local_ports.read_text(encoding="ascii").split())
        if first <= port <= last:
            return PORT_EPHEMERAL.note(
                "control port",
                f"{port} is free now, and one of those that outgoing connections take:"
                f" {first} to {last}",
                f"choose one below {first}, or sysctl net.ipv4.ip_local_reserved_ports={port}",
            )
    return fine("control port", f"{port} on {host} is free")


def live_server(loaded: LoadedConfig, layout: Layout) -> Iterator[Finding]:
    """Redis: whether it answers, takes rows, and keeps them."""
    if (secret := loaded.urls.get("redis")) is None:
        yield fine("redis", "private Valkey, started with the engine; in memory alone")
        return
    url, shown = secret.reveal(), masked_url(secret)
    waits = {"socket_connect_timeout": _TIMEOUT_S, "socket_timeout": _TIMEOUT_S}
    try:
        with closing(Redis.from_url(url, **waits)) as client:
            client.ping()
            told = _told(client)
    except (RedisError, OSError, ValueError) as error:
        yield REDIS_UNREACHABLE.problem(
            "redis", f"{shown}: {scrub(str(error), url)}",
            "check the address, or run with --no-redis",
        )  # fmt: skip
        return
    yield fine("redis", f"{shown} answers")
    yield from redis_findings(told, redis_plan(ServiceOptions(loaded), layout).needed_bytes)


def _told(client: Redis) -> dict[str, Any]:
    """INFO, with the setting `save` beside it, as far as this user may see them."""
    told: dict[str, Any] = {}
    with contextlib.suppress(RedisError):
        told |= client.info()
        told["save"] = client.config_get("save").get("save")
    return told


def redis_findings(told: dict[str, Any], needed_bytes: int) -> Iterator[Finding]:
    """What is wrong with a server that says this of itself."""
    policy, most = str(told.get("maxmemory_policy", "")), int(told.get("maxmemory", 0))
    if policy.startswith("allkeys"):
        yield REDIS_EVICTS.problem(
            "redis", f"maxmemory-policy is {policy}", "CONFIG SET maxmemory-policy noeviction"
        )
    if most and (text := does_not_fit(needed_bytes, most, "its maxmemory")):
        yield REDIS_SMALL.note(
            "redis", text, "raise maxmemory there, or lower redis.stream_maxlen or redis.memory_mb"
        )
    if told.get("role") == "slave":
        yield REDIS_REFUSES.problem("redis", "it is a replica", "give the primary's address")
    if told.get("rdb_last_bgsave_status") == "err":
        yield REDIS_REFUSES.problem(
            "redis", "its last snapshot failed, and until one succeeds it may refuse every write",
            "look into its log (disk full? vm.overcommit_memory = 0?), then BGSAVE",
        )  # fmt: skip
    if not told.get("aof_enabled", 1) and told.get("save") == "":
        yield REDIS_VOLATILE.note(
            "redis", "it keeps nothing over its own restart",
            "CONFIG SET appendonly yes, where readers may not miss rows; the database has them all",
        )  # fmt: skip


def venues(loaded: LoadedConfig) -> Iterator[Finding]:
    """Each of them, all at once: one that says nothing takes its time for itself."""
    urls = {}
    for name, venue in VENUES.items():
        override = loaded.config.venues.get(name)
        urls[name] = (override.rest_url if override else None) or venue.rest_url
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(lambda item: venue_finding(*item), urls.items())


def venue_finding(name: str, url: str) -> Finding:
    """Whether it can be reached, and is who it says."""
    topic, parts = f"venue {name}", urlsplit(url)
    port = 443 if parts.scheme == "https" else 80
    try:
        port = parts.port or port
        with socket.create_connection((parts.hostname or "", port), timeout=_TIMEOUT_S) as link:
            if parts.scheme == "https":
                context = ssl.create_default_context()
                context.wrap_socket(link, server_hostname=parts.hostname).close()
    except ssl.SSLCertVerificationError as error:
        return VENUE_TLS.note(
            topic, f"{parts.hostname}:{port} shows a wrong certificate: {error.verify_message}",
            "let this address pass the proxy unread, or put the proxy's certificate among the"
            " system's (SSL_CERT_FILE names a file); an expired one: check this machine's clock",
        )  # fmt: skip
    except (OSError, ValueError):
        return VENUE_UNREACHABLE.note(
            topic, f"{parts.hostname}:{port} cannot be reached from here",
            "look at DNS, firewall and proxy; `fts demo` needs no network",
        )  # fmt: skip
    return fine(topic, f"{parts.hostname}:{port} answers")
