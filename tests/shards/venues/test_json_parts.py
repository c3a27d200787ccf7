"""JSON taken apart by its brackets: what is nested or never ends costs no more than its length."""

import pytest

from shards.venues.json_parts import elements, members

DEPTH = 100_000


@pytest.mark.fault("X11")
def test_a_string_that_never_ends_is_the_rest_of_the_text() -> None:
    """Were an end looked for behind each of its quotes, this would take half an hour."""
    rest = b'"' + b'\\"' * 500_000
    assert members(b'{"a":' + rest) == {"a": rest}
    assert elements(b"[1," + rest) == [b"1", rest]
    assert members(rest) == {}
    assert elements(rest) == []


def test_objects_in_objects_are_one_value() -> None:
    deep = b'{"a":' * DEPTH + b"1" + b"}" * DEPTH
    assert members(b'{"x":%b,"y":2}' % deep) == {"x": deep, "y": b"2"}
    assert elements(b"[%b,%b]" % (deep, deep)) == [deep, deep]
    mixed = b'[{"a":[{"b, ]}":{}},"["],"c" : {"d":1}}]'
    assert members(b'{"x":%b,"y":%b}' % (mixed, mixed)) == {"x": mixed, "y": mixed}
    assert elements(b"[%b,3]" % mixed) == [mixed, b"3"]


def test_a_name_before_an_object_is_a_name_of_the_outermost_one() -> None:
    assert members(b'{"a":{"b":{"c":1}},"d":[]}') == {"a": b'{"b":{"c":1}}', "d": b"[]"}
