"""House rules that a linter does not know: sizes, names, numbering, documentation."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec
import pytest

from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from engine.start.config import Config, StreamsConfig
from shards.venues import VENUES

ROOT = Path(__file__).parents[1]
ROOMS = ("engine", "shards", "control")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
VAGUE = re.compile(r"(^|_)(utils?|helpers?|manager|processor|feedhandler|handler2|misc)($|_)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name}: {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_module_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_nothing_has_a_vague_name(path: Path) -> None:
    names = {path.stem}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name).lower())
    assert [name for name in names if VAGUE.search(name)] == []


def test_migrations_are_numbered_without_holes() -> None:
    names = sorted(path.name for path in (ROOT / "sql").glob("*.sql"))
    numbers = [int(name[:4]) for name in names if re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


def test_every_configuration_key_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    keys = set(config_keys(Config))
    assert keys - documented == set(), "keys without a row in docs/configuration.md"
    rows = {key for key in documented if "." in key or key == "state_dir"}
    assert rows - keys == set(), "rows in docs/configuration.md without a key"


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("[!R]*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        if not link.startswith("http")
    ]
    assert len(links) > 5
    assert [link for page, link in links if not (page.parent / link).exists()] == []
    unlisted = {page.name for page in pages[1:]} - {Path(link).name for _, link in links}
    assert unlisted == set(), "pages that nobody finds"


def test_the_page_of_venues_says_what_each_offers() -> None:
    text = (ROOT / "docs" / "venues" / "README.md").read_text(encoding="utf-8")
    shown = {}
    for line in re.findall(r"^\| \[(.*) \|$", text, re.MULTILINE):
        name, _, *cells = line.split(" | ")
        shown[re.split("`", name)[1]] = [cell.strip() for cell in cells]
    offered = {
        name: [
            ", ".join(how for how in Transport if (kind, how) in venue.channels)
            for kind in StreamKind
        ]
        for name, venue in VENUES.items()
    }
    assert shown == offered
    for venue in VENUES.values():
        for choices in venue.options.values():
            assert ", ".join(f"`{choice}`" for choice in choices) in text


def config_keys(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all leaves."""
    for field in msgspec.structs.fields(struct):
        path = f"{prefix}{field.encode_name}"
        if path == "venues":
            yield from config_keys(VenueSettings, "venues.<name>.")
        elif path == "streams":
            yield from config_keys(StreamsConfig, "streams[].")
        elif path == "databases":
            yield "databases.<name>.*"  # the same as [database]
        elif path == "database.routes":
            yield f"{path}[]"
        elif isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from config_keys(field.type, f"{path}.")
        else:
            yield path


def test_packages_are_listed_one_by_one() -> None:
    """A package that is on disk and not in the list would be missing from the wheel."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in SOURCES
        if path.name == "__init__.py"
    }
    for package in on_disk:
        assert f'"{package}",' in text


def test_our_top_level_names_are_ours_alone() -> None:
    owners = metadata.packages_distributions()
    for room in ROOMS:
        assert set(owners.get(room, [])) <= {"fintickstreams"}
        spec = importlib.util.find_spec(room)
        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).is_relative_to(ROOT)


LOCKS = (
    "requirements.lock",
    "requirements-browser.lock",
    "requirements-clients.lock",
    "requirements-peers.lock",
)


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_file_pins_with_hashes_and_names_no_index(lock: str) -> None:
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash)", text, re.MULTILINE)
    for requirement in re.split(r"\n(?=\S)", text.strip()):
        assert re.match(r"[A-Za-z0-9._-]+==\S+", requirement.strip()), requirement[:60]
        assert "--hash=sha256:" in requirement


def test_the_lock_file_has_every_direct_dependency() -> None:
    text = "\n".join((ROOT / lock).read_text("utf-8") for lock in LOCKS)
    locked = set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))
    try:
        wanted = metadata.requires("fintickstreams") or []
    except metadata.PackageNotFoundError:
        pytest.skip("a bare checkout, not installed")
    names = {re.split(r"[\[<>=; ]", requirement)[0] for requirement in wanted}
    assert {name.lower().replace("_", "-") for name in names} <= locked
