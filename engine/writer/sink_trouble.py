"""The verdict on a sink: what keeps rows from it, for log, status and lights alike."""

import logging

from engine.base.backoff import Backoff
from engine.base.keep_trying import Trouble

_BACKOFF_MIN_S = 0.1
_BACKOFF_MAX_S = 5.0


def sink_trouble(
    what: str, consequence: str, backoff: Backoff | None, log: logging.Logger
) -> Trouble:
    """The trouble of a sink, which is tried again within seconds."""
    return Trouble(what, consequence, backoff or Backoff(_BACKOFF_MIN_S, _BACKOFF_MAX_S), log)


def delivered(trouble: Trouble, log: logging.Logger) -> None:
    """Something was delivered, or everything has been."""
    if not trouble.has_worked:
        log.info("%s: connected", trouble.what)
    trouble.over()
