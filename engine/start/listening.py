"""Who may reach what listens here: the rule of every port, and the section of the second one."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engine.base.errors import ConfigError

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[metrics]`: a port of their own, beside `/metrics` of the control port, for a network that
    is to see them and no more. Absent `port`: none; 0: a free one.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    path: Annotated[
        str,
        Meta(pattern=r"^(?!/(healthz|livez|readyz|startupz)$)(/[A-Za-z0-9._-]+)+$", max_length=200),
    ] = "/metrics"
    streams: bool = False
    """Whether single streams have metrics, at `/streams` below the path."""


def check_host(section: str, host: str, source: str, *, has_token: bool, has_proxy: bool) -> None:
    """Who listens to more than this machine asks for a token, and nobody else may read that on its
    way. Raises ConfigError.
    """
    if host in LOOPBACK:
        return
    if not has_token:
        raise ConfigError(
            f"{source}: {section}.host: {host!r} is not a loopback address"
            f" ({', '.join(LOOPBACK)}), so clients must show a token: set control.token_file or"
            " FTS_CONTROL_TOKEN"
        )
    if not has_proxy:
        raise ConfigError(
            f"{source}: {section}.host: {host!r} would carry tokens in clear text: put a TLS"
            " proxy in front of it and set control.behind_proxy = true, or listen on 127.0.0.1"
        )
