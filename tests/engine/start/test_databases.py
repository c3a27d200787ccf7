"""Several databases in one file: where each is, whose rows it has, and what is refused."""

from pathlib import Path

import pytest

from engine.base.errors import ConfigError
from engine.data.names import StreamKind
from engine.data.routes import Route
from engine.start.config import LoadedConfig, load

ADDRESSES = {
    "FTS_DATABASE_URL_A": "postgresql://one@h/a",
    "FTS_DATABASE_URL_B": "postgresql://one:secret@h/b",
}


def loaded(tmp_path: Path, text: str, env: dict[str, str] | None = None) -> LoadedConfig:
    path = tmp_path / "fts.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, ADDRESSES if env is None else env)


def test_each_has_an_address_and_limits_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.url").write_text("postgresql://one:hidden@h/a\n", encoding="utf-8")
    found = loaded(
        tmp_path,
        "[database]\nflush_rows = 7\n[databases.a]\nurl_file = 'a.url'\nflush_rows = 9\n"
        "[databases.b]\nkeep = { book = '14d' }",
        {"FTS_DATABASE_URL_B": ADDRESSES["FTS_DATABASE_URL_B"]},
    )
    assert list(found.config.all_databases) == ["database", "databases.a", "databases.b"]
    limits = [each.flush_rows for each in found.config.all_databases.values()]
    assert limits == [7, 9, 50_000]
    assert found.database_url is None, "the default one is private"
    urls = {name: url.reveal() for name, url in found.urls.items()}
    assert urls == {
        "databases.a": "postgresql://one:hidden@h/a",
        "databases.b": "postgresql://one:secret@h/b",
    }


def test_routes_are_every_kind_with_every_symbol(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        "[[databases.a.routes]]\nvenue = 'acme'\n"
        "[[database.routes]]\nsymbols = ['X', 'Y']\nkinds = ['Trades', 'l2_book']\nvenue = 'acme'",
    )
    assert set(found.routes()) == {
        Route("databases.a", "acme"),
        *(
            Route("database", "acme", kind, symbol)
            for kind in (StreamKind.TRADES, StreamKind.L2_BOOK)
            for symbol in ("X", "Y")
        ),
    }


@pytest.mark.fault("C02")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[databases.c]", ("databases.c", "FTS_DATABASE_URL_C", "private")),
        ("[databases.A-b]", ("'A-b'", "a-z")),
        ("[databases.a]\nprivate_settings = { x = '1' }", ("databases.a.private_settings",)),
        ("[databases.a]\nregistry_name = 'x'", ("databases.a.registry_name",)),
        ("[databases.a]\nflush_rows = 9\nmax_rows_per_copy = 8", ("databases.a.flush_rows = 9",)),
        ("[databases.a]\nurl = 'x'\nurl_file = 'y'\n[databases.d]", ("databases.d",)),
        ("[databases.a]\nkeep = { bok = '1d' }", ("databases.a.keep", "'bok'")),
        ("[database]\nkeep = { book = '1 day' }", ("database.keep.book: '1 day'", "36h")),
        (
            "[database]\nkeep_by_venue = { acme = { bar_1s = '1d' } }",
            ("database.keep_by_venue.acme: 'bar_1s'",),
        ),
        ("[databases.a]\narchive = 'parquet'", ("needs databases.a.archive_to",)),
        ("[databases.a]\narchive_to = 'x'", ("databases.a.archive_to", "nothing without")),
        (
            "[databases.a]\narchive = 'parquet'\narchive_to = 'x'\n"
            "[databases.b]\narchive = 'parquet'\narchive_to = './x'",
            ("databases.a.archive_to and databases.b.archive_to",),
        ),
        ("[[databases.a.routes]]\nkinds = []", ("databases.a.routes[0]", "no stream")),
        ("[[databases.a.routes]]\nsymbols = ['a b']", ("databases.a.routes[0].symbols", "'a b'")),
        ("[[databases.a.routes]]\nvenues = 'x'", ("routes[0].venues: unknown key",)),
        (
            "[[databases.a.routes]]\nvenue = 'acme'\n[[databases.b.routes]]\nsymbols = ['X']",
            ("databases.a (venue acme)", "databases.b (symbol X)"),
        ),
        (
            "[[databases.a.routes]]\nkinds = ['Trades']\n"
            "[[databases.b.routes]]\nkinds = ['trades']",
            ("databases.a (kind Trades)", "databases.b (kind Trades)"),
        ),
    ],
)
def test_contradictions_are_refused_by_name(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, text)
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("written", "meant"),
    [("lake", "{here}/lake"), ("/srv/lake", "/srv/lake"), ("~/lake", "/home/me/lake"),
     ("s3://bucket/lake", "s3://bucket/lake")],
)  # fmt: skip
def test_an_archive_is_beside_the_file_that_names_it(
    tmp_path: Path, written: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = loaded(tmp_path, f"[databases.a]\narchive = 'parquet'\narchive_to = '{written}'")
    assert found.config.databases["a"].archive_to == meant.format(here=tmp_path)


def test_two_names_of_one_database_are_refused(tmp_path: Path) -> None:
    same = dict.fromkeys(ADDRESSES, "postgresql://one:secret@h/a")
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, "[databases.a]\n[databases.b]", same)
    assert "databases.a and databases.b are the same" in str(refused.value)
    assert "secret" not in str(refused.value)
