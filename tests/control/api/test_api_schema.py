"""The OpenAPI document is true: fuzzers read it and try to prove otherwise."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies._internal import regex

from control.api.routes import Operation
from control.app import OPERATIONS
from tests.control.api.api_rig import BINANCE, MAX_ROWS_PER_COPY, Rig, run_with_rig
from tests.control.cli.remote.test_client_commands import engine

pytestmark = pytest.mark.whole

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "exchange": st.sampled_from(["BinanceLinear", "hyperliquid_perp"]) | JSON,
        "symbol": st.sampled_from(BINANCE) | st.text() | JSON,
        "kind": st.sampled_from(["Trades", "L2Book", "Funding"]) | JSON,
        "transport": st.sampled_from(["Ws", "HttpPoll"]) | JSON,
        "knobs": st.fixed_dictionaries({}, optional={"flush_rows": JSON}) | JSON,
        "filter": st.fixed_dictionaries({}, optional={"symbol": JSON, "limit": JSON}) | JSON,
    },
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    NEARLY.map(lambda value: json.dumps(value).encode()),
    st.lists(NEARLY, max_size=3).map(lambda value: json.dumps(value).encode()),
)


@pytest.mark.fault("A02")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=BODIES, method=st.sampled_from(["POST", "DELETE"]))
def test_no_body_is_a_server_error_or_slow(raw: bytes, method: str) -> None:
    async def scenario(rig: Rig) -> float:
        started_s = time.thread_time()
        headers = {"content-type": "application/json"}
        answer = await rig.ask(method, "/streams", raw=raw, headers=headers)
        spent_s = time.thread_time() - started_s
        assert answer.status < 500, answer.body
        if answer.status >= 400:
            assert set(answer.body) >= {"error", "kind"}
            assert "\n" not in answer.body["error"]
        return spent_s

    # A second try where the first met a garbage collection of the test's own.
    assert run_with_rig(scenario) <= 0.05 or run_with_rig(scenario) <= 0.05


@pytest.fixture(scope="module")
def api_url() -> Iterator[str]:
    with engine() as (rig, url):

        async def fetch(_: Any) -> list[bytes]:
            return [b'{"universe":[]}']

        rig.instruments._fetch = fetch
        yield url


@pytest.fixture(scope="module")
def patterns_read_once() -> Iterator[None]:
    """The fuzzer asks anew for what fits a pattern, for each request that it makes. What fits that
    of a symbol begins with fifty thousand letters, which takes a fifth of a second to find out.
    """
    make, made = regex.regex_strategy, dict[Any, Any]()

    def make_once(*arguments: Any, **options: Any) -> Any:
        wanted = (*arguments, *sorted(options.items()))
        if wanted not in made:
            made[wanted] = make(*arguments, **options)
        return made[wanted]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regex, "regex_strategy", make_once)
        yield


@pytest.fixture(scope="module")
def api_schema(api_url: str, patterns_read_once: None) -> Any:
    # What an exchange offers for a kind, and which of two knobs may be larger, no schema says: 422.
    expected = ["2xx", "404", "409", "422", "429"]
    config = schemathesis.Config.from_dict(
        {"checks": {"positive_data_acceptance": {"expected-statuses": expected}}}
    )
    return schemathesis.openapi.from_url(f"{api_url}/openapi.json", config=config)


@pytest.mark.fault("A01")
@pytest.mark.filterwarnings("ignore")  # of the fuzzer's own making
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.name)
def test_every_answer_is_as_the_document_says(operation: Operation, api_schema: Any) -> None:
    """Good and bad requests of the fuzzer's making: no 5xx, only documented statuses, bodies as
    described, bad requests refused.
    """
    described = api_schema[operation.path.replace(":path", "")][operation.method]
    cases = described.as_strategy() | described.as_strategy(
        generation_mode=schemathesis.GenerationMode.NEGATIVE
    )

    @settings(
        max_examples=40, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases)
    def check(case: Any) -> None:
        case.call_and_validate()

    check()


@pytest.mark.fault("N47")
def test_every_path_says_which_methods_it_answers_to_all_others() -> None:
    described = {
        operation.path: {each.method for each in OPERATIONS if each.path == operation.path}
        for operation in OPERATIONS
    }
    values = {"exchange": "BinanceLinear", "symbol": "PURR/USDC", "kind": "L2Book",
              "transport": "Ws"}  # fmt: skip

    async def scenario(rig: Rig) -> None:
        for path, methods in described.items():
            asked = path.replace(":path", "").format_map(values)
            answered = methods | ({"HEAD"} if "GET" in methods else set())
            for method in {
                "GET",
                "HEAD",
                "POST",
                "PUT",
                "PATCH",
                "DELETE",
                "TRACE",
                "X",
            } - answered:
                answer = await rig.ask(method, asked)
                assert answer.status == 405, (method, asked)
                assert set(answer.headers["allow"].split(", ")) == answered

    run_with_rig(scenario)


@pytest.mark.fault("N47")
@settings(max_examples=100, deadline=None)
@given(
    flush_rows=st.none() | st.integers(1, 10_000_000),
    most=st.none() | st.integers(1000, 10_000_000),
    shape=st.sampled_from(["one", "list", "filter"]),
)
def test_knobs_that_the_schema_allows_are_taken_or_contradict_each_other(
    flush_rows: int | None, most: int | None, shape: str
) -> None:
    knobs = {"flush_rows": flush_rows, "max_rows_per_copy": most}
    stream: dict[str, Any] = {"exchange": "BinanceLinear", "kind": "Trades", "knobs": knobs}
    which: dict[str, Any] = {"filter": {}} if shape == "filter" else {"symbol": "BTCUSDT"}
    body = stream | which
    contradict = (flush_rows or 0) > (most or MAX_ROWS_PER_COPY)

    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST", "/streams", [body] if shape == "list" else body)
        assert (answer.status == 422) == contradict, answer.body
        assert answer.status in (200, 201, 422)
        if contradict:
            assert answer.body["kind"] == "contradiction"
            assert answer.body["field"].endswith("knobs.flush_rows")
            assert rig.supervisor.streams == {}, "nothing of it is done"

    run_with_rig(scenario)


def test_the_document_has_every_operation_and_every_reference_resolves() -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("GET", "/openapi.json")
        document = answer.body
        assert document["openapi"] == "3.1.0"
        count = sum(len(methods) for methods in document["paths"].values())
        assert count == len(OPERATIONS)
        for members in document["paths"].values():
            for operation in members.values():
                assert {"400", "401", "403", "429"} <= operation["responses"].keys()
                assert "Retry-After" in operation["responses"]["429"]["headers"]
        names = set(document["components"]["schemas"])
        for reference in json.dumps(document).split('"$ref": "#/components/schemas/')[1:]:
            assert reference.partition('"')[0] in names
        for kind in ("StreamItem", "FilteredStreams", "KnobsPatch"):
            assert document["components"]["schemas"][kind]["additionalProperties"] is False

    run_with_rig(scenario)


def test_the_index_leads_to_everything() -> None:
    async def scenario(rig: Rig) -> None:
        routes = (await rig.ask("GET", "/")).body["routes"]
        assert {"/docs", "/openapi.json", "/streams", "/ui"} <= set(routes)

    run_with_rig(scenario)


def test_the_page_for_people_needs_nothing_from_elsewhere() -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("GET", "/docs")
        text = answer.text.decode()
        assert answer.headers["content-type"].startswith("text/html")
        assert "<script" not in text
        assert "http://" not in text
        assert "https://" not in text
        for operation in OPERATIONS:
            assert operation.path.replace(":path", "") in text
        assert "sha256-" in answer.headers["content-security-policy"]

    run_with_rig(scenario)
