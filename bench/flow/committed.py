"""How long after the venue's event a row was committed, by PostgreSQL's own clock.

The server notes when each transaction was committed (`track_commit_timestamp`, which the private
one is started with here), and each row knows its transaction: nothing of ours is asked, and nothing
has to be polled while it runs.
"""

from typing import Any, Final

import psycopg

from bench.flow.percentiles import NAMES, PLACES

SERVER_SETTING: Final = "track_commit_timestamp"
_ROWS_MAX: Final = 200_000
_IDS: Final = {"trade": "trade_id", "book": "seq"}
_AGES: Final = """
    SELECT count(*), percentile_cont(%(places)s::float8[]) WITHIN GROUP (ORDER BY age_ms) FROM (
        SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - time) * 1e3 AS age_ms
        FROM {table} WHERE time >= to_timestamp(%(begin)s) AND time < to_timestamp(%(end)s)
        AND flags & 1 = 0 AND {key} %% %(every)s = 0
    ) AS ages WHERE age_ms IS NOT NULL
"""


def committed_ms(
    url: str, table: str, begin_ns: int, end_ns: int, rows: int
) -> tuple[int, dict[str, float]]:
    """How many rows were looked at, and the percentiles; of rows whose event was in this time. Of
    more than 200,000 every n-th is taken. Nothing where the server does not note it.
    """
    query = _AGES.format(table=table, key=_IDS[table])
    values: dict[str, Any] = {
        "places": [place / 100 for place in PLACES], "begin": begin_ns / 1e9, "end": end_ns / 1e9,
        "every": max(1, rows // _ROWS_MAX),
    }  # fmt: skip
    with psycopg.connect(url) as connection:
        noted = connection.execute("SELECT current_setting('track_commit_timestamp')").fetchone()
        if noted is None or noted[0] != "on":
            return 0, {}
        found = connection.execute(query.encode(), values).fetchone()
    if found is None or not found[0]:
        return 0, {}
    return int(found[0]), {
        name: round(float(value), 3) for name, value in zip(NAMES, found[1], strict=True)
    }
