"""The mistakes that `fts doctor` finds: each has a name, a reason, what mends it, and a section."""

import argparse
import fcntl
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from control.cli.commands import (
    doctor,
    doctor_database,
    doctor_kernel,
    doctor_links,
    doctor_machine,
    doctor_state,
)
from control.cli.findings import Complaint, Finding
from control.cli.options import load
from engine.data.layout import Layout
from engine.database.condition.facts import DatabaseFacts
from engine.messages.upkeep import TableSize
from engine.process import instance
from engine.start.config import LoadedConfig
from shards.venues import VENUES
from tests.stores import execute

ROOT = Path(__file__).parents[4]
MODULES: tuple[ModuleType, ...] = (
    doctor, doctor_database, doctor_kernel, doctor_links, doctor_machine, doctor_state,
)  # fmt: skip
WELL = {
    "proc/meminfo": "MemTotal: 8000 kB\nSwapTotal: 1000 kB\nSwapFree: 900 kB\n",
    "proc/sys/vm/overcommit_memory": "0\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/transparent_hugepage/defrag": "always defer [madvise] never\n",
    "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
    "proc/sys/net/ipv4/tcp_moderate_rcvbuf": "1\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
}


def loaded_from(folder: Path, text: str = "") -> LoadedConfig:
    config = folder / "fts.toml"
    config.write_text(text, encoding="utf-8")
    return load(argparse.Namespace(config=config, state_dir=folder / "state"))


def machine_with(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return folder


def wrong(findings: Iterator[Finding]) -> dict[str, Finding]:
    """What is not in order, by its name; it says what mends it, and why it matters."""
    found = {each.id: each for each in findings if each.level != "ok"}
    assert all(each.advice and each.why for each in found.values())
    return found


def complaints() -> list[Complaint]:
    return [
        each for module in MODULES for each in vars(module).values() if isinstance(each, Complaint)
    ]


def test_every_complaint_has_a_section_of_the_page_and_every_section_a_complaint() -> None:
    page = (ROOT / "docs/trouble.md").read_text(encoding="utf-8")
    named = sorted(each.id for each in complaints())
    assert sorted(set(named)) == named, "one name, one complaint"
    assert sorted(re.findall(r"^### (\w+)$", page, re.MULTILINE)) == named
    text = "".join(Path(str(module.__file__)).read_text("utf-8") for module in MODULES)
    idle = [
        name for module in MODULES for name, each in vars(module).items()
        if isinstance(each, Complaint) and len(re.findall(rf"\b{name}\b", text)) < 2
    ]  # fmt: skip
    assert idle == [], "declared, and never made"


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("proc/meminfo", "SwapTotal: 1000 kB\nSwapFree: 300 kB\n", "swap_used"),
        ("proc/sys/vm/overcommit_memory", "2\n", "overcommit_strict"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096 16384 262144\n", "tcp_buffers"),
        ("proc/sys/net/ipv4/tcp_moderate_rcvbuf", "0\n", "tcp_buffers"),
        ("proc/sys/net/ipv4/ip_local_port_range", "60000 60999\n", "ports_few"),
    ],
)
def test_the_kernels_settings(
    tmp_path: Path, layout: Layout, file: str, text: str, name: str
) -> None:
    well = machine_with(tmp_path / "well", WELL)
    assert wrong(doctor_kernel.kernel(layout, well, lambda: (0, 500))) == {}
    ill = machine_with(tmp_path / "ill", {**WELL, file: text})
    assert list(wrong(doctor_kernel.kernel(layout, ill, lambda: (0, 500)))) == [name]


def test_huge_pages_made_at_once(tmp_path: Path, layout: Layout) -> None:
    always = {name: "[always] madvise never" for name in WELL if "hugepage" in name}
    root = machine_with(tmp_path, {**WELL, **always})
    assert list(wrong(doctor_kernel.kernel(layout, root, lambda: None))) == ["huge_pages"]


def test_a_clock_that_nobody_keeps_right(tmp_path: Path, layout: Layout) -> None:
    root = machine_with(tmp_path, WELL)
    found = wrong(doctor_kernel.kernel(layout, root, lambda: (5, 16_000_000)))
    assert list(found) == ["clock_unsynchronised"]
    told = doctor_kernel.clock_state()
    assert told is None or (0 <= told[0] <= 5 and told[1] >= 0)


@pytest.mark.parametrize(
    ("set_s", "said"), [(0, ""), (3600, "set forward by about"), (-3600, "set back by about")]
)
def test_a_clock_that_was_set_while_the_engine_runs(
    tmp_path: Path, layout: Layout, set_s: int, said: str
) -> None:
    """The engine's process began 1,000 s after the boot, and wrote its note 5 s later."""
    ticks = 1000 * os.sysconf("SC_CLK_TCK")
    root = machine_with(
        tmp_path / "root",
        {**WELL, "proc/stat": f"cpu 1 2\nbtime {1_700_000_000 + set_s}\n",
         "proc/77/stat": f"77 (fts (a) b) S {' '.join(['0'] * 18)} {ticks} 0 0\n"},
    )  # fmt: skip
    with instance.hold(layout):
        note = instance.EngineNote(77, "http://x", started_ns=1_700_001_005 * 10**9)
        instance.write_note(layout, note)
        found = wrong(doctor_kernel.kernel(layout, root, lambda: None))
    assert list(found) == (["clock_jumped"] if said else [])
    assert all(said in each.text for each in found.values())


def test_a_state_directory_that_is_a_copy(layout: Layout) -> None:
    lock = os.open(f"{layout.shm_dir}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert "state_copied" in wrong(doctor_state.state(layout))
    finally:
        os.close(lock)
    assert "state_copied" not in wrong(doctor_state.state(layout))


def test_rings_of_this_engine_and_of_others(tmp_path: Path, layout: Layout) -> None:
    dead, alive = tmp_path / "fts-0123456789ab", tmp_path / "fts-ba9876543210"
    for folder in (layout.shm_dir, dead, alive):
        folder.mkdir(exist_ok=True)
        (folder / "shard-0.trade.ring").write_bytes(b"x" * 5000)
    lock = os.open(f"{alive}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    found = wrong(doctor_state.state(layout))
    os.close(lock)
    assert "rings_left" in found
    left = found["shm_leftovers"].text
    assert (str(dead) in left, str(alive) in left, layout.shm_dir.name in left) == (
        True, False, False,
    )  # fmt: skip


def test_files_of_another_user(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.log_file.write_text("")
    monkeypatch.setattr(os, "access", lambda path, _mode: path != layout.log_file)
    found = wrong(doctor_state.state(layout))["state_not_writable"]
    assert str(layout.log_file) in found.text
    assert (found.level, "chown" in found.advice) == ("problem", True)


@pytest.mark.parametrize(("kind", "is_told"), [("tmpfs", True), ("overlay", True), ("ext4", False)])
def test_a_state_directory_that_does_not_stay(
    tmp_path: Path, layout: Layout, kind: str, is_told: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - xfs /dev/sda1 rw\n"
        f"30 22 0:5 / {layout.state_dir} rw shared:1 - {kind} none rw\n"
    )
    assert ("state_fleeting" in wrong(doctor_state.state(layout, mounts))) == is_told


@pytest.mark.parametrize(
    ("cpus", "quota", "name"),
    [
        ([2], None, None),
        ([2], 2.0, None),
        ([2], 1.5, "cpu_quota"),
        ([0, 1, 2], None, "cpus_all_taken"),
        ([7], None, "cpus_not_allowed"),
    ],
)
def test_cpus(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch,
    cpus: list[int], quota: float | None, name: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr("engine.start.preflight.allowed_cpus", lambda: [0, 1, 2])
    files = {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}
    if quota is not None:
        files["sys/fs/cgroup/a/cpu.max"] = f"{quota * 100_000:.0f} 100000\n"
    root = machine_with(tmp_path / "root", files)
    loaded = loaded_from(tmp_path, f"shards.cpus = {cpus}\n")
    found = wrong(doctor_machine.machine(loaded, layout, root))
    assert [each for each in found if each.startswith("cpu")] == ([name] if name else [])


def test_a_cpu_quota_of_the_older_cgroups(tmp_path: Path) -> None:
    root = machine_with(
        tmp_path,
        {"proc/self/cgroup": "3:cpu,cpuacct:/x\n0::/\n",
         "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
         "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
         "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
         "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
    )  # fmt: skip
    assert doctor_machine.cpu_quota(root) == 1.5


def test_memory_of_a_container(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = loaded_from(tmp_path)
    for there, is_told in ((64 << 30, False), (256 << 20, True), (0, False)):
        monkeypatch.setattr(doctor_machine, "memory_bytes", lambda there=there: there)
        assert ("memory_small" in wrong(doctor_machine.machine(loaded, layout))) == is_told


@pytest.mark.parametrize("free_mb", [16, 1])
def test_shared_memory_of_a_container(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, free_mb: int
) -> None:
    """Docker gives 64 MB, enough for few streams. In 1 MB there is no room for any ring."""
    monkeypatch.setattr("engine.start.preflight.ring_room", lambda _: (free_mb << 20, 0))
    found = wrong(doctor_machine.machine(loaded_from(tmp_path), layout))["shm_small"]
    assert found.level == ("problem" if free_mb == 1 else "note")
    assert "--shm-size" in found.advice


def test_a_port_of_outgoing_connections(tmp_path: Path, layout: Layout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    loaded = loaded_from(tmp_path, f"control.port = {port}\n")
    ports = tmp_path / "range"
    ports.write_text(f"{port - 1}\t{port + 1}\n")
    assert doctor_links.control_port(loaded, layout, ports).id == "port_ephemeral"
    ports.write_text("1 2")
    assert doctor_links.control_port(loaded, layout, ports).id == ""


@pytest.mark.parametrize(
    ("told", "names"),
    [
        ({}, []),
        ({"maxmemory": 0, "maxmemory_policy": "noeviction", "aof_enabled": 1, "save": ""}, []),
        ({"aof_enabled": 0, "save": "3600 1"}, []),
        ({"aof_enabled": 0, "save": ""}, ["redis_volatile"]),
        ({"maxmemory_policy": "allkeys-lru"}, ["redis_evicts"]),
        ({"maxmemory_policy": "volatile-lru"}, []),
        ({"maxmemory": 1 << 20}, ["redis_small"]),
        ({"maxmemory": 1 << 30}, []),
        ({"role": "slave"}, ["redis_refuses"]),
        ({"rdb_last_bgsave_status": "err"}, ["redis_refuses"]),
    ],
)
def test_a_redis_that_loses_streams(told: dict[str, Any], names: list[str]) -> None:
    assert list(wrong(doctor_links.redis_findings(told, 100 << 20))) == names


def test_a_redis_is_asked_what_it_does(tmp_path: Path, layout: Layout, redis_url: str) -> None:
    (tmp_path / "url").write_text(redis_url)
    loaded = loaded_from(tmp_path, 'redis.url_file = "url"\n')
    found = list(doctor_links.live_server(loaded, layout))
    assert found[0].text.endswith(" answers")
    assert "redis_volatile" in [each.id for each in found], "as the private server is"


def test_a_venue_that_is_not_who_it_says(tmp_path: Path) -> None:
    """Nothing listens; then somebody who speaks no TLS; the certificate is judged by OpenSSL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert doctor_links.venue_finding("acme", f"http://127.0.0.1:{port}").level == "ok"

        def hang_up() -> None:
            for _ in range(2):  # the one above waits as well
                server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        said = doctor_links.venue_finding("acme", f"https://127.0.0.1:{port}")
        thread.join()
        assert said.id == "venue_unreachable"
    assert doctor_links.venue_finding("acme", f"https://127.0.0.1:{port}").id == said.id
    assert doctor_links.venue_finding("acme", "https://127.0.0.1:99999").id == said.id


def test_a_certificate_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def wrap_socket(self, _link: socket.socket, server_hostname: str) -> None:
            error = ssl.SSLCertVerificationError(1, "certificate verify failed")
            error.verify_message = f"self-signed certificate in chain of {server_hostname}"
            raise error

    monkeypatch.setattr("ssl.create_default_context", Context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = doctor_links.venue_finding("acme", f"https://127.0.0.1:{server.getsockname()[1]}")
    assert (said.id, said.level) == ("venue_tls", "note")
    assert "self-signed certificate in chain of 127.0.0.1" in said.text


def test_keys_and_variables_that_do_nothing(tmp_path: Path) -> None:
    loaded = loaded_from(
        tmp_path,
        "limits.group = 'a'\ndatabase.url = 'postgresql://me@db/ticks'\n"
        "database.private_settings = {jit = 'on'}\n",
    )
    env = {
        "FTS_DATABASE_URL": "postgresql://me@other/ticks", "FTS_DATABSE_URL": "x",
        "FTS_STATE_DIR": "/x", "FTS_TEST_ANY": "1", "HOME": "/",
    }  # fmt: skip
    said = [(each.id, each.text, each.advice) for each in doctor.wishes(loaded, env)]
    assert [name for name, _, _ in said] == ["config_idle"] * 3 + ["environment_unknown"]
    text = "\n".join(text for _, text, _ in said)
    for words in ("database.url does nothing: FTS_DATABASE_URL is set", "limits, group",
                  "database.private_settings", "FTS_DATABSE_URL is no variable"):  # fmt: skip
        assert words in text
    assert said[-1][2] == "did you mean FTS_DATABASE_URL?"
    assert list(doctor.wishes(loaded_from(tmp_path), {})) == []


def test_secrets_that_others_can_read(tmp_path: Path) -> None:
    venue = next(name for name, each in VENUES.items() if each.takes_credentials)
    for name, mode in (("token", 0o644), ("url", 0o640), ("owner", 0o600), ("who", 0o644)):
        (tmp_path / name).write_text("postgresql://me@db/ticks" if name != "who" else "me:secret")
        (tmp_path / name).chmod(mode)
    loaded = loaded_from(
        tmp_path,
        "control.token_file = 'token'\ndatabase.url_file = 'url'\n"
        "database.owner.url_file = 'owner'\n[venues.VENUE]\ncredentials_file = 'who'\n".replace(
            "VENUE", venue
        ),
    )
    found = list(doctor.wishes(loaded, {}))
    assert {each.id for each in found} == {"secret_readable"}
    keys = [(each.level, each.text.split(": ")[1]) for each in found]
    assert keys == [
        ("note", "database.url_file"),
        ("problem", "control.token_file"),
        ("note", f"venues.{venue}.credentials_file"),
    ]


def test_settings_of_a_server_and_rows_that_should_have_gone() -> None:
    facts = DatabaseFacts(holds_any_name=True, encoding="UTF8")
    assert wrong(doctor_database.about(facts)) == {}
    facts.switched_off = ["autovacuum", "fsync"]
    facts.tables = [TableSize("trade", kept_for="2w", oldest_ns=10**18)]
    facts.connections_free = 2
    facts.synchronous_standbys, facts.standbys_in_sync = "other", 0
    found = wrong(doctor_database.about(facts))
    assert set(found) == {
        "database_unsafe", "vacuum_off", "retention_late", "sessions_few", "standby_missing",
    }  # fmt: skip
    assert found["database_unsafe"].level == "problem"
    assert "kept for 2w" in found["retention_late"].text


def test_a_database_of_a_newer_version(database_url: str, tmp_path: Path) -> None:
    """Tables that nobody here knows: what to do is said, and nothing is touched."""
    execute(database_url, "INSERT INTO schema_version VALUES ('9999_of_next_year.sql', 'x')")
    found = wrong(doctor_database.database_findings(loaded_from(tmp_path), database_url))
    assert list(found) == ["schema_newer"]
    assert "9999_of_next_year.sql" in found["schema_newer"].text
    assert found["schema_newer"].advice.startswith("install that one again, or set the database")


def test_what_is_wrong_is_printed_with_its_name_its_reason_and_what_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_: iter([
        Finding("python", "ok", "3"), doctor_machine.SHM_SMALL.note("memory", "small", "mend it"),
        doctor_machine.SHM_SMALL.note("again", "small", "mend it"),
    ]))  # fmt: skip
    options = argparse.Namespace(config=None, state_dir=tmp_path / "s", json=False)
    assert doctor.run(options) == 0
    ok, note, why, advice, again = capsys.readouterr().out.splitlines()
    assert (ok, note) == ("ok   python  3", "note memory  small  [shm_small]")
    assert why.strip() == doctor_machine.SHM_SMALL.why
    assert advice.strip() == "-> mend it"
    assert again == "note again   small  [shm_small]"
