"""Free memory, of the machine and of whatever group of processes we are in."""

from pathlib import Path

import pytest

from control.state.memory import memory_bytes, memory_free_fraction

MACHINE = "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  600 kB\nHugePages_Total:  0\n"


def written(root: Path, files: dict[str, str]) -> Path:
    """A tree of the kernel's files."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def group_2(path: str, limit: str, usage: int, cache: int = 0) -> dict[str, str]:
    """The files of a group in version 2."""
    return {
        f"{path}memory.max": f"{limit}\n",
        f"{path}memory.current": f"{usage}\n",
        f"{path}memory.stat": f"anon {usage - cache}\nfile {cache}\ninactive_file {cache}\n",
    }


def group_1(path: str, limit: int, usage: int, cache: int = 0) -> dict[str, str]:
    """The files of a group in version 1."""
    return {
        f"memory/{path}memory.limit_in_bytes": f"{limit}\n",
        f"memory/{path}memory.usage_in_bytes": f"{usage}\n",
        f"memory/{path}memory.stat": f"cache {cache}\ntotal_inactive_file {cache}\n",
    }


UNLIMITED_1 = 9223372036854771712


@pytest.mark.parametrize(
    ("ours", "groups", "free"),
    [
        ("0::/\n", {}, 0.6),
        ("0::/a/b\n", group_2("a/b/", "max", 900), 0.6),
        ("0::/a/b\n", group_2("a/b/", "1000", 900), 0.1),
        ("0::/a/b\n", group_2("a/b/", "1000", 900, cache=300), 0.4),
        ("0::/a/b\n", group_2("a/b/", "max", 900) | group_2("a/", "1000", 800), 0.2),
        ("0::/a\n", group_2("", "1000", 1100), 0.0),
        ("4:memory:/a\n1:cpu:/\n0::/\n", group_1("a/", 1000, 700), 0.3),
        ("4:memory:/a\n", group_1("a/", UNLIMITED_1, 700) | group_1("", 1000, 900, 100), 0.2),
        ("4:cpu,memory:/docker/0123\n", group_1("", 1000, 900), 0.1),
        ("", {}, 0.6),
    ],
)
def test_the_tightest_bound_counts(
    tmp_path: Path, ours: str, groups: dict[str, str], free: float
) -> None:
    proc = written(tmp_path / "proc", {"meminfo": MACHINE, "self/cgroup": ours})
    cgroups = written(tmp_path / "cgroups", groups)
    assert memory_free_fraction(proc, cgroups) == pytest.approx(free)


def test_where_the_kernel_does_not_tell_nothing_is_short(tmp_path: Path) -> None:
    assert memory_free_fraction(tmp_path, tmp_path) == 1.0
    assert 0 < memory_free_fraction() < 1


@pytest.mark.parametrize(
    ("groups", "bytes_in_all"),
    [
        ({}, 1000 << 10),
        (group_2("a/b/", "max", 900), 1000 << 10),
        (group_2("a/b/", "5000", 900) | group_2("a/", "4000", 800), 4000),
    ],
)
def test_what_we_may_use_is_bounded_by_every_group(
    tmp_path: Path, groups: dict[str, str], bytes_in_all: int
) -> None:
    proc = written(tmp_path / "proc", {"meminfo": MACHINE, "self/cgroup": "0::/a/b\n"})
    assert memory_bytes(proc, written(tmp_path / "groups", groups)) == bytes_in_all
    assert memory_bytes(tmp_path / "nothing", tmp_path) == 0
