"""A disk that takes so many bytes of a file and no more, for files of this process."""

import contextlib
import resource
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def full_at(size_bytes: int) -> Iterator[None]:
    """No file can grow beyond `size_bytes`: a write that would is cut short, the next one fails
    (EFBIG, where a full disk says ENOSPC).
    """
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
