"""The page's files: what is served, under which headers, and what may not be in them."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.ui.pages import CONTENT_SECURITY_POLICY, FILES, PUBLIC_PATHS
from tests.control.ui.scripted_engine import ScriptedEngine, serving
from tests.control.ui.sockets import Viewer

ROOT = Path(__file__).parents[3]
TEXT = {name: body.decode() for name, body in FILES.items()}
SCRIPTS = sorted(name for name in TEXT if name.endswith(".js"))
JS_LINES_MAX = 500


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    engine = ScriptedEngine(tmp_path_factory.mktemp("control"), [])
    with serving(engine):
        yield engine.port


@pytest.mark.parametrize("path", sorted(PUBLIC_PATHS - {"/ui/"}))
def test_every_file_comes_with_a_strict_policy(port: int, path: str) -> None:
    with Viewer(port, path) as viewer:
        status, headers = viewer.head()
        body = viewer.body(int(headers["content-length"]))
    assert status == 200
    assert body == FILES[path.removeprefix("/ui").strip("/") or "index.html"]
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_a_slash_too_many_leads_to_the_page_wherever_that_is(port: int) -> None:
    with Viewer(port, "/ui/") as viewer:
        status, headers = viewer.head()
    assert (status, headers["location"]) == (307, "../ui")


def test_the_policy_allows_our_own_files_and_nothing_else() -> None:
    directives = dict(part.strip().split(" ", 1) for part in CONTENT_SECURITY_POLICY.split(";"))
    assert directives.pop("require-trusted-types-for") == "'script'"
    assert directives.pop("trusted-types") == "'none'"
    assert directives == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
        "connect-src": "'self'", "img-src": "'self' data:", "frame-ancestors": "'none'",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_never_turn_text_into_markup_or_code(name: str) -> None:
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    assert not re.search(sinks, TEXT[name])
    assert not re.search(r"https?://", TEXT[name])
    assert len(TEXT[name].splitlines()) <= JS_LINES_MAX


def test_the_page_has_no_inline_script_style_or_foreign_source() -> None:
    page = TEXT["index.html"]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    found = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert {f"/{path}" for path in found} <= PUBLIC_PATHS  # relative to the page's folder
    assert "//" not in page.replace("<!doctype html>", "")


@pytest.mark.parametrize("name", SCRIPTS)
def test_imports_lead_to_files_that_are_there(name: str) -> None:
    for path in re.findall(r'from "([^"]+)"', TEXT[name]):
        assert path.startswith("./")
        assert path.removeprefix("./") in FILES


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_address_begins_at_the_root_of_the_host(name: str) -> None:
    """Behind a proxy with a path of its own it would lead out of ours."""
    assert not re.search(r"""["'`]/(?:ui|streams|instruments|health|limiters)\b""", TEXT[name])


def test_elements_that_scripts_look_up_are_in_the_page() -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', TEXT["index.html"]))
    for name in SCRIPTS:
        assert set(re.findall(r'byId\("([^"]+)"\)', TEXT[name])) <= ids


def test_the_files_travel_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["package-data"]["control.ui"] == ["static/*"]
    assert {path.name for path in (ROOT / "control/ui/static").iterdir()} == set(FILES)
