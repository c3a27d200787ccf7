"""What the page shows as the newest of a kind is a state of now."""

from pathlib import Path

from control.ui.newest import Newest
from engine.data.kinds import FUNDING
from engine.data.layout import open_layout
from engine.messages.status import StreamReport


def test_what_was_paid_is_not_the_newest_funding(tmp_path: Path) -> None:
    newest = Newest(open_layout(tmp_path / "state", tmp_path), FUNDING)
    newest.look([
        StreamReport(0, "acme", "S", "Funding", -1),
        StreamReport(1, "acme", "S", "SettledFunding", -1, "HttpPoll"),
    ])  # fmt: skip
    assert [each["kind"] for each in newest.describe()] == ["Funding"]
    newest.close()
