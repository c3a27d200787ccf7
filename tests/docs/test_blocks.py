"""Every block that a page shows is run by a test, or says why it is not; what it names exists."""

import argparse
import re
import shlex
import tomllib
from pathlib import Path

import msgspec

from control.cli.main import COMMANDS, parser
from engine.start.config import Config, check_rules
from tests.docs.inventory import INVENTORY, RUN, fate, key_of
from tests.pages import ROOT, Block, blocks, pages

SHOWN = [block for page in pages() for block in blocks(page, "sh", "sql", "python")]
_WORDS = re.compile(r"^(?:\./)?fts (?!psql\b|redis\b|test\b)")


def test_no_block_is_without_a_test_or_a_reason() -> None:
    assert [f"{block.page}: {block.name}" for block in SHOWN if not key_of(block)] == []
    used = {(block.page, key_of(block)) for block in SHOWN}
    listed = {(page, key) for page, fates in INVENTORY.items() for key in fates}
    assert listed - used == set(), "no such block any more"


def test_what_runs_a_block_is_there() -> None:
    for block in SHOWN:
        named = fate(block).split()[0]
        if named != "needs":
            text = (ROOT / named).read_text(encoding="utf-8")
            reads = key_of(block) != block.language or Path(block.page).stem in text
            assert reads or fate(block) == RUN, f"{named} does not read {block.page}"


def test_commands_are_understood() -> None:
    """Also those that no test runs."""
    understood = parser()
    lines = [line for block in SHOWN if block.language == "sh" for line in block.lines]
    for line in filter(_WORDS.match, lines):
        options = argparse.Namespace()
        understood.parse_args(shlex.split(line.partition("|")[0], comments=True)[1:], options)
        assert options.run is not None, line


def test_every_command_is_on_its_page() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`fts {name}" not in page] == []


def test_configurations_are_valid() -> None:
    found = [block for page in pages() for block in blocks(page, "toml")]
    assert len(found) > 5
    for block in found:
        check(block)


def check(block: Block) -> None:
    """Types and rules; the files that it names are not here."""
    try:
        check_rules(msgspec.convert(tomllib.loads(block.text), Config), block.page)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError) as error:
        raise AssertionError(f"{block.page}: {error}\n{block.text}") from error


def test_links_to_sections_find_them() -> None:
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in [*pages(), *ROOT_PAGES]}
    lost = []
    for page, text in texts.items():
        for file, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", text):
            path = (ROOT / page).parent / file if file else ROOT / page
            if anchor not in anchors(path.read_text(encoding="utf-8")):
                lost.append(f"{page}: {file}#{anchor}")
    assert lost == []


ROOT_PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/RUNBOOK.md")


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
