"""The order of the tests where several workers share them, as `--dist worksteal` deals them."""

from collections.abc import Callable, Sequence
from itertools import groupby, islice
from typing import TypeVar

_T = TypeVar("_T")


def long_first(
    tests: Sequence[_T],
    workers: int,
    is_long: Callable[[_T], bool],
    file_of: Callable[[_T], object],
) -> list[_T]:
    """The same tests, so that each worker's share begins with its part of the long ones.

    A share is a piece of the list, and who has done his takes from the end of another's: short ones
    then, so that nobody is left with minutes to go while the others idle. Files stay whole, for the
    sake of what their tests have in common.
    """
    files = [list(file) for _, file in groupby(filter(is_long, tests), key=file_of)]
    shares: list[list[_T]] = [[] for _ in range(workers)]
    for file in sorted(files, key=len, reverse=True):
        min(shares, key=len).extend(file)
    short = (test for test in tests if not is_long(test))
    left = len(tests)
    for number, share in enumerate(shares):
        size = left // (workers - number)
        share.extend(islice(short, max(0, size - len(share))))
        left -= len(share)
    return [test for share in shares for test in share]
