"""What becomes of each block of shell, SQL and Python that a page shows: which test runs it, or why
none can.

A block is found by how its first command begins, or else by its language, where the test runs all
blocks of it that have no line of their own. One that is new fails `tests/docs/test_blocks.py` until
it has a line.
"""

from typing import Final

from tests.pages import Block

RUN: Final = "tests/flow/test_pages.py"
"""On the engine that the first hour has begun."""
UP: Final = f"{RUN} begins the engine"
ENDED: Final = f"{RUN} after Ctrl-C"

_BACKUP = "tests/flow/test_restored_backup.py"
_CAN_TELL = "tests/flow/test_what_the_database_can_tell.py"
_DEMO = "tests/flow/test_command_line.py"
_FRAMES = "tests/engine/database/test_data_frames.py"
_LAKE = "tests/control/cli/lake/test_commands.py"
_MARKETS = "tests/engine/writer/sinks/postgres/test_markets.py"
_MIGRATE = "tests/control/cli/stores/test_migrate.py"

INVENTORY: Final[dict[str, dict[str, str]]] = {
    "README.md": {
        "./fts demo": _DEMO,
    },
    "docs/backup.md": {
        "pg_dump": RUN,
        "fts db start": "tests/flow/test_console.py",
        "createdb": RUN,
        "ALTER DATABASE": _BACKUP,
        "export FTS_DATABASE_URL": "needs two servers",
        "SELECT count(*)": RUN,
    },
    "docs/bars.md": {"sql": RUN},
    "docs/benchmarks.md": {"./fts bench": "needs minutes of a quiet machine"},
    "docs/control-api.md": {"BASE=": RUN, "curl": "tests/docs/test_control_api.py"},
    "docs/dashboard.md": {"curl": "needs jq"},
    "docs/database.md": {
        "createdb --encoding=UTF8": "needs a server of yours",
        'psql "$ADMIN"': "tests/flow/test_roles.py",
        "fts migrate --to timescaledb": _MIGRATE,
    },
    "docs/deployment.md": {
        "sudo deploy/systemd/install.sh": "tests/deploy/test_systemd_scripts.py",
        "sudo deploy/container/secrets.sh": "needs Docker",
        "docker build": "needs Docker",
        "deploy/kubernetes/secrets.sh": "needs Kubernetes",
    },
    "docs/first-hour.md": {
        "./fts version": "tests/test_launcher.py",
        "fts up": UP,
        "fts health": RUN,
        'fts psql -c "SELECT time': RUN,
        "fts instruments": RUN,
        'fts psql -c "SELECT venue, symbol, kind, started': ENDED,
        "fts config check": RUN,
        'fts psql -c "SELECT venue, symbol, kind, reason': RUN,
    },
    "docs/lake.md": {"fts export": _LAKE, "python": _LAKE},
    "docs/markets.md": {"sql": _MARKETS},
    "docs/prometheus.md": {
        "cd deploy/prometheus": "tests/test_prometheus.py",
        "export FTS_PROMETHEUS_URL": "needs Grafana",
    },
    "docs/redis.md": {"fts redis": RUN, "import json": RUN},
    "docs/scaling.md": {"./fts bench": "needs minutes of a quiet machine"},
    "docs/sizing.md": {"sql": RUN},
    "docs/sql.md": {"fts psql": "tests/flow/test_console.py", "sql": RUN, "python": _FRAMES},
    "docs/trouble.md": {"fts doctor": "tests/control/cli/commands/test_doctor.py"},
    "docs/upgrade.md": {"pip install": "tests/fault/test_upgrades.py"},
    "docs/what-the-database-can-tell.md": {"sql": _CAN_TELL},
}


def key_of(block: Block) -> str:
    """Under which key a block is; "" where it is under none."""
    fates = INVENTORY.get(block.page, {})
    named = [key for key in fates if block.name.startswith(key)]
    if len(named) > 1:
        named = [max(named, key=len)]
    return named[0] if named else block.language if block.language in fates else ""


def fate(block: Block) -> str:
    """What becomes of a block."""
    return INVENTORY[block.page][key_of(block)]
