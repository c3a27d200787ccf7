"""The files behind `/metrics`: who writes which one when, who reads it, what a death leaves.

    supervisor  begin        an empty directory               the engine starts
    child       claim        its three files, by its role     it is born, before any metric
    child       (metrics)    values, through a mapping        it reports its status
    control     readable     the files that may be merged     a scrape
    supervisor  child_ended  takes the child's gauges away    it has reaped the child
    supervisor  end          no directory                     every child is gone

The files are those of prometheus-client's multiprocess mode, `<type>_<process>.db`, but named by
role (`shard-0`, `writer`, `control`) where the library would take the pid.

Invariants
- One process writes a file: a role's next process is born after the last one was reaped.
- There are three files a role, however often its processes die.
- Counters and histograms go on growing from one life of a child to the next. What it had counted
  since its last report (half a second) dies with it: in the metrics, never in the data.
- Gauges are about a living child: they are gone from its end until its successor reports.
- A new engine counts from zero, as the supervisor's own counters do. So nothing lingers of shards,
  labels or texts that another configuration or version had.
- A file appears under its name when it is complete and its memory is reserved. On a full tmpfs that
  is an error at birth, not SIGBUS at some later write; the process then runs without metrics.
- A scrape merges what `engine.process.metrics` could have written and nothing else: one bad file
would fail
  every scrape (client_python #1199, #347). A bad file is counted, and its owner replaces it at its
  next birth.
- A process that claims nothing (tests, tools) counts in its own memory, where nobody looks.
"""

import contextlib
import logging
import math
import os
import re
import struct
import sys
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

from engine.base.errors import SegmentError
from engine.data.layout import Layout
from engine.data.segment import create_segment

_log = logging.getLogger(__name__)

GAUGE_MODE: Final = "livesum"
"""Of every gauge. `live`: a dead child's file is no longer true, and goes."""
_PREFIXES: Final = ("counter", f"gauge_{GAUGE_MODE}", "histogram")
_FILE_BYTES: Final = 1 << 17
"""Four times what the largest needs. Beyond it the library would grow the file, unreserved."""
_HEADER_BYTES: Final = 8
_VALUE_BYTES: Final = 16
_FILE_NAME: Final = re.compile(rf"({'|'.join(_PREFIXES)})_[a-z0-9-]+\.db")
_NAME: Final = re.compile(r"fts_[a-z]+(_[a-z]+)+")
_LABEL: Final = re.compile(r"[a-z]+(_[a-z]+)*")
_decode_key = msgspec.json.Decoder(tuple[str, str, dict[str, str], str]).decode


def begin(layout: Layout) -> None:
    """Start with an empty directory. Raises SegmentError when it cannot be made."""
    try:
        layout.shm_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout.metrics_dir.mkdir(mode=0o700, exist_ok=True)
        _empty(layout.metrics_dir)
    except OSError as error:
        raise SegmentError(f"cannot create {layout.metrics_dir}: {error.strerror}") from error


def claim(layout: Layout, process: str) -> None:
    """Have every metric that is made from now on written to the files of this role."""
    assert "_" not in process, "the library takes names apart at underscores"
    directory = layout.metrics_dir
    if not directory.is_dir():
        return
    values.ValueClass = values.MutexValue
    try:
        for prefix in _PREFIXES:
            _provide(directory / f"{prefix}_{process}.db")
    except (OSError, SegmentError) as error:
        _log.warning(f"runs without metrics: {error}")
        return
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)  # read whenever a file is opened
    values.ValueClass = values.MultiProcessValue(lambda: process)


def child_ended(layout: Layout, process: str) -> None:
    """A child was reaped: what it said of itself is not true any more."""
    mark_process_dead(process, str(layout.metrics_dir))


def end(layout: Layout) -> None:
    """Leave nothing behind. Rings that still hold rows stay."""
    with contextlib.suppress(OSError):
        _empty(layout.metrics_dir)
        layout.metrics_dir.rmdir()
        layout.shm_dir.rmdir()


def readable(layout: Layout) -> tuple[list[str], int]:
    """The files that may be merged, and how many may not."""
    files, bad_count = [], 0
    for path in sorted(layout.metrics_dir.glob("*.db")):
        try:
            sound = _is_sound(path)
        except FileNotFoundError:
            continue  # the gauges of a child that has just been reaped
        if sound:
            files.append(str(path))
        else:
            bad_count += 1
    return files, bad_count


def _provide(path: Path) -> None:
    """Make sure of a sound file: the one of an earlier life, or a new one in its place."""
    try:
        if _is_sound(path, at_rest=True):
            return
        _log.warning(f"metrics: {path.name} was damaged and begins anew")
    except FileNotFoundError:
        pass
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    create_segment(unfinished, _FILE_BYTES).close()
    unfinished.rename(path)


def _is_sound(path: Path, *, at_rest: bool = False) -> bool:
    """Whether it holds nothing but entries of ours and, while nobody writes (`at_rest`), says where
    the last one ends: the next is written there. Raises FileNotFoundError.
    """
    if not _FILE_NAME.fullmatch(path.name):
        return False
    try:
        with path.open("rb") as file:
            header, size = file.read(_HEADER_BYTES), os.fstat(file.fileno()).st_size
        used = int.from_bytes(header[:4], sys.byteorder, signed=True)
        if len(header) < _HEADER_BYTES or not (used == 0 or _HEADER_BYTES <= used <= size):
            return False
        end = _HEADER_BYTES
        for key, value, _, value_at in MmapedDict.read_all_values_from_file(str(path)):
            if value_at < end:  # a negative length would send the library round in circles
                return False
            if not _is_ours(*_decode_key(key)) or not math.isfinite(value):
                return False
            end = value_at + _VALUE_BYTES
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, ValueError, struct.error, msgspec.MsgspecError):
        return False
    # More: its owner has added an entry since the header was read.
    return end == max(used, _HEADER_BYTES) if at_rest else end >= used


def _is_ours(metric: str, sample: str, labels: dict[str, str], text: str) -> bool:
    """Whether the library can merge and show it. Raises ValueError when a bucket has no number."""
    del text
    float(labels.get("le", 0))
    are_labels = all(map(_LABEL.fullmatch, labels))
    return are_labels and bool(_NAME.fullmatch(metric)) and sample.startswith(metric)


def _empty(directory: Path) -> None:
    for pattern in ("*.db", "*.new"):
        for path in directory.glob(pattern):
            path.unlink()
