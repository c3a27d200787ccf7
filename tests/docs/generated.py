"""Pages that are made of the code, held against what is on disk.

`FTS_RENEW_PAGES=1 ./fts test tests/docs` writes them anew; what `git diff` then shows is what
readers will see change.
"""

import os

from tests.pages import ROOT

_BEGINS = "<!-- made by tests/docs: FTS_RENEW_PAGES=1 ./fts test tests/docs -->\n"
_ENDS = "<!-- end of what is made -->\n"


def agree(page: str, made: str) -> None:
    """Compare the generated part of a page, or write it."""
    path = ROOT / page
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGINS)
    found, _, after = rest.partition(_ENDS)
    if os.environ.get("FTS_RENEW_PAGES"):
        path.write_text(f"{before}{_BEGINS}{made}{_ENDS}{after}", encoding="utf-8")
        found = made
    assert made == found, f"{page}: FTS_RENEW_PAGES=1 ./fts test tests/docs writes it anew"
