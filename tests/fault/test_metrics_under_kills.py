"""Whatever dies, a scrape is answered, parses, and no counter goes back."""

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import psutil
import pytest

from engine.data.layout import open_layout
from tests.fault.test_killed_processes import random_pause
from tests.flow.processes import Fts
from tests.flow.rig import SHARD, WRITER, Rig, remove_shared_memory
from tests.flow.scraper import UNREADABLE, Scraper, counters, scrape

pytestmark = [pytest.mark.flow, pytest.mark.fault("V09"), pytest.mark.timeout(240)]
MakeRig = Callable[..., Rig]
CONTROL = "control.main:run"
ROWS = 'fts_shards_rows_total{exchange="binance_linear",kind="Trades"}'
STORED = 'fts_writer_stored_rows_total{kind="trade"}'
SOCKETS = 'fts_shards_connections{exchange="binance_linear"}'


def goes_on(state_dir: Path, before: dict[str, float]) -> bool:
    """Whether rows are received and stored again."""
    now = scrape(state_dir)
    return now[ROWS] > before[ROWS] and now[STORED] > before[STORED]


def test_every_scrape_succeeds_while_processes_are_killed(make_rig: MakeRig) -> None:
    rig = make_rig(rate="2000")
    engine = rig.start()
    state_dir = rig.directory / "state"
    names = {SHARD: "shard-0", WRITER: "writer"}
    with Scraper(state_dir) as scraper:
        for life, target in product((1, 2), names):
            rig.until_more_rows()
            random_pause()
            before = scrape(state_dir)
            engine.child(target).kill()
            engine.wait_for_count(f"{names[target]} is ready", life + 1)
            rig.until(partial(goes_on, state_dir, before), "counters that go on")
    assert scraper.count > 10
    engine.wait_for("upkeep is ready")
    deaths = [f'fts_engine_process_restarts_total{{process="{name}"}}' for name in names.values()]
    rig.until(
        lambda: [scrape(state_dir)[each] for each in deaths] == [2, 2], "each death to be counted"
    )
    assert scrape(state_dir)[UNREADABLE] == 0
    files = list(open_layout(state_dir).metrics_dir.iterdir())
    assert len(files) == 12, "three a role, after any number of deaths"


def test_gauges_of_a_dead_process_are_gone_until_it_is_back(make_rig: MakeRig) -> None:
    rig = make_rig(rate="500", symbols=1)
    engine = rig.start()
    state_dir = rig.directory / "state"
    rig.until(lambda: SOCKETS in scrape(state_dir), "open sockets")
    engine.child(SHARD).kill()
    engine.wait_for_count("shard-0 is ready", 2)
    rig.until(lambda: scrape(state_dir).get(SOCKETS, 0) > 0, "open sockets")
    engine.child(SHARD).kill()  # the second death in a row: its successor has to wait
    rig.until(lambda: SOCKETS not in scrape(state_dir), "the gauge of the dead to go")
    engine.wait_for_count("shard-0 is ready", 3)
    rig.until(lambda: scrape(state_dir).get(SOCKETS, 0) > 0, "the gauge of the living")


def test_control_counts_on_after_its_own_death_and_no_scrape_meanwhile_is_refused(
    make_rig: MakeRig,
) -> None:
    """They wait in the queue of the socket, which is the supervisor's."""
    rig = make_rig(rate="500", symbols=1)
    engine = rig.start()
    state_dir = rig.directory / "state"
    asked = 'fts_control_requests_total{method="GET",route="/metrics",status="2xx"}'
    with Scraper(state_dir) as scraper:
        rig.until(lambda: scraper.count >= 10, "ten scrapes")
        for life in (1, 2):
            before = scrape(state_dir)
            assert before[asked] >= 9
            engine.child(CONTROL).kill()
            engine.wait_for_count("control is ready", life + 1)
            rig.until(partial(answers_again, scraper, scraper.count), "scrapes of the next one")
            assert scrape(state_dir)[asked] > before[asked]
    assert scraper.cut <= 2, "each death cuts the one answer that was under way"


def answers_again(scraper: Scraper, before: int) -> bool:
    """Whether there were some more."""
    return scraper.count >= before + 3


def test_a_damaged_file_costs_its_own_numbers_only(make_rig: MakeRig) -> None:
    rig = make_rig(rate="500", symbols=1)
    engine = rig.start()
    state_dir = rig.directory / "state"
    metrics_dir = open_layout(state_dir).metrics_dir
    # Nobody is ever born to replace these two.
    (metrics_dir / "counter_shard-8.db").touch()
    whole = (metrics_dir / "counter_shard-0.db").read_bytes()
    (metrics_dir / "counter_shard-9.db").write_bytes(whole[:500])
    with Scraper(state_dir) as scraper:
        rig.until(lambda: scraper.count >= 5, "five scrapes")
    found = scrape(state_dir)
    assert found[UNREADABLE] == 2
    assert found[ROWS] > 0
    engine.child(WRITER).kill()
    (metrics_dir / "counter_writer.db").write_bytes(bytes(range(256)) * 64)
    engine.wait_for("counter_writer.db was damaged")
    rig.until(lambda: scrape(state_dir).get(STORED, 0) > 0, "the writer to count anew")
    assert scrape(state_dir)[UNREADABLE] == 2
    rig.stop()
    assert not metrics_dir.exists()


def test_engines_of_one_machine_do_not_mix(tmp_path: Path) -> None:
    """One is killed with all its processes; the other one's numbers are its own all the time."""
    config = tmp_path / "fts.toml"
    config.write_text(
        "streams = []\n"
        "[venues.binance_linear]\nrest_url = 'http://127.0.0.1:9'\n"
        "[venues.hyperliquid_perp]\nrest_url = 'http://127.0.0.1:9'\n",
        encoding="utf-8",
    )

    def start(name: str) -> Fts:
        engine = Fts(
            "up", "--config", str(config), "--port", "0", "--no-database",
            "--no-redis", "--state-dir", str(tmp_path / name),
        )  # fmt: skip
        engine.wait_for("control is ready")
        return engine

    asked = 'fts_control_requests_total{method="GET",route="/metrics",status="2xx"}'
    engines = [start("first"), start("second")]
    try:
        for _ in range(5):
            scrape(tmp_path / "first")
        assert scrape(tmp_path / "first")[asked] == 5
        assert asked not in scrape(tmp_path / "second")
        children = engines[0].descendants()
        engines[0].kill()
        psutil.wait_procs(children, timeout=30)
        assert open_layout(tmp_path / "first").metrics_dir.is_dir(), "nobody could clean up"
        assert scrape(tmp_path / "second")[asked] == 1
        engines[0] = start("first")
        assert asked not in scrape(tmp_path / "first"), "a new engine counts anew"
        assert counters(scrape(tmp_path / "first"))[asked] == 1
    finally:
        for engine, name in zip(engines, ("first", "second"), strict=True):
            engine.kill()
            remove_shared_memory(tmp_path / name)
