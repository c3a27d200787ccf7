"""Frames of one stream, kept until it is known what becomes of them.

A decoder finds one of these where it would find the stream. What could not be read keeps its place
among the frames.
"""

from collections.abc import Callable, Sequence
from typing import Any

from shards.feeds.declared.unreadable import Unreadable
from shards.feeds.feed import Feed, Frame

KEPT_MAX = 20_000
"""Frames: some seconds of the busiest stream."""


class KeptFrames:
    """Takes the frames of one stream; `_kept` is called after each."""

    def __init__(self, stream: Feed) -> None:
        self.stream = stream
        self._frames: list[Frame] = []
        self._unreadable: list[tuple[int, Unreadable]] = []
        """With the number of frames that came before each."""
        self._methods: list[str] = []
        """Of each frame: which of the stream's takes it."""
        self._is_over = False

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Any method a decoder delivers frames to."""
        if not name.startswith("on_"):
            raise AttributeError(name)

        def take(*frame: Any) -> None:
            if self._is_over:  # by a row of the same message: its decoder still has this
                getattr(self.stream, name)(*frame)
                return
            self._methods.append(name)
            self._frames.append(frame)
            self._kept()

        return take

    def on_unreadable(self, item: Unreadable) -> None:
        """The stream takes it with the frames it came between, if those are not stored by then; it
        knows what another socket has brought as well.
        """
        if self._is_over:
            self.stream.on_unreadable(item)
            return
        self._unreadable.append((len(self._frames), item))
        del self._unreadable[:-KEPT_MAX]

    def _kept(self) -> None:
        """One more frame is there."""

    def _forget(self) -> None:
        self._frames.clear()
        self._methods.clear()
        self._unreadable.clear()

    def _end(self, frames: Sequence[Frame], before: Callable[[], None]) -> None:
        """Deliver `frames`, the last of those that are kept, once the stream knows (`before`) that
        its rows come directly from now on.
        """
        stored = len(self._frames) - len(frames)
        unreadable = [(place - stored, item) for place, item in self._unreadable if place >= stored]
        methods = self._methods[stored:]
        self._frames, self._methods, self._unreadable = [], [], []
        self._is_over = True
        before()
        for place, frame in enumerate(frames):
            while unreadable and unreadable[0][0] <= place:
                self.stream.on_unreadable(unreadable.pop(0)[1])
            getattr(self.stream, methods[place])(*frame)
        for _, item in unreadable:
            self.stream.on_unreadable(item)
