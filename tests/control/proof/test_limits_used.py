"""What was used of the venues' limits, in words."""

from typing import Any

from control.proof.limits_used import LimitsUsed


def line(**changes: object) -> dict[str, Any]:
    usual = {
        "limit": "connects", "per": "address", "window_s": 60.0, "used_max": 3, "most": 30,
        "exceeded": 0, "then": "refuses", "shared": "",
    }  # fmt: skip
    return {**usual, **changes}


def test_only_a_limit_with_consequences_counts_as_exceeded() -> None:
    over = line(limit="requests", per="socket", window_s=0.0, used_max=1481, most=480, exceeded=1)
    advice = line(limit="topics", per="request", window_s=0.0, exceeded=2, then="advises")
    used = LimitsUsed({"a": [line(), advice], "bee": [over, line(shared="b")]})
    assert used.exceeded == ["bee: requests 1,481/480 a socket"]
    assert list(used.lines())[1:] == [
        "  a    connects 3/30 in 60 s, topics 3/30 a request",
        "  bee  requests 1,481/480 a socket, connects 3/30 in 60 s (all of b)",
        "EXCEEDED: bee: requests 1,481/480 a socket",
    ]
