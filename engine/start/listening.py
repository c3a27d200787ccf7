"""Who may reach what listens here: the rule of every port, and the section of the second one."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engine.base.errors import ConfigError
from engine.messages.settings import Admission

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class ControlConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[control]`: where the control process listens, who may talk to it, what it admits."""

    host: str = "127.0.0.1"
    """Address of the control port; any but a loopback one needs a token and `behind_proxy`."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    """Control port; 0 takes a free one, as `fts demo` does."""
    token_file: str | None = None
    """File with the token that allows everything (mode 0600; root's with 0640, where the engine is
    not root)."""
    read_token_file: str | None = None
    """The same with a token that only allows reading."""
    behind_proxy: bool = False
    """A TLS proxy stands in front (one address may then have all connections): the only way to
    listen to more than this machine."""
    allowed_hosts: list[Annotated[str, Meta(pattern=r"^[A-Za-z0-9.-]{1,253}$")]] = []
    """Names, beside addresses and `localhost`, that requests may call us by."""
    admission: Admission = "green"
    """Worst health that still accepts new streams."""
    health_hold_s: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    """Seconds that a health light must stay better before it improves."""
    instruments_refresh_s: Annotated[float, Meta(ge=1, le=86_400)] = 900.0
    """Seconds between two looks at a venue's instruments; at most 300 while a stream waits for a
    symbol that is not listed."""


class MetricsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[metrics]`: a port of their own, beside `/metrics` of the control port, for a network that
    is to see them and no more. Absent `port`: none; 0: a free one.
    """

    host: str = "127.0.0.1"
    """Address of that port; any but a loopback one needs a token and `control.behind_proxy`."""
    port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    """A port of their own for the metrics; it answers these, the probes and `/healthz`, and no
    command. 0 takes a free one. Absent: none."""
    path: Annotated[
        str,
        Meta(pattern=r"^(?!/(healthz|livez|readyz|startupz)$)(/[A-Za-z0-9._-]+)+$", max_length=200),
    ] = "/metrics"
    """Path of the metrics on that port."""
    streams: bool = False
    """Whether single streams have metrics, at `/streams` below the path, on both ports."""


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
