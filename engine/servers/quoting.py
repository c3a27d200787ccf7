"""Text that crosses into another language, in that language's own quoting.

A path is any text: it may hold spaces, quotes, commas, a `$`, letters of any script, even a line
break. Whoever reads it on the other side has rules of his own, and each rule is here once.
"""

import re
import shlex

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def shell_word(text: str) -> str:
    """One word for a shell, in a line that people copy: without a character that is not printed."""
    if not _UNPRINTABLE.search(text):
        return shlex.quote(text)
    body = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_UNPRINTABLE.sub(_ansi_c, body)}'"


def postgres_name(text: str) -> str:
    """A name in one of PostgreSQL's lists (`unix_socket_directories`) and authentication files:
    in double quotes blanks, commas and signs with a meaning are plain letters.
    """
    return '"' + text.replace('"', '""') + '"'


def _ansi_c(match: re.Match[str]) -> str:
    """`$'…'` of bash, ksh, zsh and POSIX 2024, byte by byte."""
    return "".join(f"\\x{byte:02x}" for byte in match.group().encode())
