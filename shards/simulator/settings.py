"""What a simulator can be told, and its command-line form."""

import argparse
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

from shards.simulator.core.limits import WEIGHT, VenueLimit
from shards.simulator.core.pace import MAX_RATE, check_pace
from shards.simulator.venues import USUAL, chosen

__all__ = ["SimulatorSettings", "add_arguments", "parse_rate", "settings_from"]

_SYMBOL_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """One simulator process."""

    port: int = 0
    """0 takes a free one; the listening line says which."""
    certificate: Path | None = None
    """Of TLS, with its key in the same file: venues then have a port of their own."""
    venues: str = ""
    """Names with commas between them (`shards.simulator.venues.chosen`)."""
    trades_per_s: float = 2000.0
    """Over all venues; infinity means as fast as the sockets take it."""
    on_schedule: bool = False
    """What happens late has the time at which it was due, and nothing is left out."""
    book_speed: float = 1.0
    """Steps of a book in the time of one, 100 ms."""
    symbols: int = 10
    """Instruments per venue."""
    seed: int = 1
    ledger: Path | None = None
    ledger_in_sums: bool = False
    """Trades, books and quotes as sums alone: nothing grows with time."""
    replay: Path | None = None
    speed: float = 1.0
    """Replay pace; 0 is as fast as possible."""
    binance_share: float = 0.8
    """Part of all trades that happen on the first venue; the others share the rest alike."""
    slow_book_s: float = 0.5
    """Cadence of Hyperliquid's default book. The venue's own is 5.4 s; a demo wants life."""
    ping_s: float = 180.0
    """Interval of Binance's ping frames."""
    liquidations_per_minute: float = 120.0
    """Over all symbols of Binance that somebody listens to; one symbol has one a second at most."""
    enforce_limits: bool = False
    """Refuse what is above the venues' limits: REST weight, messages and connections."""
    limits_used: Path | None = None
    """Where to say at the end what was used of each limit."""
    binance_weight: int = 2400
    """REST weight a minute."""
    hyperliquid_weight: int = 1200
    ban_s: float = 120.0
    """First ban of a client that ignores 429; each further one is twice as long."""
    exit_with_stdin: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is opened."""
        if not 1 <= self.symbols <= _SYMBOL_LIMIT:
            raise ValueError(f"symbols must be 1 to {_SYMBOL_LIMIT}, not {self.symbols}")
        chosen(self.venues)
        if not 0 < self.binance_share < 1:
            raise ValueError("binance_share must be between 0 and 1")
        if not self.trades_per_s >= 0 or self.speed < 0:
            raise ValueError("rate and speed must not be negative")
        if self.certificate is not None:
            tls_context(self.certificate)
        check_pace(self.trades_per_s, self.book_speed, on_schedule=self.on_schedule)
        if self.slow_book_s <= 0 or self.ping_s <= 0:
            raise ValueError("book cadence and ping interval must be above 0")
        if not 0 <= self.liquidations_per_minute < MAX_RATE:
            raise ValueError("liquidations per minute must not be negative")
        if min(self.binance_weight, self.hyperliquid_weight) < 1 or self.ban_s <= 0:
            raise ValueError("weight limits and bans must be above 0")

    def told(self, limit: VenueLimit) -> VenueLimit:
        """Give a limit as the options have it."""
        weights = {"binance_futures": self.binance_weight, "hyperliquid": self.hyperliquid_weight}
        if limit.what != WEIGHT or limit.shared not in weights:
            return limit
        return replace(limit, most=weights[limit.shared])


def tls_context(certificate: Path) -> ssl.SSLContext:
    """What a server needs to speak TLS. Raises ValueError for a file that is no certificate with
    its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate)
    except OSError as error:
        raise ValueError(f"{certificate} is no certificate with its key: {error}") from error
    return context


def parse_rate(value: object) -> float:
    """Read a trade rate: a number of trades per second, or `max`."""
    if value == "max":
        return MAX_RATE
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"a rate is a number or 'max', not {value!r}")
    try:
        rate = float(value)
    except ValueError:
        raise ValueError(f"a rate is a number or 'max', not {value!r}") from None
    if not 0 <= rate <= MAX_RATE:
        raise ValueError(f"a rate is not negative, unlike {value!r}")
    return rate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the simulator's options to a parser."""
    add = parser.add_argument
    add("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    add("--certificate", type=Path, metavar="FILE", help="venues speak TLS; with its key, as PEM")
    add("--venues", default="", metavar="LIST", help=f"or all (default: {','.join(USUAL)})")
    add("--rate", default="2000", help="trades per second over all venues, or max")
    add("--on-schedule", action="store_true", help="late rows have the time at which they were due")
    add("--book-speed", type=float, default=1.0, help="steps of a book in each 100 ms")
    add("--symbols", type=int, default=10, help="instruments per venue")
    add("--seed", type=int, default=1, help="same seed, same market")
    add("--ledger", type=Path, help="directory for the record of everything sent")
    add("--ledger-in-sums", action="store_true", help="trades, books and quotes as sums alone")
    add("--replay", type=Path, help="directory of a recorded session to serve instead")
    add("--speed", type=float, default=1.0, help="pace of the replay; 0 is as fast as possible")
    add("--binance-share", type=float, default=0.8, help="part of all trades on binance_linear")
    add("--slow-book", type=float, default=0.5, help="seconds between hyperliquid_perp books")
    add("--ping", type=float, default=180.0, help="seconds between ping frames")
    add("--liquidations-per-minute", type=float, default=120.0, help="on binance_linear")
    add("--enforce-limits", action="store_true", help="refuse what is above the venues' limits")
    add(
        "--limits-used",
        type=Path,
        metavar="FILE",
        help="say there at the end what was used of each",
    )
    add("--binance-weight", type=int, default=2400, help="REST weight per minute")
    add("--hyperliquid-weight", type=int, default=1200, help="REST weight per minute")
    add("--ban", type=float, default=120.0, help="seconds of the first ban (418) after many 429")
    add("--exit-with-stdin", action="store_true", help="exit when standard input ends")
    add("--json", action="store_true", help="accepted everywhere; the output is JSON anyway")


def settings_from(args: argparse.Namespace) -> SimulatorSettings:
    """Make settings of parsed options. Raises ValueError with what is wrong."""
    return SimulatorSettings(
        port=args.port,
        certificate=args.certificate,
        venues=args.venues,
        trades_per_s=parse_rate(args.rate),
        on_schedule=args.on_schedule,
        book_speed=args.book_speed,
        symbols=args.symbols,
        seed=args.seed,
        ledger=args.ledger,
        ledger_in_sums=args.ledger_in_sums,
        replay=args.replay,
        speed=args.speed,
        binance_share=args.binance_share,
        slow_book_s=args.slow_book,
        ping_s=args.ping,
        liquidations_per_minute=args.liquidations_per_minute,
        enforce_limits=args.enforce_limits,
        limits_used=args.limits_used,
        binance_weight=args.binance_weight,
        hyperliquid_weight=args.hyperliquid_weight,
        ban_s=args.ban,
        exit_with_stdin=args.exit_with_stdin,
    )
