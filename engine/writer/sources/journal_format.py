"""The journal on disk: segment files of checked blocks, and how far one can be trusted.

    segment header, 64 bytes   magic b"FTSJRNL1" | version u4 | item size u4 | fingerprint 16s
                               | epoch u8 | first sequence u8 | zero
    block header, 24 bytes     magic u4 | count u4 | sequence of first record u8 | crc32 u4
                               | zero u4
    block body                 `count` records, as in the ring

The CRC covers the block header's first 16 bytes and the body. A reader takes blocks up to the
first one that is short, foreign or damaged, and never guesses beyond it.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import numpy as np

from engine.base.errors import JournalError
from engine.data.kind import Kind, RecordArray

SEGMENT_MAGIC: Final = b"FTSJRNL1"
SEGMENT_VERSION: Final = 1
SEGMENT_HEADER: Final = Struct("<8sII16sQQ16x")
BLOCK_MAGIC: Final = 0x4B4C4246
BLOCK_START: Final = Struct("<IIQ")
BLOCK_HEADER: Final = Struct("<IIQII")
SUFFIX: Final = ".seg"


class Block(NamedTuple):
    """A good block: the sequence of its first record, its records, and where the next begins."""

    first_seq: int
    records: RecordArray
    next_offset: int


class SegmentHeader(NamedTuple):
    """What a segment says of itself."""

    epoch: int
    first_seq: int


def segment_path(directory: Path, first_seq: int) -> Path:
    """File of the segment that starts at `first_seq`; names sort by sequence."""
    return directory / f"{first_seq:020d}{SUFFIX}"


def segment_header(spec: Kind, epoch: int, first_seq: int) -> bytes:
    """Encode a segment's header."""
    return SEGMENT_HEADER.pack(
        SEGMENT_MAGIC, SEGMENT_VERSION, spec.dtype.itemsize, spec.fingerprint, epoch, first_seq
    )


def block_header(first_seq: int, records: RecordArray) -> bytes:
    """Encode the header of a block that holds `records` (contiguous)."""
    start = BLOCK_START.pack(BLOCK_MAGIC, len(records), first_seq)
    crc = zlib.crc32(raw_bytes(records), zlib.crc32(start))
    return BLOCK_HEADER.pack(BLOCK_MAGIC, len(records), first_seq, crc, 0)


def raw_bytes(records: RecordArray) -> memoryview:
    """The memory of contiguous records, without copying."""
    return records.view(np.uint8).data


def read_segment_header(data: memoryview, spec: Kind, name: str) -> SegmentHeader:
    """Check and decode a segment's header. Raises JournalError naming the segment."""
    if len(data) < SEGMENT_HEADER.size:
        raise JournalError(f"journal segment {name} is shorter than its header")
    magic, version, itemsize, fingerprint, epoch, first_seq = SEGMENT_HEADER.unpack_from(data)
    if magic != SEGMENT_MAGIC or version != SEGMENT_VERSION:
        raise JournalError(f"{name} is not a journal segment this code reads")
    if fingerprint != spec.fingerprint or itemsize != spec.dtype.itemsize:
        raise JournalError(f"journal segment {name} holds another layout of {spec.name}")
    return SegmentHeader(epoch, first_seq)


def block_at(data: memoryview, offset: int, spec: Kind) -> Block | None:
    """Return the block at `offset`, or None where no whole, undamaged block is."""
    body = offset + BLOCK_HEADER.size
    if body > len(data):
        return None
    magic, count, first_seq, crc, _ = BLOCK_HEADER.unpack_from(data, offset)
    end = body + count * spec.dtype.itemsize
    if magic != BLOCK_MAGIC or count == 0 or end > len(data):
        return None
    start_crc = zlib.crc32(data[offset : offset + BLOCK_START.size])
    if zlib.crc32(data[body:end], start_crc) != crc:
        return None
    return Block(first_seq, np.frombuffer(data[body:end], dtype=spec.dtype), end)


def blocks(data: memoryview, spec: Kind) -> Iterator[Block]:
    """Yield the good blocks of a segment from its start."""
    offset = SEGMENT_HEADER.size
    while (block := block_at(data, offset, spec)) is not None:
        yield block
        offset = block.next_offset
