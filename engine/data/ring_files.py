"""Making the files of rings: complete, or not there under their names."""

from engine.base.clock import wall_ns
from engine.data.kind import Kind
from engine.data.kinds import KINDS
from engine.data.layout import Layout
from engine.data.ring import format_ring, ring_bytes
from engine.data.segment import Segment, create_segment


def kind_of(ring: str) -> Kind:
    """The record kind of a ring, in which its name ends."""
    return KINDS[ring.rpartition(".")[2]]


def make_ring(layout: Layout, ring: str, capacity: int) -> Segment:
    """Create an empty ring of a new epoch. Raises SegmentError where there is no room for it."""
    spec, path = kind_of(ring), layout.ring_path(ring)
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    segment = create_segment(unfinished, ring_bytes(spec, capacity))
    with memoryview(segment.memory) as memory:
        format_ring(memory, spec, capacity, wall_ns())
    unfinished.rename(path)
    segment.path = path
    return segment
