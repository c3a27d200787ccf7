"""The pages, and what they show to be run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page, without its indentation."""

    page: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """Its first line that is no comment."""
        lines = (line.partition("  #")[0].strip() for line in self.text.splitlines())
        return next(line for line in lines if line and not line.startswith(("--", "#")))

    @property
    def lines(self) -> list[str]:
        """Of a shell: its commands, each on one line."""
        joined = self.text.replace("\\\n", " ")
        return [line for line in joined.splitlines() if line.strip()]


def pages() -> list[str]:
    """README and all below docs, as paths from the root."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def blocks(page: str, *languages: str) -> Iterator[Block]:
    """The fenced blocks of a page in these languages, in order."""
    for indent, language, text in _FENCED.findall((ROOT / page).read_text(encoding="utf-8")):
        if language in languages:
            yield Block(page, language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))


def python_examples(page: str) -> list[str]:
    """The Python of a page."""
    return [block.text for block in blocks(page, "python")]
