"""The dashboard *What is missing?*: asked of the database, which is the truth about it."""

# ruff: noqa: S608 - the queries are put together from parts of this file alone

from typing import Final

from deploy.grafana.panels import Board, Panel, PromQl, Sql, Variable

_STREAMS: Final = "stream JOIN instrument USING (instrument_id)"
_OF_VENUE: Final = "venue = ${venue:sqlstring}"
_OF_SYMBOL: Final = f"{_OF_VENUE} AND symbol = ${{symbol:sqlstring}}"
_TIMES: Final = "$__timeFrom()::timestamptz, $__timeTo()::timestamptz"
_BARS: Final = (
    f"bars(${{venue:sqlstring}}, ${{symbol:sqlstring}}, {_TIMES}, ${{width:sqlstring}}::interval)"
)
_VARIABLES = (
    Variable("venue", "venue", Sql(f"SELECT DISTINCT venue FROM {_STREAMS} ORDER BY 1")),
    Variable(
        "symbol", "symbol",
        Sql(f"SELECT DISTINCT symbol FROM {_STREAMS} WHERE {_OF_VENUE} ORDER BY 1"),
    ),
    Variable(
        "kind", "kind of stream",
        Sql(f"SELECT DISTINCT kind FROM {_STREAMS} WHERE {_OF_SYMBOL} ORDER BY 1"),
    ),
    Variable("width", "width of a bar",
             ("1 minute", "1 second", "10 seconds", "5 minutes", "1 hour")),
)  # fmt: skip

_ANSWERS: Final = (
    (0, "complete", "green"), (1, "not collected", "gray"), (2, "unprovable", "yellow"),
    (3, "missing", "red"),
)  # fmt: skip
_ANSWER: Final = " ".join(f"WHEN '{word}' THEN {number}" for number, word, _ in _ANSWERS)

_SYMBOL = (
    Panel(
        "Complete, missing, not collected", [Sql(f"""\
SELECT
    c.from_time AS time, s.kind || ' ' || s.transport AS metric,
    CASE c.answer {_ANSWER} END AS value
FROM (SELECT DISTINCT venue, symbol, kind, transport FROM {_STREAMS} WHERE {_OF_SYMBOL}) AS s
CROSS JOIN LATERAL completeness(s.venue, s.symbol, s.kind, {_TIMES}, s.transport) AS c
ORDER BY 1""", "time_series")],
        "Function completeness, by stream of the symbol. The newest seconds are not sure yet.",
        look="state-timeline", words=_ANSWERS, width=24,
    ),
    Panel(
        "The kind's answer, piece by piece", [Sql(f"""\
SELECT answer, from_time, to_time, reason, missing
FROM complete(${{venue:sqlstring}}, ${{symbol:sqlstring}}, ${{kind:sqlstring}}, {_TIMES},
    (SELECT min(transport) FROM {_STREAMS} WHERE {_OF_SYMBOL} AND kind = ${{kind:sqlstring}}))
ORDER BY from_time DESC LIMIT 1000""")],
        "Of the chosen kind of stream, the newest first.", look="table",
    ),
    Panel(
        "Gaps of the symbol", [Sql(f"""\
SELECT detected, kind, transport, reason, state, missing, from_time, to_time
FROM gaps_in(${{venue:sqlstring}}, ${{symbol:sqlstring}}, {_TIMES})
ORDER BY detected DESC LIMIT 1000""")],
        "By function gaps_in. An empty number: nobody can know.", look="table",
    ),
    Panel(
        "Prices", [Sql(f"""\
SELECT time, open::float8, high::float8, low::float8, close::float8, volume::float8
FROM {_BARS} ORDER BY time""")],
        "Bars of the symbol's trades; none where there was no trade.",
        look="candlestick", width=16, height=10,
    ),
    Panel(
        "Trades a bar", [Sql(f"""\
SELECT time, 'trades' AS metric, trade_count AS value FROM {_BARS} ORDER BY time""",
                             "time_series")],
        "A hole in trading is no gap: the row above tells which it is.", width=8, height=10,
    ),
)  # fmt: skip

_WHOLE_VENUE = (
    Panel(
        "Share of the time that is complete", [Sql(f"""\
SELECT
    s.symbol, s.kind, s.transport,
    coalesce(extract(epoch FROM sum(least(u.ended, a.until) - greatest(u.started, a.since)))
        / extract(epoch FROM a.until - a.since), 0)::float8 AS complete
FROM (SELECT {_TIMES}) AS a (since, until)
CROSS JOIN (SELECT DISTINCT symbol, kind, transport FROM {_STREAMS} WHERE {_OF_VENUE}) AS s
LEFT JOIN usable_intervals AS u
    ON u.{_OF_VENUE} AND (u.symbol, u.kind, u.transport) = (s.symbol, s.kind, s.transport)
    AND u.started < a.until AND u.ended > a.since
GROUP BY 1, 2, 3, a.since, a.until ORDER BY 4, 1, 2 LIMIT 500""")],
        "Of each stream of the venue, the worst first. What was not collected counts as missing.",
        unit="percentunit", look="table", limits=(0.999, 0.99),
    ),
    Panel(
        "Gaps of the venue by reason", [Sql(f"""\
SELECT date_bin('$__interval', detected, timestamptz 'epoch') AS time, reason AS metric,
    count(*) AS value
FROM gaps
WHERE {_OF_VENUE} AND detected BETWEEN $__timeFrom() AND $__timeTo()
GROUP BY 1, 2 ORDER BY 1""", "time_series")],
        "When they were found. Many at once are the network's or the venue's.",
    ),
    Panel(
        "Where most is missing", [Sql(f"""\
SELECT symbol, kind, reason, state, count(*) AS gaps, sum(missing)::int8 AS missing
FROM gaps
WHERE {_OF_VENUE} AND detected BETWEEN $__timeFrom() AND $__timeTo()
GROUP BY 1, 2, 3, 4 ORDER BY 6 DESC NULLS LAST, 5 DESC LIMIT 100""")],
        "Rows that are known to be missing; empty where nobody can know how many.", look="table",
    ),
    Panel(
        "Declared missing", [PromQl(
            'sum by (exchange, kind) (increase(fts_shards_missing_rows_total{exchange=~"$venue"}'
            "[$__rate_interval]))", "{{exchange}} {{kind}}")],
        "As it happens, before it is in the database: rows whose number is known.",
    ),
    Panel(
        "Refused", [
            PromQl('sum by (exchange, kind) (increase(fts_shards_refused_rows_total'
                   '{exchange=~"$venue"}[$__rate_interval]))', "unreadable {{exchange}} {{kind}}"),
            PromQl('sum by (exchange, kind) (increase(fts_shards_duplicate_rows_total'
                   '{exchange=~"$venue"}[$__rate_interval]))', "repeated {{exchange}} {{kind}}"),
        ],
        "Unreadable rows are declared; repeated ones are stored once.",
    ),
)  # fmt: skip

BOARD: Final = Board(
    "fintickstreams-missing",
    "What is missing?",
    "Which times of a stream are complete, and why others are not. docs/prometheus.md",
    _VARIABLES,
    (*_SYMBOL, *_WHOLE_VENUE),
)
