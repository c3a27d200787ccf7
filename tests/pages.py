"""What the pages show, for tests that do it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python_examples(page: str) -> list[str]:
    """The Python of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
