"""Configuration: what is accepted, and that every refusal names its file and key."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import ConfigError
from engine.data.kinds import KINDS
from engine.data.names import StreamKey, StreamKind, Transport
from engine.start import preflight
from engine.start.addresses import Secret, has_password, masked_url
from engine.start.config import Config, LoadedConfig, StreamsConfig, load

AMPLE = 10 << 30
PLAIN = Config()
MANY = [StreamKind.TRADES, StreamKind.L2_BOOK, StreamKind.TICKER] * 500


def write(directory: Path, text: str | bytes) -> Path:
    path = directory / "fts.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(directory: Path, text: str | bytes, env: dict[str, str] | None = None) -> str:
    """The one line with which this file is refused."""
    path = write(directory, text)
    with pytest.raises(ConfigError) as refused:
        load(path, env or {})
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_streams_are_those_of_the_file_or_else_the_callers(tmp_path: Path) -> None:
    examples = [StreamsConfig(venue="x", symbols=["A"])]
    for path in (None, write(tmp_path, "")):
        keys = load(path, {}, default_streams=examples).stream_keys()
        assert keys == [
            StreamKey("x", "A", StreamKind.TRADES),
            StreamKey("x", "A", StreamKind.L2_BOOK),
        ]
    path = write(tmp_path, "streams = []")
    assert load(path, {}, default_streams=examples).stream_keys() == []


def test_engines_that_share_a_file_have_each_of_its_streams_once(tmp_path: Path) -> None:
    symbols = [f"S{number}USDT" for number in range(100)]
    text = f"[[streams]]\nvenue = 'x'\nsymbols = {symbols}\n"
    every = load(write(tmp_path, text), {}).stream_keys()
    shares = [load(write(tmp_path, text), {"FTS_SHARE": f"{n}/3"}).stream_keys() for n in range(3)]
    assert sorted(key for share in shares for key in share) == sorted(every)
    assert all(len(share) > len(every) / 6 for share in shares)
    written = write(tmp_path, f'share = "1/3"\n{text}')
    assert load(written, {}).stream_keys() == shares[1]
    assert load(written, {"FTS_SHARE": "2/3"}).stream_keys() == shares[2]
    assert refusal(tmp_path, 'share = "3/3"') == "share: '3/3': 3 engines count from 0 to 2"
    with pytest.raises(ConfigError, match=r"^environment: FTS_SHARE: 'all' is none"):
        load(None, {"FTS_SHARE": "all"})


def test_nothing_is_required(tmp_path: Path) -> None:
    for loaded in (load(None, {}), load(write(tmp_path, ""), {})):
        assert loaded.config == Config()
        assert loaded.database_url is None
        assert loaded.stream_keys() == []


@pytest.mark.fault("C01")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[control]\nprot = 1", "control.prot: unknown key; did you mean port?"),
        ("colour = 1", "colour: unknown key"),
        ("[venues.binance_linear]\nwsurl = ''", "wsurl: unknown key; did you mean ws_url?"),
        ("[venues.a.poll_interval_s]\nfunds = 1", "'funds' is none of Trades, L2Book, Ticker"),
        ("[limits]\nwithout_redis = 'go'", "limits.without_redis: 'go' is none of alone, wait"),
        ("[control]\nport = '80'", "control.port: Expected `int`, got `str`"),
        ("[control]\nport = 70000", "control.port: Expected `int` <= 65535"),
        ("[database]\nflush_rows = 0", "database.flush_rows: Expected `int` >= 1"),
        (
            "[database.private_settings]\nhba_file = '/x'",
            "database.private_settings: hba_file belongs to the engine",
        ),
        ("[log]\nlevel = 'LOUD'", "log.level: 'LOUD' is none of DEBUG, ERROR, INFO, WARNING"),
        ("[[streams]]\nvenue = 'x'", "streams[0].symbols: required"),
        (
            "[[streams]]\nvenue = 'x'\nsymbols = []",
            "streams[0].symbols: Expected `array` of length",
        ),
        ("[[streams]]\nvenue = 'x'\nsymbols = [7]", "streams[0].symbols[0]: Expected `str`"),
        (
            "[[streams]]\nvenue = 'x'\nsymbols = ['A']\nkinds = ['Trade']",
            f"streams[0].kinds[0]: 'Trade' is none of {', '.join(StreamKind)};"
            " did you mean Trades?",
        ),
        ("state_dir = 1\nstate_dir = 2", "not TOML"),
        ("[control", "not TOML"),
        (b"\xff\xfe", "not UTF-8 (byte 0)"),
        (b"#" * (2 << 20), "larger than"),
        ("[shards]\ncpus = []", "shards.cpus: an empty list"),
        ("[control]\nhost = '0.0.0.0'", "control.host: '0.0.0.0' is not a loopback address"),
        ("[metrics]\nhost = '0.0.0.0'", "metrics.host: '0.0.0.0' is not a loopback address"),
        ("[health]\nloop_lag_ms = [5, 1]", "health: loop_lag_ms = [5, 1]: red begins before"),
        ("[health]\nloop_lag_ms = [nan, 1]", "health.loop_lag_ms[0]: Expected `float` > 0"),
        ("[health]\nmemory_free_fraction = [0.1, 0.2]", "red begins before yellow"),
        ("[health]\nhold_s = { disk = 1 }", "health: hold_s: 'disk' is none of runtime, db"),
        ("[database.health]\nbacklog_rows = [5, 1]", "database.health: backlog_rows = [5, 1]"),
        (
            "[redis]\nkey_template = '{prefix}:{kind}:{venue}:{kind}'",
            "redis: key_template lacks {symbol}",
        ),
        ("[redis]\nkey_template = '{kind}{venue}{symbol}'", "redis.key_template: Expected `str`"),
        ("[redis.kinds.trades]\nmaxlen = 5", "redis: kinds: 'trades' is none of trade, book"),
        ("[metrics]\npath = '/healthz'", "metrics.path: Expected `str` matching"),
        ("[metrics]\npath = 'metrics'", "metrics.path: Expected `str` matching"),
        ("[control]\nbehind_proxy = true", "set control.token_file or FTS_CONTROL_TOKEN"),
        ("[control]\nallowed_hosts = ['a.example']", "set control.token_file"),
        ("[redis]\nprefix = 'a b'", "redis.prefix: Expected `str` matching"),
    ],
)
def test_refusals_name_the_key(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in refusal(tmp_path, text)


@pytest.mark.fault("C02")
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[database]\nflush_rows = 9\nmax_rows_per_copy = 8", ("= 9", "= 8")),
        ("[shards]\ncpus = [1, 0, 1]", ("CPU 1",)),
        ("[shards.ring_records]\ntrade = 1000", ("1000", "power of two")),
        ("[shards.ring_records]\nbook = 1024", ("= 50000", "= 1024")),
        ("[redis]\nurl = 'redis://a'\nurl_file = 'b'", ("redis.url ", "redis.url_file")),
        ("[limits]\nshared = true", ("limits.shared", "redis.url", "FTS_REDIS_URL")),
    ],
)
def test_contradictions_name_both_values(
    tmp_path: Path, text: str, values: tuple[str, ...]
) -> None:
    message = refusal(tmp_path, text)
    assert all(value in message for value in values), message


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml", {})


@given(st.binary(max_size=200))
def test_any_bytes_are_a_config_or_one_line_of_refusal(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("config"), text)
    try:
        load(path, {})
    except ConfigError as error:
        assert "\n" not in str(error)


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path, "state_dir = '/a'\n[log]\nlevel = 'ERROR'\n[database]\nurl = 'postgresql://h/d'"
    )
    env = {
        "FTS_STATE_DIR": "/b",
        "FTS_LOG_LEVEL": "debug",
        "FTS_CONTROL_PORT": "0",
        "FTS_DATABASE_URL": "postgresql://u:pw@h/e",
        "FTS_REDIS_URL": "redis://:pw@h",
    }
    loaded = load(path, env)
    assert loaded.state_dir == Path("/b")
    assert loaded.config.log.level == "DEBUG"
    assert loaded.config.control.port == 0
    assert loaded.database_url == Secret("postgresql://u:pw@h/e")
    assert loaded.urls["redis"] == Secret("redis://:pw@h")


@pytest.mark.parametrize(
    "env", [{"FTS_LOG_LEVEL": "loud"}, {"FTS_CONTROL_PORT": "x"}, {"FTS_CONTROL_PORT": "70000"}]
)
def test_bad_environment_names_the_variable(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(env))):
        load(None, env)


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ("database", "mysql://u@h/d"),
        ("database", "foo"),
        ("redis", "foo"),
        ("redis", "http://h"),
        ("redis", "redis://[h"),
        ("redis", "redis://h:99999"),
        ("redis", "redis://h/-1"),
        ("redis", "redis://h/x"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_where_it_stands(
    tmp_path: Path, section: str, url: str
) -> None:
    assert f"{section}.url: " in refusal(tmp_path, f"[{section}]\nurl = '{url}'")
    variable = f"FTS_{section.upper()}_URL"
    with pytest.raises(ConfigError, match=f"^{variable}: "):
        load(None, {variable: url})


def test_a_refused_address_keeps_its_password_to_itself() -> None:
    for variable, url in (
        ("FTS_DATABASE_URL", "mysql://u:pw@h/d"),
        ("FTS_DATABASE_URL", "password='pw host=h"),
        ("FTS_REDIS_URL", "redis://u:pw@h/x"),
        ("FTS_REDIS_URL", "http://u:pw@h"),
    ):
        with pytest.raises(ConfigError) as refused:
            load(None, {variable: url})
        assert "pw" not in str(refused.value)


def test_state_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(None, {"XDG_STATE_HOME": "/x"}).state_dir == Path("/x/fintickstreams")
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = Path("/home/somebody/.local/state/fintickstreams")
    assert load(None, {}).state_dir == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pw@h/d",
        "postgresql://u@h/d?password=pw",
        "host=h password=pw",
        "host=h password = pw",
    ],
)
def test_password_in_the_file_is_refused_and_never_repeated(tmp_path: Path, url: str) -> None:
    message = refusal(tmp_path, f"[database]\nurl = '{url}'")
    assert "FTS_DATABASE_URL" in message
    assert "pw" not in message.replace("url_file", "")
    assert has_password(url)
    assert "pw" not in masked_url(Secret(url))


def test_secret_file_is_read_relative_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://u:pw@h/d\n")
    loaded = load(write(tmp_path, "[database]\nurl_file = 'dsn'"), {})
    assert loaded.database_url == Secret("postgresql://u:pw@h/d")
    assert "cannot read" in refusal(tmp_path, "[database]\nurl_file = 'none'")
    (tmp_path / "empty").touch()
    assert "is empty" in refusal(tmp_path, "[database]\nurl_file = 'empty'")


def test_credentials_of_a_venue_stay_in_a_file_of_their_own(tmp_path: Path) -> None:
    text = "[venues.deribit]\ncredentials_file = 'login'"
    assert "cannot read" in refusal(tmp_path, text)
    for bad in ("", "name", "name:", ":secret"):
        (tmp_path / "login").write_text(bad)
        message = refusal(tmp_path, text)
        assert "venues.deribit.credentials_file" in message
        assert "secret" not in message.replace("name:secret", "")
    (tmp_path / "login").write_text("name:secret\n")
    loaded = load(write(tmp_path, text), {})
    assert loaded.config.venues["deribit"].credentials_file == str(tmp_path / "login")
    assert "name:secret" not in repr(loaded)


def test_secret_never_shows_itself() -> None:
    secret = Secret("canary")
    loaded = LoadedConfig(Config(), "x", Path("/x"), {"database": secret, "redis": secret})
    for shown in (repr(secret), str(secret), f"{secret}", repr(loaded)):
        assert "canary" not in shown
    assert secret.reveal() == "canary"
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)


@pytest.mark.fault("N11")
@pytest.mark.parametrize(
    "text", ["A B", "A\x00", "\x1b[31mA", "A\u202eB", "x" * 33, "", "-A", "../etc", "A\u200b"]
)
def test_a_text_that_can_be_no_symbol_costs_its_own_streams_alone(
    tmp_path: Path, text: str
) -> None:
    listed = msgspec.json.encode(["BTC", text, "@107", "xyz:TSLA"]).decode()
    loaded = load(write(tmp_path, f"[[streams]]\nvenue = 'x'\nsymbols = {listed}"), {})
    assert {key.symbol for key in loaded.stream_keys()} == {"BTC", "@107", "xyz:TSLA"}
    (line,) = loaded.no_symbols()
    place = f"{tmp_path / 'fts.toml'}: streams[0].symbols[1]: "
    assert line == f"{place}{text!a} can be no symbol: left out"
    assert line.isascii()
    assert line.isprintable()


def test_streams_of_every_kind_and_transport_can_be_named(tmp_path: Path) -> None:
    text = (
        "[venues.binance_linear]\npoll_interval_s = { OpenInterest = 2.5 }\n"
        "[[streams]]\nvenue = 'binance_linear'\nsymbols = ['A']\n"
        "kinds = ['OpenInterest', 'Liquidations']\n"
        "[[streams]]\nvenue = 'binance_linear'\nsymbols = ['A']\n"
        "kinds = ['Funding']\ntransport = 'HttpPoll'\n"
    )
    loaded = load(write(tmp_path, text), {})

    def preferred(venue: str, kind: StreamKind) -> Transport:
        assert venue == "binance_linear"
        return Transport.HTTP_POLL if kind is StreamKind.OPEN_INTEREST else Transport.WS

    assert [str(key) for key in loaded.stream_keys(preferred)] == [
        "binance_linear/A/OpenInterest/HttpPoll",
        "binance_linear/A/Liquidations/Ws",
        "binance_linear/A/Funding/HttpPoll",
    ]
    intervals = loaded.config.venues["binance_linear"].poll_interval_s
    assert intervals == {StreamKind.OPEN_INTEREST: 2.5}
    assert "poll_interval_s" in refusal(
        tmp_path, "[venues.binance_linear]\npoll_interval_s = { Funding = 0 }"
    )
    assert "transport" in refusal(
        tmp_path, "[[streams]]\nvenue = 'a'\nsymbols = ['A']\ntransport = 'ftp'"
    )


def test_a_ring_of_a_slow_kind_may_be_smaller_than_a_flush(tmp_path: Path) -> None:
    config = load(write(tmp_path, "[shards.ring_records]\nfunding = 64"), {}).config
    assert config.shards.capacity("funding") == 64
    assert "power of two" in refusal(tmp_path, "[shards.ring_records]\nliquidation = 100")
    assert "before a flush" in refusal(tmp_path, "[shards.ring_records]\nquote = 64")


def test_shards_take_the_last_half_of_the_cpus() -> None:
    assert preflight.shard_cpus(Config(), "x", [0]) == [0]
    assert preflight.shard_cpus(Config(), "x", [0, 1]) == [1]
    assert preflight.shard_cpus(Config(), "x", [2, 3, 5, 7]) == [5, 7]


@pytest.mark.fault("C02")
def test_forbidden_cpu_is_refused_with_the_allowed_ones(tmp_path: Path) -> None:
    config = load(write(tmp_path, "[shards]\ncpus = [9]"), {}).config
    with pytest.raises(ConfigError, match=r"CPU 9 is not among the allowed CPUs 0, 1"):
        preflight.shard_cpus(config, "x", [0, 1])


def capacities(config: Config = PLAIN, shards: int = 1, **known: Any) -> dict[str, int]:
    """By kind, of the rings of each shard, where there is room for all."""
    plan = preflight.plan_rings(config, "x", shards, AMPLE, **known)
    assert plan.note == ""
    found = {ring.kind: ring.capacity for ring in plan.rings}
    assert all(ring.capacity == found[ring.kind] for ring in plan.rings)
    return found


@pytest.mark.parametrize(
    ("shards", "streams", "trade", "quote"),
    [
        (1, [], 1 << 17, 1 << 16),  # `flush_rows` quotes fit
        (1, [StreamKind.TRADES] * 8, 1 << 17, 1 << 16),
        (1, [StreamKind.TRADES] * 9, 1 << 18, 1 << 16),
        (2, [StreamKind.TRADES] * 16, 1 << 17, 1 << 16),
        (2, [StreamKind.TRADES] * 17, 1 << 18, 1 << 16),
        (1, [StreamKind.TRADES, StreamKind.TICKER] * 5000, 1 << 20, 1 << 18),
    ],
)
def test_rings_are_as_large_as_the_streams_of_a_shard_want(
    shards: int, streams: list[StreamKind], trade: int, quote: int
) -> None:
    found = capacities(shards=shards, streams=streams)
    slow = {name: kind.ring_records for name, kind in KINDS.items() if not kind.is_fast}
    assert found == {"trade": trade, "book": 1 << 17, "quote": quote} | slow


def test_rings_are_as_large_as_a_rate_that_is_known_wants() -> None:
    assert [capacities(rows_s=rate)["trade"] for rate in (20_000, 30_000, math.inf)] == [
        1 << 17, 1 << 18, 1 << 20,
    ]  # fmt: skip


def test_rings_that_are_configured_are_as_they_are_configured(tmp_path: Path) -> None:
    text = "[shards.ring_records]\ntrade = 65536\n[database]\nflush_rows = 60000\n"
    text += "[databases.other]\nurl = 'postgresql://x/y'\nflush_rows = 65536\n"
    found = capacities(load(write(tmp_path, text), {}).config)
    assert (found["trade"], found["quote"], found["book"]) == (1 << 16, 1 << 16, 1 << 17)


def test_rings_of_the_next_processes_grow_with_the_streams_where_there_is_room() -> None:
    before = preflight.plan_rings(Config(), "x", 2, AMPLE).rings
    larger = preflight.grown(before, Config(), 2, MANY, AMPLE)
    assert larger == preflight.plan_rings(Config(), "x", 2, AMPLE, streams=MANY).rings != before
    assert preflight.grown(before, Config(), 2, MANY, 64 << 20) == before
    assert preflight.grown(larger, Config(), 2, [], AMPLE) == larger


def test_rings_shrink_to_a_small_shared_memory_and_say_so() -> None:
    assert capacities(streams=MANY)["trade"] == 1 << 20
    small = preflight.plan_rings(Config(), "x", 2, 64 << 20, streams=MANY)
    assert small.bytes_needed <= (64 << 20) * 0.8
    assert "rings hold" in small.note
    for ring in small.rings:
        assert ring.capacity & (ring.capacity - 1) == 0


@pytest.mark.fault("C02")
def test_configured_rings_that_do_not_fit_are_refused_with_both_sizes(tmp_path: Path) -> None:
    text = "[shards.ring_records]\ntrade = 1048576\nbook = 1048576"
    config = load(write(tmp_path, text), {}).config
    with pytest.raises(ConfigError, match=r"need [\d,]+ bytes .* of the 67,108,864 bytes free"):
        preflight.plan_rings(config, "x", 1, 64 << 20)
    # A crash's leftovers give way to the new rings.
    assert preflight.plan_rings(config, "x", 1, 64 << 20, reclaimable_bytes=256 << 20).rings


def test_every_shard_gets_a_ring_of_every_kind() -> None:
    names = [ring.ring for ring in preflight.plan_rings(Config(), "x", 2, AMPLE).rings]
    assert names == [f"shard-{shard}.{kind}" for shard in range(2) for kind in KINDS]


@pytest.mark.fault("N37")
@pytest.mark.parametrize("typed", ["trades", "TRADES", "Open_Interest", "open-interest", "l2book"])
def test_kinds_are_understood_in_any_case(tmp_path: Path, typed: str) -> None:
    file = tmp_path / "fts.toml"
    file.write_text(
        f"[[streams]]\nvenue = 'x'\nsymbols = ['A']\nkinds = ['{typed}']\ntransport = 'httppoll'\n"
    )
    (key,) = load(file, {}).stream_keys()
    assert key.kind in (StreamKind.TRADES, StreamKind.OPEN_INTEREST, StreamKind.L2_BOOK)
    assert key.kind.value.lower() == typed.lower().replace("_", "").replace("-", "")
    assert key.transport is Transport.HTTP_POLL
