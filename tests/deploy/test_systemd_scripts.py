"""install.sh, upgrade.sh, uninstall.sh: what they make, what they take back, what they leave."""

import math
import subprocess
from pathlib import Path

import pytest

from engine.data.kinds import KINDS
from engine.data.ring import ring_bytes
from tests.deploy.scripts import SYSTEMD, Host

RINGS_MIB = math.ceil(
    sum(ring_bytes(kind, kind.ring_records) for kind in KINDS.values()) / 0.8 / (1 << 20)
)
pytestmark = [pytest.mark.whole, pytest.mark.timeout(120)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_is_installed_is_removed_and_nothing_else(host: Host) -> None:
    mine = host.tree / "etc" / "mine"
    mine.parent.mkdir()
    mine.write_text("not theirs")
    host.run("install")
    installed = host.files()
    assert {
        "etc/fintickstreams/fts.toml",
        "etc/systemd/system/fintickstreams.service",
        "etc/sysusers.d/fintickstreams.conf",
        "usr/local/bin/fts",
        f"opt/fintickstreams/{host.current}/check-shm",
    } <= installed.keys()
    assert (host.tree / "etc/fintickstreams/credentials").stat().st_mode & 0o777 == 0o700
    host.run("install")
    assert host.files() == installed, "the second time there is nothing left to do"
    host.run("uninstall")
    assert host.files() == {"etc/mine": "not theirs"}
    assert {path.name for path in host.tree.iterdir()} == {"etc"}
    host.run("uninstall")


def test_the_unit_has_the_paths_of_the_tree(host: Host) -> None:
    host.run("install")
    unit = (host.tree / "etc/systemd/system/fintickstreams.service").read_text()
    keys = dict(line.split("=", 1) for line in unit.splitlines() if line.startswith("Exec"))
    program, *arguments = keys["ExecStart"].split()
    assert Path(program).exists()
    assert Path(keys["ExecStartPre"]).exists()
    assert arguments == ["up", "--config", f"{host.tree}/etc/fintickstreams/fts.toml"]
    assert Path(arguments[-1]).exists()
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == f"ran: {' '.join(arguments)}\n"


def test_an_upgrade_can_be_taken_back(host: Host) -> None:
    host.run("install")
    first = host.current
    assert f"{first} is what is installed" in host.run("upgrade")
    host.change()
    assert "upgrade.sh puts" in host.run("install", code=1)
    assert host.current == first
    host.run("upgrade")
    second = host.current
    assert second != first
    assert (host.opt / first / "complete").exists()
    host.run("upgrade", "--rollback")
    assert host.current == first
    host.run("upgrade", "--rollback")
    assert host.current == second
    host.run("uninstall")
    assert host.files() == {}


def test_a_release_that_refuses_the_configuration_replaces_nothing(host: Host) -> None:
    host.run("install")
    first = host.files()
    host.change()
    host.doctor.write_text("2")
    assert "does not accept" in host.run("upgrade", code=1)
    after = host.files()
    assert {name: after[name] for name in first} == first
    host.doctor.write_text("1")  # a database that is away
    host.run("upgrade")
    assert host.files()["opt/fintickstreams/current"] != first["opt/fintickstreams/current"]


def test_a_release_that_was_not_finished_is_made_anew(host: Host) -> None:
    host.run("install")
    made = host.opt / host.current
    (made / "complete").unlink()
    (made / "half").write_text("of it")
    host.run("install")
    assert not (made / "half").exists()
    assert (made / "complete").exists()


def test_what_the_operator_wrote_stays(host: Host) -> None:
    host.run("install")
    etc = host.tree / "etc" / "fintickstreams"
    state = host.tree / "var" / "lib" / "fintickstreams" / "journal"
    (etc / "fts.toml").write_text("streams = []\n")
    (etc / "credentials" / "database.url").write_text("postgresql://…")
    state.parent.mkdir(parents=True)
    state.write_text("rows")
    mine = {path: path.read_text() for path in (etc / "fts.toml", state)}
    host.change()
    host.run("upgrade")
    host.run("uninstall")
    assert {path: path.read_text() for path in mine} == mine
    assert len(host.files()) == 3
    host.run("uninstall", "--purge")
    assert host.files() == {}


def test_a_dry_run_touches_nothing_and_names_what_it_would(host: Host) -> None:
    said = host.run("install", "--dry-run")
    assert host.files() == {}
    assert list(host.tree.iterdir()) == []
    for part in ("+ install the packages", "+ ln -sfn ", "+ write ", "fintickstreams.service"):
        assert part in said
    host.run("install")
    before = host.files()
    host.change()
    host.run("upgrade", "--dry-run")
    host.run("uninstall", "--purge", "--dry-run")
    assert host.files() == before


@pytest.mark.parametrize("script", ["install", "upgrade", "uninstall"])
def test_what_is_not_understood_is_refused_and_help_is_given(host: Host, script: str) -> None:
    assert "not understood: --prefixx" in host.run(script, "--prefixx", code=2)
    said = host.run(script, "--help")
    assert f"deploy/systemd/{script}.sh" in said
    assert "--prefix" in said
    assert "set -eu" not in said


def test_a_prefix_that_would_break_a_unit_is_refused(host: Host) -> None:
    host.tree = host.tree / "a b"
    assert "letters, digits" in host.run("install", code=1)


@pytest.mark.parametrize(
    ("cpus", "free_mib", "needed", "said"),
    [
        (9, 4 * RINGS_MIB, "auto", ""),
        (9, 4 * RINGS_MIB - 1, "auto", f"the rings need {4 * RINGS_MIB}: make it larger"),
        (1, RINGS_MIB, "auto", ""),
        (9, 100, "100", ""),
        (9, 99, "100", "has room for 99 MiB and the rings need 100"),
        (9, 0, "0", ""),
    ],
)
def test_shared_memory_must_have_room_for_full_rings(
    tmp_path: Path, cpus: int, free_mib: int, needed: str, said: str
) -> None:
    """RINGS_MIB is what `plan_rings` wants for each shard, and a host of 9 CPUs has four."""
    for name, text in (("nproc", f"echo {cpus}"), ("df", f"echo; echo . . . {free_mib * 1024}")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [str(SYSTEMD / "check-shm")], capture_output=True, text=True, check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "FTS_SHM_MIB": needed,
             "FTS_SHM_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == bool(said)
    assert said in done.stderr


def test_a_ring_that_a_crash_left_counts_as_room(tmp_path: Path) -> None:
    (tmp_path / "df").write_text("#!/bin/sh\necho; echo . . . 0\n")
    (tmp_path / "df").chmod(0o755)
    (tmp_path / "fts-0123").mkdir()
    (tmp_path / "fts-0123" / "shard-0.trade.ring").write_bytes(bytes(2 << 20))
    done = subprocess.run(
        [str(SYSTEMD / "check-shm")], check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "FTS_SHM_MIB": "2",
             "FTS_SHM_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("runs", "upgraded", "restarts"),
    [(True, True, False), (True, False, True), (False, True, True)],
)
def test_a_release_succeeds_what_runs_and_a_restart_is_the_last_resort(
    tmp_path: Path, runs: bool, upgraded: bool, restarts: bool
) -> None:
    """`start` of upgrade.sh, on a machine whose systemd, `runuser` and release note what they are
    asked for.
    """
    done = tmp_path / "done"
    fts = tmp_path / "opt" / "current" / "bin" / "fts"
    fts.parent.mkdir(parents=True)
    for path, ends in (
        (tmp_path / "systemctl", f'case "$*" in *is-active*) exit {int(not runs)} ;; esac'),
        (tmp_path / "runuser", 'shift 3; exec "$@"'),
        (fts, f"exit {int(not upgraded)}"),
    ):
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >>{done}\n{ends}\n')
        path.chmod(0o755)
    start = (SYSTEMD / "upgrade.sh").read_text().partition("start() {")[2].partition("\n}\n")[0]
    script = (
        f". {SYSTEMD}/places.sh; opt={tmp_path}/opt etc=/etc/fts;"
        f'systemd() {{ systemctl "$@"; }}; start() {{{start}\n}}; start'
    )
    subprocess.run(["sh", "-euc", script], check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    asked = [line for line in done.read_text().splitlines() if not line.startswith("runuser")]
    upgrade = ["fts upgrade --match --config /etc/fts/fts.toml"] if runs else []
    restart = ["systemctl restart fintickstreams.service"] if restarts else []
    assert asked == ["systemctl --quiet is-active fintickstreams.service", *upgrade, *restart]
