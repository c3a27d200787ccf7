"""No password gets out."""

import pytest

from engine.base.masking import mask_url, scrub


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://fts:hunter2@db.example/fts",
        "redis://:hunter2@cache.example:6379/0",
        "unix:///run/valkey.sock?db=0&password=hunter2",
        "host=db.example user=fts password=hunter2 dbname=fts",
        "host=db.example password = 'hunter2' dbname=fts",
    ],
)
def test_urls_are_shown_without_password(url: str) -> None:
    masked = mask_url(url)
    assert "hunter2" not in masked
    assert "***" in masked


def test_urls_without_password_stay_as_they_are() -> None:
    for url in ("postgresql://fts@/fts?host=/run/x", "unix:///run/v.sock?db=0", "redis://h/1"):
        assert mask_url(url) == url


def test_messages_lose_the_password_in_every_spelling() -> None:
    url = "postgresql://fts:p%40ss+word@db.example/fts"
    text = scrub(f"cannot use {url}: login p@ss+word or p%40ss+word refused", url)
    assert "ss+word" not in text
