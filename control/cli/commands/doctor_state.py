"""What `fts doctor` says of the state directory, and of what engines left behind."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from control.cli.findings import Complaint, Finding, fine
from control.cli.remote.client import running
from engine.base.errors import EngineError
from engine.data.layout import Layout, open_layout
from engine.process import instance
from engine.process.release import release
from engine.start import preflight
from engine.start.config import LoadedConfig

RINGS_LEFT: Final = Complaint(
    "rings_left", "they hold rows that no database has yet, and a reboot forgets them"
)
ENGINE_STARTING: Final = Complaint("engine_starting", "what is said of it here may be old at once")
STATE_COPIED: Final = Complaint(
    "state_copied",
    "both would take their rows from the same rings; the second one refuses to start",
)
SHM_LEFTOVERS: Final = Complaint(
    "shm_leftovers", "they take shared memory that rings need, and may hold rows of another engine"
)
STATE_NOT_WRITABLE: Final = Complaint(
    "state_not_writable", "the engine does not start, or its log and its journal end"
)
STATE_NEWER: Final = Complaint(
    "state_newer", "the engine does not start: it would misread what is there"
)
RELEASES_MIXED: Final = Complaint(
    "releases_mixed", "what was mended in the newer one is not mended in all of the engine"
)
RELEASE_OLD: Final = Complaint(
    "release_old", "what was mended in this one is not mended in the engine"
)
STATE_FLEETING: Final = Complaint(
    "state_fleeting", "journal, wanted streams and a private database are gone with it"
)
_FLEETING: Final = {
    "tmpfs": "memory, which a reboot empties",
    "ramfs": "memory, which a reboot empties",
    "overlay": "a container's own layer, which goes with the container",
}
_ANSWER_WITHIN_S: Final = 5.0
_MOUNTS: Final = Path("/proc/self/mountinfo")


def state(layout: Layout, mounts: Path = _MOUNTS) -> Iterator[Finding]:
    """Everything about it."""
    yield from _engines(layout)
    if (number := preflight.newer_format(layout)) is not None:
        text = f"{layout.state_dir} has format {number}, which is a newer version's"
        yield STATE_NEWER.problem("state", text, "start that version on it, or choose another one")
    if others := preflight.rows_of_others(layout):
        yield STATE_NEWER.problem(
            "state", f"{len(others)} files hold rows of another version, {others[0]} the first",
            "start that version on it once more and stop it in order: it stores them; or move the"
            " files away to give the rows up",
        )  # fmt: skip
    yield from _leftovers(layout)
    yield _directory(layout.state_dir, mounts)


def releases(loaded: LoadedConfig) -> Iterator[Finding]:
    """Which code the processes of an engine that runs have begun with."""
    try:
        client = running(loaded, _ANSWER_WITHIN_S)
        row = client.get("/upgrade") if client is not None else {}
    except EngineError:
        return  # that it does not answer is said elsewhere
    found: dict[str, list[str]] = row.get("releases", {})
    if not found or row["state"] == "running":
        return
    runs = "; ".join(f"{', '.join(names)}: {code}" for code, names in found.items())
    if len(found) > 1:
        advice = "`fts upgrade`; if that does not say why it fails, restart the engine"
        yield RELEASES_MIXED.note("release", f"processes of several releases: {runs}", advice)
    elif release() not in found:
        text = f"the engine runs {next(iter(found))}, and this command is {release()}"
        yield RELEASE_OLD.note("release", text, "`fts upgrade` has the engine take it on")
    else:
        yield fine("release", f"all processes run {release()}")


def _engines(layout: Layout) -> Iterator[Finding]:
    """The engine on this state directory, and a demo below it."""
    yield _engine("engine", layout.state_dir, layout)
    demo = layout.state_dir / "demo"
    if (demo / "instance").exists():
        yield _engine("demo", demo, open_layout(demo, layout.shm_dir.parent))


def _engine(topic: str, state_dir: Path, layout: Layout) -> Finding:
    if not instance.is_held(layout):
        return _none_runs(topic, state_dir, layout)
    note = instance.read_note(layout)
    if note is None and (host := instance.read_host_note(layout)) is not None:
        text = f"none runs on {state_dir}; its database is open for readers (pid {host.pid})"
        return fine(topic, text)
    if note is None:
        return ENGINE_STARTING.note(topic, f"one is starting on {state_dir}", "ask again")
    told = (f"runs on {state_dir} (pid {note.pid})", f"control {note.control_url}", *note.clients)
    return fine(topic, "; ".join(told))


def _none_runs(topic: str, state_dir: Path, layout: Layout) -> Finding:
    text = f"none runs on {state_dir}"
    if _is_locked(layout.shm_dir):
        return STATE_COPIED.problem(
            topic, f"{text}, but one uses its rings: one of two directories is a copy of the other",
            "stop that engine, or use another --state-dir",
        )  # fmt: skip
    if left := len(instance.leftover_rings(layout)):
        return RINGS_LEFT.note(
            topic, f"{text}; {left} ring files are left of a crash",
            "start it again: it stores what they hold",
        )  # fmt: skip
    return fine(topic, text)


def _is_locked(shm_dir: Path) -> bool:
    """Whether an engine has these rings now."""
    try:
        return instance.is_locked(Path(f"{shm_dir}.lock"))
    except OSError:
        return False


def _leftovers(layout: Layout) -> Iterator[Finding]:
    """Rings that other engines left, as far as this user may see them."""
    ours = {layout.shm_dir.name}
    demo = layout.state_dir / "demo"
    if (demo / "instance").exists():
        ours.add(open_layout(demo, layout.shm_dir.parent).shm_dir.name)
    left: dict[Path, int] = {}
    for folder in layout.shm_dir.parent.glob("fts-*"):
        is_one = re.fullmatch(r"fts-[0-9a-f]{12}", folder.name) and folder.is_dir()
        if is_one and folder.name not in ours and not _is_locked(folder):
            with contextlib.suppress(OSError):
                left[folder] = sum(each.stat().st_blocks * 512 for each in folder.iterdir())
    if left:
        names = ", ".join(map(str, sorted(left)))
        yield SHM_LEFTOVERS.note(
            "rings of others", f"{sum(left.values()) / 2**20:,.0f} MB, left by engines that ended"
            f" early: {names}",
            "start those engines again (the file `instance` of a state directory names its rings);"
            " where that directory is gone, rm -r them",
        )  # fmt: skip


def _directory(state_dir: Path, mounts: Path) -> Finding:
    """Whether we may write there, and whether it stays."""
    locked = [each for each in _files(state_dir) if not os.access(each, os.W_OK)]
    if locked:
        return STATE_NOT_WRITABLE.problem(
            "state", f"{locked[0]} cannot be written by this user"
            + (f", nor {len(locked) - 1} others" if len(locked) > 1 else ""),
            f"an engine of another user (sudo?) made it: chown -R $USER {state_dir}",
        )  # fmt: skip
    kind = _file_system(state_dir, mounts)
    if kind in _FLEETING:
        return STATE_FLEETING.note(
            "state", f"{state_dir} is in {_FLEETING[kind]}",
            "choose a directory of a disk with --state-dir (a volume, in a container)",
        )  # fmt: skip
    return fine("state", f"{state_dir} can be written" + (f" ({kind})" if kind else ""))


def _files(state_dir: Path) -> Iterator[Path]:
    """What the engine itself writes; a private server's files may be another account's."""
    yield state_dir
    for name in ("fts.log", "lock", "streams.jsonl", "registry.jsonl", "journal", "positions"):
        if (path := state_dir / name).exists():
            yield path


def _file_system(path: Path, mounts: Path) -> str:
    """The type of the file system that has `path`; empty where nobody tells."""
    best, kind = "", ""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        words = line.split(" ")
        if len(words) > 4 and " - " in line:
            point = words[4].replace("\\040", " ")
            if path.is_relative_to(point) and len(point) >= len(best):
                best, kind = point, line.partition(" - ")[2].split(" ")[0]
    return kind
