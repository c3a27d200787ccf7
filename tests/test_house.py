"""Rules of the house: how large rooms may be, that a word means one thing, what is still untested.

Import rules are in pyproject.toml, and `lint-imports` checks them. Lists of exceptions here are
debts: a line may leave a list, none may join it.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("engine", "shards", "control")
MODULES_MAX = 12
FAN_OUT_MAX = 16
NOUNS_MAX = 40
LINES_MAX = 69_860
"""Source lines of the three rooms. Lower it with every change that takes lines away; new venues,
kinds, sinks and services raise it by what they need, which their commit says.
"""
WIDE = {
    "control/cli/commands/demo.py": 20,
    "engine/supervisor/supervisor.py": 18,
    "engine/writer/sinks/postgres/sink.py": 18,
    "shards/session/venue_session.py": 22,
}
"""Modules that import more of ours than FAN_OUT_MAX, and how many."""
WORDS = {"engine.messages": "messages"} | dict.fromkeys(
    ("engine.data.flags", "engine.data.instrument", "engine.data.kind", "engine.data.kinds",
     "engine.data.names"), "data",
)  # fmt: skip
VENUE_WORDS = ("binance", "hyperliquid", "bybit", "okx", "deribit", "kraken", "coinbase")
NO_VENUES = ("engine/", "shards/transport/", "shards/session/", "shards/feeds/")
"""Rooms that name none of them, in code or words."""
SINKS = "engine/writer/sinks/"
DEAD = (
    r"Catalog|CatalogEntry|Registry|RegistryEntry|RegistryMirror|Roster|roster|StreamRegistry|Member"
    r"|births|SeatSettings|HeldSeats|SeatsWanted|SeatsGranted|HeldBack|HeldSpan|Suspects|TimedStream"
    r"|Unusable\w*|UNUSABLE_FRAME|StoreInstruments|InstrumentsSaved|InstrumentsLoaded|VenueListings"
    r"|child_channel|supervisor_channel|SinkHealth|RecordSpec|RecordKind|FeedRule|RECORD_KIND"
    r"|LedgerKind|KINDS_OF_STREAM|PREFERRED_RECORDS|RingRecords|InstrumentsResolved"
    r"|InstrumentsStored|InstrumentSource"
)
"""Names that meant two things, or were a second word for one. GLOSSARY.md has those that stayed."""
NAMERS_MAX = 20
"""So many modules may say the name of the second sink: where what others see has it, or where it is
spoken to. All others go over the list of sinks, and a third one needs no word in them.
"""
UNTESTED = {
    "C": "03",
    "D": "04 05 06",
    "H": "04 06",
    "P": "04 05 09 10 11",
    "S": "02 03 05 06 08 09 10 11 12",
    "V": "06 08 11",
    "X": "06 07 08 09 20",
    "Z": "02 03 04 05 06 07 08 09 10 11 12 13 14 15 16",
}
"""Faults of the catalogue that no test is marked with."""
CATALOGUE = {
    "A": 13, "C": 3, "D": 7, "H": 7, "K": 2, "P": 11, "R": 4, "S": 13, "V": 11, "W": 4, "X": 20,
    "Z": 16,
}  # fmt: skip
"""How many faults it has by letter: X sockets, H REST, S shards and rings, W writer, P PostgreSQL,
R Redis, D disk and machine, K clocks, C configuration, V life of an engine, A API, Z security.
N numbers what users hit, M what was measured once; those came with their tests.
"""


def sources() -> Iterator[tuple[str, str]]:
    """Path from the root and text of every module of ours."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def test_no_package_has_more_modules_than_one_can_remember() -> None:
    modules: dict[str, list[str]] = defaultdict(list)
    for path, _ in sources():
        folder, _, name = path.rpartition("/")
        if name != "__init__.py":
            modules[folder].append(name)
    crowded = {folder: names for folder, names in modules.items() if len(names) > MODULES_MAX}
    assert crowded == {}


def test_every_room_says_what_lives_there_in_a_few_lines() -> None:
    """The docstring of a package is its README."""
    for path, text in sources():
        if path.endswith("__init__.py"):
            said = ast.get_docstring(ast.parse(text))
            assert said, path
            assert len(said.splitlines()) <= MODULES_MAX, path


def test_no_module_needs_half_the_house() -> None:
    found = {path: len(imported(text)) for path, text in sources()}
    wide = {path: count for path, count in found.items() if count > FAN_OUT_MAX}
    assert {path for path, count in wide.items() if count > WIDE.get(path, 0)} == set()
    assert {path for path in WIDE if found.get(path, 0) <= FAN_OUT_MAX} == set(), (
        "not wide any more"
    )


def imported(text: str) -> set[str]:
    """Modules of ours that this one imports; messages are words, and count as one, and so do the
    names of what is in the data.
    """
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOMS:
            for name in node.names:
                full = f"{node.module}.{name.name}"
                is_module = (ROOT / f"{full.replace('.', '/')}.py").exists()
                module = full if is_module else str(node.module)
                found.add(WORDS.get(module.rpartition(".")[0], WORDS.get(module, module)))
    return found


def test_a_public_class_is_the_only_one_of_its_name() -> None:
    """But what a venue calls its messages is the venue's to say."""
    homes: dict[str, list[str]] = defaultdict(list)
    of_venues = tuple(venue_homes())
    for path, text in sources():
        if path.startswith(of_venues):
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(path)
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def venue_homes() -> list[str]:
    """The file, or the folder, of each venue."""
    made = re.compile(r"(^VENUE\b.* =|return) Venue\(", re.M)
    found = [path for path, text in sources() if made.search(text)]
    return [path.removesuffix("venue.py") for path in found]


def sink_homes() -> list[str]:
    """The file, or the folder, of each sink."""
    found = {path.split("/")[3] for path, _ in sources() if path.startswith(SINKS)}
    names = found - {"__init__.py", "sink.py"}
    return [SINKS + (name if name.endswith(".py") else f"{name}/") for name in sorted(names)]


@pytest.mark.parametrize("homes", [venue_homes, sink_homes])
def test_venues_do_not_know_each_other_and_sinks_neither(homes: Callable[[], list[str]]) -> None:
    known = homes()
    assert len(known) >= 2
    for path, text in sources():
        own = next((home for home in known if path.startswith(home)), None)
        if own is not None:
            named = {f"{module.replace('.', '/')}/" for module in imported(text)}
            for home in set(known) - {own}:
                name = f"{home.removesuffix('.py').rstrip('/')}/"
                assert not any(each.startswith(name) for each in named), (path, home)


def test_control_names_no_venue() -> None:
    """What differs between venues is data of theirs; `proof` still has a list of its own."""
    named = re.compile("binance|hyperliquid", re.IGNORECASE)
    files = {*(ROOT / "control").rglob("*.*")} - {*(ROOT / "control/proof").rglob("*.*")}
    texts = {path: path.read_text(encoding="utf-8") for path in files if path.suffix != ".pyc"}
    assert [path for path, text in texts.items() if named.search(text)] == []


def test_dead_names_stay_dead() -> None:
    dead = re.compile(rf"\b({DEAD})\b")
    found = {path: dead.findall(text) for path, text in sources()}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_glossary_has_few_words_and_each_once() -> None:
    words = re.findall(r"^- \*\*(.+?)\*\*", (ROOT / "GLOSSARY.md").read_text("utf-8"), re.MULTILINE)
    assert 30 < len(words) <= NOUNS_MAX
    assert len(words) == len(set(words))


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/adding-a-venue.md"])
def test_pages_for_newcomers_name_what_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:engine|shards|control|tests|sql|docs)/[\w./-]*\w)`", text))
    assert named
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_only_venues_know_venues() -> None:
    """What differs between venues is data in the kit: a new one is named by no other room."""
    named = re.compile("|".join(VENUE_WORDS), re.IGNORECASE)
    found = {path: named.findall(text) for path, text in sources() if path.startswith(NO_VENUES)}
    assert {path: names for path, names in found.items() if names} == {}


def test_few_modules_name_a_sink_of_live_rows() -> None:
    named = [path for path, text in sources() if "redis" in text.lower()]
    assert len(named) <= NAMERS_MAX, named


def test_only_a_life_says_what_has_become_of_a_stream() -> None:
    """Others call an event of it: else nobody knows which state may follow which."""
    found = defaultdict(set)
    for path, text in sources():
        if path.startswith("shards/") and not path.startswith("shards/simulator/"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    found[node.attr].add(path)
    for name in ("state", "reason", "blame", "has_data"):
        assert found[name] == {"shards/feeds/life.py"}, name


def test_the_house_does_not_grow_unnoticed() -> None:
    lines = sum(text.count("\n") for _, text in sources())
    assert lines <= LINES_MAX
    assert lines > LINES_MAX - 400, "lower LINES_MAX to what is left, so that it stays gone"


def test_faults_without_a_test_become_fewer() -> None:
    marked = set(re.findall(r"""fault\("([A-Z]\d\d)"\)""", text_of_all_tests()))
    known = {f"{letter}{n:02}" for letter, count in CATALOGUE.items() for n in range(1, count + 1)}
    allowed = {f"{letter}{n}" for letter, ns in UNTESTED.items() for n in ns.split()}
    assert {each for each in marked if each[0] not in "NM"} <= known, "no such fault"
    assert known - marked <= allowed, "these have lost their test"
    assert allowed <= known - marked, "tested now: take them off the list"


def text_of_all_tests() -> str:
    """All tests in one string."""
    found = (ROOT / "tests").rglob("*.py")
    return "\n".join(path.read_text(encoding="utf-8") for path in found)
