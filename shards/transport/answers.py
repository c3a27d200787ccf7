"""Answers that are not what was asked for: a page for people where JSON was expected.

Proxies and maintenance modes answer 200 as well as any other status. What a decoder would say of
such a body ("malformed, byte 0") helps nobody.
"""

from typing import Final
from urllib.parse import urlsplit

_JSON_BEGINS_WITH: Final = b'{["-0123456789tfn'
_LOOKED_AT_BYTES: Final = 1024
_SHOWN_BYTES: Final = 80


def web_page(content_type: str, body: bytes) -> str:
    """What to say of a page for people; empty where it is none."""
    begin = body[:_LOOKED_AT_BYTES].lstrip()[:1]
    if begin != b"<" and ("html" not in content_type or (begin and begin in _JSON_BEGINS_WITH)):
        return ""
    return f"a web page ({_kind(content_type)}): maintenance?"


def no_json(content_type: str, body: bytes) -> str:
    """What a body is instead of JSON, in words; empty where it may be JSON."""
    if page := web_page(content_type, body):
        return page
    begin = body[:_LOOKED_AT_BYTES].lstrip()
    if not begin:
        return "nothing"
    if begin[:1] in _JSON_BEGINS_WITH:
        return ""
    text = begin[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return f"no JSON ({_kind(content_type)}): {text!a}"


def address_of(url: str) -> str:
    """A URL fit for logs: without account, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _kind(content_type: str) -> str:
    return ascii(content_type.partition(";")[0].strip()[:40])[1:-1] or "no type"
