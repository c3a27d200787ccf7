"""Whose doing an SQLSTATE is: every class of PostgreSQL's appendix A, and what nobody knows."""

import psycopg
import pytest

from engine.writer.sinks.postgres.refusals import Fault, fault_of

_LATER = "00 01 02 03 08 0B 0L 0P 24 25 26 28 2D 34 3B 3D 40 53 55 57 58 72 F0"
_TABLE = "0A 0F 0Z 27 2B 2F 38 39 3F 42 54 HV TS IO"
_ROW = "09 10 20 21 22 23 44 P0 XX"
_EVERY_CLASS = {
    **dict.fromkeys(_LATER.split(), Fault.LATER),
    **dict.fromkeys(_TABLE.split(), Fault.TABLE),
    **dict.fromkeys(_ROW.split(), Fault.ROW),
}


def _error(state: str) -> psycopg.Error:
    error = psycopg.DatabaseError("refused")
    error.sqlstate = state
    return error


@pytest.mark.fault("N02")
@pytest.mark.parametrize("state", sorted(_EVERY_CLASS))
def test_every_class_is_somebodys(state: str) -> None:
    assert fault_of(_error(f"{state}000")) is _EVERY_CLASS[state]


def test_the_table_above_has_every_class_that_psycopg_knows() -> None:
    known = {str(each.sqlstate)[:2] for each in psycopg.errors._sqlcodes.values()}
    assert known <= _EVERY_CLASS.keys()


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ("XX001", Fault.LATER),
        ("XX002", Fault.LATER),
        ("ZZ999", Fault.ROW),
        ("", Fault.ROW),
        (None, Fault.LATER),
    ],
    ids=["damaged data", "damaged index", "unknown", "empty", "broken connection"],
)
def test_what_is_special(state: str, fault: Fault) -> None:
    assert fault_of(_error(state)) is fault
