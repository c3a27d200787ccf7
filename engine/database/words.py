"""What a database's refusal means, in words: the cause first, then what to do about it.

A server that answered was reached. Whoever reads "cannot be reached" looks at cables and firewalls,
so that is said only where nobody answered.
"""

from typing import Final

from engine.base.errors import DatabaseUnavailableError
from engine.base.masking import scrub

_BY_STATE: Final[dict[str, str]] = {
    "22P05": "the database's encoding lacks a character; a database in UTF8 has them all",
    "25006": "it is read only: a standby, or default_transaction_read_only is on",
    "3D000": "create the database, or correct its name in the address",
    "3F000": "create the schema, or correct search_path in the address",
    "42501": "grant the right to this user, or run `fts migrate` as the tables' owner",
    "53100": "its disk is full: make room there",
    "53200": "it is out of memory",
    "53300": "it has no connection left: raise max_connections, or close others",
    "55P03": "another session holds a lock that this needs; it is asked for again",
    "57014": "a timeout of its own, or somebody, has cancelled the statement",
    "57P01": "it is being shut down, or somebody has ended this session",
    "57P02": "it is recovering from a crash",
    "57P03": "it is starting or stopping",
}
_BY_CLASS: Final[dict[str, str]] = {"28": "check user and password", "53": "it is out of resources"}
_BY_TEXT: Final[tuple[tuple[str, str], ...]] = (
    ("authentication failed", "check user and password"),
    ("no pg_hba.conf entry", "let this user in from this address, in the server's pg_hba.conf"),
    ("does not exist", "create it, or correct the address"),
    ("too many clients", _BY_STATE["53300"]),
    ("remaining connection slots", _BY_STATE["53300"]),
    ("too many connections", _BY_STATE["53300"]),
    ("starting up", "it is starting"),
    ("shutting down", "it is being shut down"),
    ("recovery", "it is recovering from a crash"),
)
_ANSWERED: Final = ("FATAL:", "ERROR:")
_EVENTS: Final[dict[str, str]] = {
    "SyncRep": "the COMMIT is on disk here and waits for a synchronous standby that does not"
    " answer: bring it back, or take it out of synchronous_standby_names",
    "ClientRead": "it waits for us: something between us and the server swallows what we send",
}


def was_answered(error: Exception) -> bool:
    """Whether a server said this, and not the way to it."""
    if isinstance(error, DatabaseUnavailableError):
        return error.was_answered
    state = getattr(error, "sqlstate", None)
    if state is not None:
        return not state.startswith("08")
    return any(word in str(error) for word in _ANSWERED)


def unavailable(error: Exception, database_url: str, why: str = "") -> DatabaseUnavailableError:
    """The typed error of a failure, its text without passwords; `why` is what else is known."""
    if isinstance(error, DatabaseUnavailableError):
        return error
    state = getattr(error, "sqlstate", None)
    words = scrub(str(error).strip() or type(error).__name__, database_url)
    first, _, rest = words.partition("\n")
    text = first + (f" [{state}]" if state else "")
    # What libpq adds to a failed connection is advice, too.
    hint = "" if was_answered(error) else rest.strip().split("\n")[0]
    if advice := why or _advice(state or "", words) or hint:
        text += f"; {advice}"
    return DatabaseUnavailableError(text, was_answered=was_answered(error))


def waiting(state: str, event_type: str, event: str, blockers: str) -> str:
    """What a server process is doing, by its line in `pg_stat_activity`."""
    if blockers:
        return f"it waits for a lock that {blockers} holds"
    if event in _EVENTS:
        return f"{event} ({event_type}): {_EVENTS[event]}"
    if event:
        return f"it waits for {event} ({event_type})"
    return f"it is {state or 'busy'}"


def _advice(state: str, words: str) -> str:
    by_state = _BY_STATE.get(state) or _BY_CLASS.get(state[:2])
    if by_state or state:
        return by_state or ""
    if not any(word in words for word in _ANSWERED):
        return ""
    return next((advice for text, advice in _BY_TEXT if text in words), "")
