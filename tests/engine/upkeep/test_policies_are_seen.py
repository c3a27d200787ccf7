"""What `fts doctor` says of TimescaleDB's jobs, licence, version and the server's settings."""

from pathlib import Path

import pytest

from control.cli.commands.doctor_database import hypertables_of
from engine.database.condition.facts import DatabaseFacts, PolicyFacts, read_facts
from engine.database.session import DOCTOR, session
from engine.upkeep.tasks.policies import Policies
from tests.engine.upkeep.hyper_rig import HyperRig
from tests.flow.processes import Fts
from tests.stores import execute, select
from tests.waiting import wait_for

_FAILED = """
    SELECT count(*) > 0 FROM timescaledb_information.job_stats AS s
    JOIN timescaledb_information.job_errors AS e USING (job_id)
    WHERE e.proc_name = 'policy_retention' AND s.last_run_status = 'Failed'
"""


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
    execute(
        hyper.url,
        # Both at once may meet in a deadlock, which is a failure for another reason.
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs"
        " WHERE proc_name = 'policy_compression'",
        "SELECT _timescaledb_functions.start_background_workers()",
    )
    wait_for(lambda: select(hyper.url, _FAILED) == [(True,)], "a run of the policy")
    said = Fts(
        "doctor", "--state-dir", f"{tmp_path}/s",
        FTS_DATABASE_URL=hyper.url, FTS_CONTROL_PORT="0",
    )  # fmt: skip
    code, text = said.end()
    assert code == 0, text
    assert "retention of trade failed" in text
    assert "depend on it" in text, text
    assert "columnstore of book is switched off" in text
