"""Which TimescaleDB gets columns and policies, and what its server needs."""

import pytest

from engine.database.timescale import SERVER_SETTINGS, refused, settings_too_low


@pytest.mark.parametrize("version", ["2.28.1", "2.29.0", "2.30.0-dev", "3.0.0"])
def test_a_version_that_keeps_its_promises_has_no_shortcoming(version: str) -> None:
    assert refused(version, "timescale", 160_004) == ""


@pytest.mark.parametrize(
    ("version", "licence", "server", "told"),
    [
        ("2.28.0", "timescale", 180_000, "TimescaleDB 2.28.0 is older than 2.28.1"),
        ("2.9.3", "timescale", 150_000, "TimescaleDB 2.9.3 is older than 2.28.1"),
        ("2.28.1", "timescale", 150_012, "PostgreSQL 15 is older than 16"),
        ("2.29.2", "apache", 180_000, "timescaledb.license is 'apache'"),
        ("2.29.2", "", 180_000, "timescaledb.license is ''"),
    ],
)
def test_any_other_says_what_is_missing_and_what_to_do(
    version: str, licence: str, server: int, told: str
) -> None:
    text, _, advice = refused(version, licence, server).partition("; ")
    assert text.startswith(told)
    assert "no columnstore" in text
    assert advice


def test_settings_are_compared_as_numbers_and_unseen_ones_left_out() -> None:
    names = list(SERVER_SETTINGS)
    found = {names[0]: "8", names[1]: "16", names[2]: None}
    assert settings_too_low(found) == {"max_worker_processes": 24}
    assert settings_too_low({name: str(least) for name, least in SERVER_SETTINGS.items()}) == {}
