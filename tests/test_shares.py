"""Every test is run, whoever runs it."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from tests.shares import long_first


@given(st.lists(st.integers(1, 9)), st.integers(1, 4), st.sets(st.integers(0, 20)))
def test_each_test_is_dealt_once_and_files_stay_whole(
    sizes: list[int], workers: int, long_files: set[int]
) -> None:
    tests = [(file, number) for file, size in enumerate(sizes) for number in range(size)]
    dealt = long_first(tests, workers, lambda test: test[0] in long_files, lambda test: test[0])
    assert sorted(dealt) == tests
    for file in long_files:
        assert [test for test in dealt if test[0] == file] == [t for t in tests if t[0] == file]
    pieces = [file for file, _ in groupby(dealt, key=lambda test: test[0]) if file in long_files]
    assert len(pieces) == len(set(pieces))


def test_each_share_begins_with_long_ones_and_ends_with_short_ones() -> None:
    tests = [f"{file}{number}" for file in "abcdefghi" for number in range(10)]
    dealt = long_first(tests, 3, lambda test: test[0] in "def", lambda test: test[0])
    shares = [dealt[:30], dealt[30:60], dealt[60:]]
    assert [{test[0] for test in share[:10]} for share in shares] == [{"d"}, {"e"}, {"f"}]
    assert [set(share[10:]) & {t for t in tests if t[0] in "def"} for share in shares] == [
        set()
    ] * 3
