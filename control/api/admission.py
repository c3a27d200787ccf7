"""Whether a new stream may begin: the engine's health against the policy, and what venues offer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.http.errors import ApiError
from control.state.health import Health
from engine.data.instrument import ENDED_STATES, Instrument, InstrumentState
from engine.data.names import StreamKind, Transport
from engine.messages.settings import Admission
from engine.messages.streams import Knobs
from engine.process.metrics import AdmissionMetrics
from shards.venues.kit import Venue, capabilities

_MAY_TRADE = frozenset({InstrumentState.TRADING, InstrumentState.UNKNOWN})
"""A word of the venue's that nobody has mapped keeps no stream from starting."""


def may_trade(instrument: Instrument) -> bool:
    """Whether rows of it may come now."""
    return instrument.state in _MAY_TRADE


@dataclass(slots=True)
class Admissions:
    """The gate in front of `POST /streams`. Policy and limit change with the configuration."""

    venues: Mapping[str, Venue]
    policy: Admission
    max_rows_per_copy: int | None
    """The configured one."""
    metrics: AdmissionMetrics = field(default_factory=AdmissionMetrics)

    def check_health(self, health: Health) -> None:
        """Raises ApiError (503) with the reason and when to try again."""
        if reason := health.refusal(self.policy):
            raise ApiError("unhealthy", f"no new streams while {reason}", retry_after_s=5.0)

    def check_instrument(
        self, instrument: Instrument, field: str = "", *, may_wait: bool = False
    ) -> None:
        """Raises ApiError (422) for an instrument of which nothing can come any more, or, where
        nobody has said that the stream `may_wait` for it, nothing now.
        """
        status = instrument.status or instrument.state
        if instrument.state in ENDED_STATES:
            when, hint = "any more", ""
        elif may_trade(instrument) or may_wait:
            return
        else:
            when, hint = "now", "; a filter that names this status begins the stream and waits"
        raise ApiError(
            "not_offered",
            f"{instrument.venue} does not trade {instrument.symbol} {when}: its status is"
            f" {status}{hint}",
            field=f"{field}symbol",
        )

    def check_kind(self, instrument: Instrument, kind: StreamKind, field: str = "") -> None:
        """Raises ApiError (422) for a kind of stream that an instrument of its kind cannot have."""
        if reason := instrument.lacks(kind):
            raise ApiError("not_offered", reason, field=f"{field}kind")

    def check_knobs(self, knobs: Knobs, field: str = "") -> None:
        """Raises ApiError (422) for knobs that contradict each other or the configuration."""
        if problem := knobs.contradiction(self.max_rows_per_copy):
            raise ApiError("contradiction", problem, field=f"{field}flush_rows")

    def transport(
        self, venue: str, kind: StreamKind, transport: Transport | None, field: str = ""
    ) -> Transport:
        """The transport to use. Raises ApiError (422) with everything the venue does offer."""
        offered = capabilities(self.venues[venue])
        for each, how in offered:
            if each is kind and transport in (None, how):
                return how
        what = f"{kind}" if transport is None else f"{kind} over {transport}"
        everything = [f"{each}/{how}" for each, how in offered]
        raise ApiError(
            "not_offered",
            f"{venue} does not offer {what}; it offers {', '.join(everything) or 'nothing'}",
            field=f"{field}kind",
            offered=everything,
        )
