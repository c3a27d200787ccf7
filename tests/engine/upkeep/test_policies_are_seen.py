"""What `fts doctor` says of TimescaleDB's jobs, licence, version and the server's settings."""

from pathlib import Path

import psycopg
import pytest

from control.cli.commands.doctor import hypertables_of
from engine.database.facts import DatabaseFacts, PolicyFacts, read_facts
from engine.database.session import DOCTOR, session
from engine.upkeep.tasks.policies import Policies
from tests.engine.upkeep.hyper_rig import HyperRig
from tests.flow.processes import Fts
from tests.stores import execute, select
from tests.waiting import wait_for


def test_each_shortcoming_is_a_note_with_what_to_do() -> None:
    facts = DatabaseFacts(
        layout="hypertables",
        settings_too_low={"max_worker_processes": 24, "max_locks_per_transaction": 256},
        policies=[
            PolicyFacts("trade", "columnstore", last_status="Failed", failures=3, last_error="x y"),
            PolicyFacts("book", "retention", is_scheduled=False),
            PolicyFacts("quote", "columnstore", last_status="Success"),
        ],
    )
    settings, failed, off, at_work = hypertables_of(facts)
    assert {each.level for each in (settings, failed, off)} == {"note"}
    assert settings.advice.endswith("max_worker_processes = 24, max_locks_per_transaction = 256")
    assert "columnstore of trade failed (3 times by now): x y" in failed.text
    assert off.text == "retention of book is switched off"
    assert at_work.text == "columnstore of trade, columnstore of quote"
    lacking = DatabaseFacts(layout="hypertables", timescaledb_lacks="no policies; do this")
    (finding,) = hypertables_of(lacking)
    assert (finding.level, finding.text, finding.advice) == ("note", "no policies", "do this")


@pytest.mark.whole
def test_a_policy_that_fails_is_told_with_its_reason(hyper: HyperRig, tmp_path: Path) -> None:
    hyper.fill(72, 24, 240)
    chunk = select(hyper.url, "SELECT c::text FROM show_chunks('trade') AS c LIMIT 1")[0][0]
    execute(hyper.url, f"CREATE VIEW needed AS SELECT * FROM {chunk}")
    hyper.run(Policies().run, keep={"trade": "24h"})
    with session(hyper.url, DOCTOR) as connection:
        facts = read_facts(connection)
    assert (facts.timescaledb_lacks, len(facts.columnstore)) == ("", 6)
    assert {each.policy for each in facts.policies if each.table == "trade"} == {
        "columnstore",
        "retention",
    }
    assert not any(each.last_status == "Failed" for each in facts.policies)
    with psycopg.connect(hyper.url, autocommit=True) as connection:
        connection.execute("SELECT _timescaledb_functions.start_background_workers()")
        wait_for(
            lambda: (
                select(
                    hyper.url,
                    "SELECT count(*) FROM timescaledb_information.job_errors"
                    " WHERE proc_name = 'policy_retention'",
                )
                != [(0,)]
            ),
            timeout_s=60.0,
        )
        connection.execute("SELECT _timescaledb_functions.stop_background_workers()")
    said = Fts(
        "doctor", "--state-dir", f"{tmp_path}/s",
        FTS_DATABASE_URL=hyper.url, FTS_CONTROL_PORT="0",
    )  # fmt: skip
    code, text = said.end()
    assert code == 0, text
    assert "retention of trade failed" in text
    assert "depend on it" in text
    assert "columnstore of book" in text
