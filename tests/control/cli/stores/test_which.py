"""Which database a command line means, and what is said where there is none of that name."""

import pytest

from control.cli.stores.which import Stores
from engine.base.errors import ConfigError
from engine.process.instance import EngineNote
from engine.start.config import Config, LoadedConfig, default_state_dir


@pytest.mark.parametrize(
    ("databases", "known"),
    [
        ({"databases.b": "host=b", "databases.a": "host=a"}, "databases.a, databases.b"),
        ({}, "the default database alone"),
    ],
)
def test_who_misspells_a_database_of_the_engine_that_runs_learns_which_it_has(
    databases: dict[str, str], known: str
) -> None:
    loaded = LoadedConfig(Config(), "fts.toml", default_state_dir(), {})
    stores = Stores(loaded, EngineNote(7, "", database="host=c", databases=databases), None)
    with pytest.raises(ConfigError, match=rf"pid 7\) has no databases\.c, but {known}$"):
        stores.url("databases.c")
    for sink, url in databases.items():
        assert stores.url(sink).reveal() == url
