"""What the private PostgreSQL is started with: tuned for ingest, and what a user adds to that."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from engine.base.durable import write_whole
from engine.base.errors import ConfigError
from engine.database.timescale import SERVER_SETTINGS

_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "256MB",
    # No replica reads this WAL, and `minimal` leaves out what only a replica needs.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Checkpoints by time, not by volume: each makes the next change of a page cost a full page.
    "max_wal_size": "4GB",
    "min_wal_size": "512MB",
    "checkpoint_timeout": "15min",
    "wal_buffers": "16MB",
    "fsync": "on",
    # The engine's own sessions turn this off; others get PostgreSQL's full promise.
    "synchronous_commit": "on",
    # The wheel has no lz4, and pglz costs more CPU than the disk it saves.
    "wal_compression": "off",
    # Ours: writer, listings and registry, for moments migration, witness, doctor and proof. The
    # rest is for people and their programs.
    "max_connections": "50",
    "autovacuum_naptime": "1min",
    # Tick tables are only appended to: freeze rarely, and never for a few thousand rows.
    "autovacuum_vacuum_insert_threshold": "1000000",
    "autovacuum_vacuum_insert_scale_factor": "0.5",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_min_messages": "warning",
    "cluster_name": "fintickstreams",
}
_WITH_TIMESCALEDB: Final[Mapping[str, str]] = {
    **{name: str(least) for name, least in SERVER_SETTINGS.items()},
    # Nothing of ours calls home.
    "timescaledb.telemetry_level": "off",
}
_OURS: Final = frozenset(
    {
        "listen_addresses", "port", "unix_socket_directories", "unix_socket_permissions",
        "unix_socket_group", "data_directory", "config_file", "hba_file", "ident_file",
        "external_pid_file",
    }
)  # fmt: skip
"""Where the server is and whom it lets in: not for a configuration to change."""


def check_settings(settings: Mapping[str, str]) -> None:
    """Raises ConfigError for a setting that a configuration must not give the private server."""
    for name in settings:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?", name):
            raise ConfigError(f"{name!r} is no name of a PostgreSQL setting")
        if name.lower() in _OURS:
            raise ConfigError(f"{name} belongs to the engine: the private server is reached by it")


def settings_with(added: Mapping[str, str]) -> dict[str, str]:
    """All settings, those of a configuration last."""
    loads = "timescaledb" in added.get("shared_preload_libraries", "")
    return {**_SETTINGS, **(_WITH_TIMESCALEDB if loads else {}), **added}


def remembered(file: Path, added: Mapping[str, str] | None) -> Mapping[str, str]:
    """What a configuration adds, or, where none was read, what it added the last time."""
    if added is not None:
        write_whole(file, msgspec.json.encode(added))
        return added
    try:
        known = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
        check_settings(known)
    except (OSError, msgspec.DecodeError, ConfigError):
        return {}
    return known
