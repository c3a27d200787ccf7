"""Why a socket could not be opened, in words; a venue that says "not now" is heeded."""

from picows import WSHandshakeError

from engine.limits.budget import REFUSALS, refusal_in_words
from engine.limits.leases import Refusable
from shards.transport.answers import address_of, web_page
from shards.transport.refusals import BANNED, speaks_of_ban, told_wait_s


def why_refused(error: Exception, url: str, connects: Refusable) -> str:
    """The words. Where the venue wants to be left alone, every process leaves it, as REST is."""
    words = str(error) or type(error).__name__
    response = error.response if isinstance(error, WSHandshakeError) else None
    if response is None:
        return words
    status, body = int(response.status), getattr(error, "raw_body", None) or b""
    if status in REFUSALS or speaks_of_ban(body):
        status = status if status in REFUSALS else BANNED
        wait_s = connects.refused(status, told_wait_s(response.headers, body))
        return f"{refusal_in_words(status)}; nobody asks for {wait_s:.0f} s"
    if page := web_page(response.headers.get("Content-Type", ""), body):
        return f"{address_of(url)} answered HTTP {status}, {page}"
    return words
