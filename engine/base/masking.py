"""Secrets out of what people and logs get to read."""

import re
from urllib.parse import unquote, urlsplit

MASK = "***"

_IN_URL = re.compile(r"(://[^/@:?#\s]*):[^/@\s]*@")
_IN_PARAMETERS = re.compile(r"(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)")

_IN_HEADERS = re.compile(r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}")
_NAMED = re.compile(
    r"""(?ix)\b((?:[a-z]{1,16}[_-])?(?:secret|token|api_?key|passphrase|signature)
    ["']?\s?[=:]\s?["']?)[^\s"'&,;{}]{8,}"""
)


def mask_secrets(text: str) -> str:
    """`text` of whatever origin without passwords in URLs, and without what is called a secret: a
    token, key or signature of eight characters or more behind its name.
    """
    return _NAMED.sub(rf"\1{MASK}", _IN_HEADERS.sub(rf"\1{MASK}", mask_url(text)))


def mask_url(url: str) -> str:
    """A server's URL (or libpq's `key=value` form) without its password."""
    return _IN_PARAMETERS.sub(rf"\1{MASK}", _IN_URL.sub(rf"\1:{MASK}@", url))


def scrub(text: str, url: str) -> str:
    """`text`, typically an error message, without the password of `url` in any spelling."""
    for secret in sorted(_passwords(url), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return mask_url(text)


def _passwords(url: str) -> set[str]:
    found = {m.group(2).strip("'") for m in _IN_PARAMETERS.finditer(url)}
    try:
        if password := urlsplit(url).password:
            found |= {password, unquote(password)}
    except ValueError:  # not a URL
        pass
    return {secret for secret in found | {unquote(s) for s in found} if secret}
