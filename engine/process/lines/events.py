"""The name of each event, which stays when its words change: what alerts and searches go by.

A name belongs to the place in the code that says it, `module:function`, with `:LEVEL` where one
function says two things. So a line is written as ever, and this page alone names it. A call that
knows better says `extra={"event": "…"}`; `extra={"fields": {…}}` gives a line's facts by name. What
has no name here (a library's line) is called by the last word of its logger. `docs/logs.md`
explains each name; a test holds the two together, and these places to the code.
"""

import logging
from typing import Final

_PLACES: Final[dict[str, tuple[str, ...]]] = {
    # The engine's life; what has no place here is named by its call
    "status": ("control.cli.terminal.live_view:_log_lines",),
    "address": ("control.cli.addresses:publish",),
    "plan_note": (
        "control.cli.service:run_service:WARNING",
        "control.cli.ground:lay",
        "control.cli.commands.demo:prepare",
    ),
    "config_reloaded": (),
    "config_waits": (),
    "config_refused": (),
    "draining": ("control.cli.service:__call__:INFO",),
    "killed_by_request": ("control.cli.service:__call__:WARNING",),
    "delivered": ("engine.supervisor.supervisor:_report_delivery:INFO",),
    "not_delivered": (
        "engine.supervisor.supervisor:_report_delivery:WARNING",
        "engine.writer.main:_drain",
        "engine.writer.main:_leave",
    ),
    "signal_ignored": ("engine.base.signals:_say",),
    "terminal_gone": ("control.cli.terminal.live_view:watch",),
    "log_incomplete": (),
    # Processes
    "child_ready": ("engine.process.child_keeper:_take",),
    "child_ended": ("engine.process.child_keeper:_live",),
    "child_killed": (
        "engine.process.child_keeper:leave",
        "engine.process.child_keeper:check_hung",
        "engine.process.child_keeper:_one_life",
    ),
    "stopped": ("engine.process.birth:main",),
    "fault": ("engine.supervisor.supervisor:_on_fault", "control.http.gate:__call__"),
    "no_copies": ("engine.process.forks.server:fork",),
    "unpinned": ("engine.process.birth:_pin",),
    "metrics_lost": (
        "engine.process.metric_files:claim",
        "engine.process.metric_files:_provide",
    ),
    "message_ignored": (
        "engine.supervisor.shards:_on_message",
        "engine.supervisor.writer_child:_on_message",
        "engine.supervisor.supervisor:_on_control_message",
        "engine.supervisor.upkeep_child:_on_message",
        "engine.upkeep.main:_obey",
        "engine.writer.main:_obey",
        "shards.shard:_obey",
        "control.state.backend:take",
    ),
    "upgrade": (
        "engine.supervisor.upgrade:_say",
        "engine.supervisor.upgrade:_run:INFO",
        "engine.supervisor.upgrade:_ended:INFO",
        "engine.supervisor.upgrade:_pass_on",
        "engine.supervisor.upgrade:progress",
    ),
    "upgrade_failed": (
        "engine.supervisor.upgrade:_run:ERROR",
        "engine.supervisor.upgrade:_ended:ERROR",
    ),
    "upgrade_back": ("control.cli.changes.legacy:open",),
    "manager_unheard": ("engine.supervisor.systemd:_send",),
    "rings_unsynced": ("engine.supervisor.writer_child:sync",),
    "server_starts": (),
    "server_ended": ("engine.servers.server_keeper:_keep",),
    "server_ready": ("engine.servers.server_keeper:_start_again",),
    # Work that is tried again
    "work_fails": ("engine.base.keep_trying:_say",),
    "work_resumes": ("engine.base.keep_trying:over",),
    # Streams and venues
    "stream_failed": (
        "engine.supervisor.stream_starts:_explain_one",
        "engine.supervisor.stream_starts:_look_at",
        "shards.session.venue_session:start",
        "shards.shard:_refuse",
        "shards.transport.connection:_last_words",
        "shards.transport.conversation:refused",
        "shards.transport.sockets:_shares_topic",
        "shards.transport.sockets:_wait",
    ),
    "stream_silent": (
        "shards.transport.poller:watch",
        "shards.transport.watch:say_silent",
    ),
    "stream_resubscribed": ("shards.transport.sockets:_ask_elsewhere",),
    "stream_unforeseen": ("shards.feeds.life:_note_unforeseen",),
    "symbol_refused": ("control.cli.commands.up:prepare",),
    "socket_closed": (
        "shards.transport.connection:run",
        "shards.transport.conversation:closing",
    ),
    "socket_replaced": ("shards.transport.sockets:_replace",),
    "socket_fault": ("shards.transport.connection:_serve",),
    "venue_refused": ("shards.transport.conversation:_say",),
    "frame_unusable": ("shards.venues.bad_frames:add",),
    "funding_intervals_unknown": (
        "shards.session.funding_intervals:first_try",
        "shards.session.funding_intervals:tick",
    ),
    "budget_changed": ("engine.limits.lease_desk:feedback",),
    "budget_forgotten": ("engine.limits.lease_desk:_load",),
    # Instruments and wishes
    "instrument_changed": ("control.state.listings:_refresh",),
    "instruments_not_kept": (
        "control.state.listings:load_files",
        "control.state.listings:_save",
        "engine.streams.instrument_facts:store",
        "engine.streams.listing_outbox:take",
    ),
    "command_refused": ("engine.supervisor.command_desk:obey",),
    "registry_damaged": ("engine.streams.wanted_mirror:_load",),
    "registry_not_shortened": ("engine.streams.wanted:compact",),
    # Rows on their way
    "rows_lost": ("engine.writer.every_row:_report_loss",),
    "rows_left_over": (
        "engine.writer.sources.sources:_add",
        "engine.writer.sources.sources:_add_journal",
    ),
    "rows_left_over_delivered": ("engine.writer.sources.sources:remove_delivered",),
    "rows_misrouted": (
        "engine.writer.deliveries:set_knobs",
        "engine.writer.deliveries:_begin_era",
    ),
    "journal_trouble": (
        "engine.writer.sources.journal:_read_on",
        "engine.writer.sources.journal:_content",
        "engine.writer.sources.source:_sync_journal",
        "engine.writer.sources.sources:open",
    ),
    "state_damaged": ("engine.writer.sources.carried:_repair", "engine.data.mapped:_map"),
    "quarantine_adopted": ("engine.writer.sinks.postgres.quarantine.adoption:adopt_once",),
    # Stores
    "sink_connected": ("engine.writer.consumer:_delivered",),
    "database_silent": ("engine.writer.sinks.postgres.overdue:_late",),
    "database_answers": ("engine.writer.sinks.postgres.overdue:_answered",),
    "schema_applied": (
        "engine.start.migrations:_tell",
        "engine.start.schema_keeper:_keep:INFO",
    ),
    "schema_behind": (
        "engine.start.migrations:_tell_shortcomings",
        "engine.start.schema_keeper:first_attempt",
        "engine.start.schema_keeper:_keep:ERROR",
    ),
    "store_room": (),
    "store_short": (),
    "upkeep_did": ("engine.upkeep.care:_do",),
    "upkeep_fails": ("engine.supervisor.upkeep_child:_start",),
    # Control
    "token_changed": ("control.http.auth:_look_again:INFO",),
    "token_refused": ("control.http.auth:_look_again:ERROR",),
    "viewer_dropped": ("control.ui.event_stream:_fill",),
}

EVENTS: Final = tuple(_PLACES)
"""Every name."""
EVENT_AT: Final = {place: event for event, places in _PLACES.items() for place in places}
"""By the place that says it."""


def event_of(record: logging.LogRecord) -> str:
    """The name of what a record says."""
    if isinstance(named := getattr(record, "event", None), str):
        return named
    place = f"{record.name}:{record.funcName}"
    found = EVENT_AT.get(f"{place}:{record.levelname}") or EVENT_AT.get(place)
    return found or record.name.rpartition(".")[2]
