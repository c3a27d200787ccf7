"""Where a private server keeps its files, so that its account can reach them.

As a normal user everything is under the state directory. As root it is harder: PostgreSQL runs
under another account, which must be able to walk to its data. The state directory is ours (mode
0700), so it is opened for that account's group alone (0710: walk through, not list). Parents such
as /root are not ours to open; then the data goes to /var/lib/fintickstreams/<instance>, and a file
in the state directory remembers where. Not to /var/tmp: systemd removes what is old there.
"""

import os
import tempfile
from pathlib import Path

from engine.base.durable import write_whole
from engine.base.errors import ServerStartError
from engine.servers.server_process import ServerAccount

_SOCKET_PATH_BYTES_MAX = 107
_ROOT_FALLBACK = Path("/var/lib/fintickstreams")


def server_home(state_dir: Path, name: str, instance: str, account: ServerAccount) -> Path:
    """Directory of server `name`, made at first use, owned by `account`, mode 0700.

    Raises ServerStartError when no place can be reached.
    """
    home = state_dir / name
    if account.drops:
        home = _remembered(state_dir / f"{name}.home", home, instance, account)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    account.own(home, 0o700)
    if not can_reach(home, account):
        raise ServerStartError(f"account {account.name} cannot reach {home}: check its parents")
    return home


def known_home(state_dir: Path, name: str) -> Path:
    """Where server `name` has its files, if it ever had any."""
    home = state_dir / name
    return _recorded(state_dir / f"{name}.home", home) or home


def socket_dir(
    state_dir: Path, home: Path, name: str, socket_name: str, account: ServerAccount
) -> Path:
    """Directory for a Unix socket, mode 0700, that clients can name.

    `home/run` when they can, else a directory under /tmp with an unguessable name.
    """
    near = home / "run"
    if _can_be_named(near / socket_name):
        near.mkdir(mode=0o700, exist_ok=True)
        account.own(near, 0o700)
        return near
    record = state_dir / f"{name}.socket"
    if record.exists():
        place, _, whose = record.read_text(encoding="utf-8").strip().partition("\n")
        if whose == str(home) and _is_ours(Path(place), account):  # a copy must not take ours
            return Path(place)
    far = _elsewhere(socket_name)
    account.own(far, 0o700)
    write_whole(record, f"{far}\n{home}\n".encode())
    return far


def _can_be_named(socket: Path) -> bool:
    """The kernel takes 107 bytes, and PostgreSQL's clients take a comma for the end of a host."""
    return len(os.fsencode(socket)) <= _SOCKET_PATH_BYTES_MAX and "," not in str(socket)


def _elsewhere(socket_name: str) -> Path:
    far = Path(tempfile.mkdtemp(prefix="fts-"))
    if _can_be_named(far / socket_name):
        return far
    far.rmdir()  # a TMPDIR that is no better
    return Path(tempfile.mkdtemp(prefix="fts-", dir="/tmp"))


def can_reach(path: Path, account: ServerAccount) -> bool:
    """Whether the mode bits let `account` walk down to `path`."""
    if not account.drops:
        return True
    for step in (path, *path.parents):
        status = step.stat()
        if status.st_uid == account.uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == account.gid:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            return False
    return True


def _remembered(record: Path, preferred: Path, instance: str, account: ServerAccount) -> Path:
    """The place chosen at the first start: a later change of modes must not lose the data."""
    if (recorded := _recorded(record, preferred)) is not None:
        return recorded
    if not preferred.exists():
        _open_for_group(preferred.parent, account)
        if not can_reach(preferred.parent, account):
            preferred = _ROOT_FALLBACK / instance / preferred.name
            preferred.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    write_whole(record, f"{preferred}\n".encode())
    return preferred


def _recorded(record: Path, preferred: Path) -> Path | None:
    """What is on record, if anything is. Only a place elsewhere counts as it is written: a state
    directory that was moved or copied took what is in it along, and that path is another's now.
    """
    if not record.exists():
        return None
    place = Path(record.read_text(encoding="utf-8").strip())
    return place if place.is_relative_to(_ROOT_FALLBACK) else preferred


def _open_for_group(state_dir: Path, account: ServerAccount) -> None:
    status = state_dir.stat()
    if status.st_uid != 0 or status.st_mode & 0o011:
        return
    os.chown(state_dir, -1, account.gid)
    state_dir.chmod(0o710)


def _is_ours(directory: Path, account: ServerAccount) -> bool:
    """Others may write where it lies: it is taken again only if its owner is right."""
    try:
        status = directory.lstat()
    except OSError:
        return False
    return directory.is_dir() and not directory.is_symlink() and status.st_uid == account.uid
