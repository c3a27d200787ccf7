"""Tokens, Host, Origin, content types, headers: who gets in, and what the answers carry."""

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.routing import Route

from control.app import OPERATIONS
from control.cli.service import run_service
from control.http import auth
from control.http.auth import Guard
from engine.base.errors import ConfigError
from engine.start.config import load
from tests.control.api.api_rig import DROP, Answer, Rig, run_with_rig

COMMAND = "c0ffee" + "0123456789" * 6
READ = "deadbeef" + "9876543210" * 6
BODY = {"exchange": "BinanceLinear", "symbol": "BTCUSDT", "kind": "Trades"}


def armed(read: bool = True) -> Guard:
    env = {"FTS_CONTROL_TOKEN": COMMAND} | ({"FTS_CONTROL_READ_TOKEN": READ} if read else {})
    return Guard.load(None, None, env)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def every_request(rig: Rig) -> list[tuple[str, str]]:
    """A request for each method of each route that the application has."""
    found = []
    for route in rig.app.routes:
        assert isinstance(route, Route), route
        path = route.path.replace(":path", "")
        for name, value in (
            ("exchange", "BinanceLinear"), ("symbol", "BTCUSDT"), ("kind", "Trades"),
            ("transport", "Ws"),
        ):  # fmt: skip
            path = path.replace(f"{{{name}}}", value)
        found += [(method, path) for method in sorted(route.methods or ())]
    assert len(found) >= len(OPERATIONS)
    return found


@pytest.mark.fault("A05")
@pytest.mark.parametrize(
    "headers",
    [
        {}, bearer("wrong" * 20), {"authorization": f"Basic {COMMAND}"}, bearer(""),
        {"authorization": COMMAND}, {"cookie": f"token={COMMAND}"}, bearer(COMMAND[:-1]),
    ],
)  # fmt: skip
def test_without_the_token_every_route_but_the_public_ones_is_a_401(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_WRONG_MAX", 1_000)

    async def scenario(rig: Rig) -> None:
        for method, path in every_request(rig):
            answer = await rig.ask(method, path, headers=headers)
            if path in rig.app.public_paths and method in ("GET", "HEAD"):
                assert answer.status in (200, 307), (method, path)
            else:
                assert answer.status == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
        assert (await rig.ask("GET", "/no-such-route", headers=headers)).status == 401
        query = await rig.ask("GET", f"/streams?token={COMMAND}", headers=headers)
        assert query.status == 401

    run_with_rig(scenario, guard=armed())


def test_the_port_for_metrics_answers_them_and_probes_and_no_more() -> None:
    async def scenario(rig: Rig) -> None:
        rig.served = rig.app.metrics_only("/prom/metrics")
        for path in ("/healthz", "/livez", "/readyz", "/startupz"):
            assert (await rig.ask("GET", path)).status == 200, path
        assert (await rig.ask("GET", "/prom/metrics")).status == 401
        for token in (READ, COMMAND):
            answer = await rig.ask("GET", "/prom/metrics", headers=bearer(token))
            assert answer.status == 200
            assert b"fts_engine_uptime_seconds" in answer.text
        for path in ("/metrics", "/streams", "/ui", "/docs", "/"):
            answer = await rig.ask("GET", path, headers=bearer(COMMAND))
            assert answer.status == 404, path
        posted = await rig.ask("POST", "/streams", BODY, headers=bearer(COMMAND))
        assert posted.status == 404
        hosts = {"host": "evil.example", **bearer(READ)}
        assert (await rig.ask("GET", "/prom/metrics", headers=hosts)).status == 403

    run_with_rig(scenario, guard=armed())


def test_the_public_list_is_short() -> None:
    async def scenario(rig: Rig) -> None:
        ours = {path for path in rig.app.public_paths if not path.startswith("/ui")}
        assert ours == {"/docs", "/openapi.json", "/livez", "/readyz", "/startupz"}

    run_with_rig(scenario)


def test_the_read_token_reads_and_the_command_token_does_all() -> None:
    async def scenario(rig: Rig) -> None:
        for method, path in every_request(rig):
            if path.startswith("/ui"):
                continue  # the dashboard's feeds do not end
            answer = await rig.ask(method, path, BODY, headers=bearer(READ))
            is_reading = method in ("GET", "HEAD")
            assert (answer.status == 403) != is_reading, (method, path)
        assert rig.supervisor.received == []
        for token, may in ((READ, False), (COMMAND, True)):
            scope = {"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]}
            assert rig.services.guard.may_command(HTTPConnection(scope)) is may
        assert (await rig.ask("POST", "/streams", BODY, headers=bearer(COMMAND))).status == 201
        assert (await rig.ask("GET", "/streams", headers=bearer(COMMAND))).status == 200

    run_with_rig(scenario, guard=armed())


def test_wrong_tokens_are_slowed_down_and_the_right_one_is_not() -> None:
    async def scenario(rig: Rig) -> None:
        statuses = [
            (await rig.ask("GET", "/streams", headers=bearer("wrong" * 20))).status
            for _ in range(30)
        ]
        assert statuses[0] == 401
        assert statuses[-1] == 429
        assert (await rig.ask("GET", "/streams", headers=bearer(COMMAND))).status == 200

    run_with_rig(scenario, guard=armed())


def test_the_right_token_is_not_needed_where_none_is_set() -> None:
    async def scenario(rig: Rig) -> None:
        assert (await rig.ask("GET", "/streams")).status == 200

    run_with_rig(scenario)


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_token_file_that_others_may_read_or_that_is_weak_is_refused(tmp_path: Path) -> None:
    for name, text, mode, reason in (
        ("open", COMMAND, 0o644, "chmod 600"),
        ("group", COMMAND, 0o640, "chmod 600"),
        ("short", "hunter2", 0o600, "256 random bits"),
        ("flat", "a" * 64, 0o600, "256 random bits"),
        ("hex", "0123456789abcdef" * 3, 0o600, "256 random bits"),
        ("lines", f"{COMMAND}\n{COMMAND}", 0o600, "256 random bits"),
    ):
        file = write(tmp_path / name, text, mode)
        with pytest.raises(ConfigError, match=reason):
            Guard.load(file, None, {})
    with pytest.raises(ConfigError, match="cannot read"):
        Guard.load(str(tmp_path / "missing"), None, {})
    with pytest.raises(ConfigError, match="256 random bits"):
        Guard.load(None, None, {"FTS_CONTROL_TOKEN": "short"})
    with pytest.raises(ConfigError, match="without a command token"):
        Guard.load(None, None, {"FTS_CONTROL_READ_TOKEN": READ})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of root's")
@pytest.mark.parametrize(("mode", "is_good"), [(0o440, True), (0o640, True), (0o660, False),
                                               (0o444, False), (0o450, False)])  # fmt: skip
def test_root_may_hand_a_token_to_the_group_of_an_engine_that_is_not_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_good: bool
) -> None:
    """As systemd's credentials and the secrets of Kubernetes come."""
    file = write(tmp_path / "token", COMMAND, mode)
    monkeypatch.setattr("control.http.auth.os.geteuid", lambda: 10_001)
    with contextlib.nullcontext() if is_good else pytest.raises(ConfigError, match="chmod 600"):
        assert Guard.load(file, None, {}).is_armed


def test_a_new_token_in_the_file_counts_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_LOOK_EVERY_S", 0.0)
    file = tmp_path / "token"
    guard = Guard.load(write(file, COMMAND), None, {})
    write(tmp_path / "next", READ)
    (tmp_path / "next").replace(file)
    guard.check(f"Bearer {READ}", is_command=True, client="x")
    write(file, "weak")
    guard.check(f"Bearer {READ}", is_command=True, client="x")  # the one in force stays


@pytest.mark.fault("Z01")
def test_any_other_address_needs_a_token_and_a_proxy(tmp_path: Path) -> None:
    file = tmp_path / "fts.toml"
    file.write_text("[control]\nhost = '0.0.0.0'\n")
    with pytest.raises(ConfigError, match=r"control\.token_file or FTS_CONTROL_TOKEN"):
        load(file, {})
    with pytest.raises(ConfigError, match=r"control\.behind_proxy = true"):
        load(file, {"FTS_CONTROL_TOKEN": COMMAND})
    file.write_text("[control]\nhost = '0.0.0.0'\nbehind_proxy = true\n")
    assert load(file, {"FTS_CONTROL_TOKEN": COMMAND}).config.control.host == "0.0.0.0"
    file.write_text("[control]\nhost = '0.0.0.0'\ntoken_file = 'token'\nbehind_proxy = true\n")
    loaded = load(file, {})
    assert loaded.config.control.token_file == str(tmp_path / "token")


def test_a_token_file_that_protects_nothing_stops_the_start(tmp_path: Path) -> None:
    from control.cli.ground import ServiceOptions  # noqa: PLC0415 - next to its use

    write(tmp_path / "token", COMMAND, 0o644)
    file = tmp_path / "fts.toml"
    file.write_text("[control]\ntoken_file = 'token'\nport = 0\n")
    loaded = load(file, {}).with_state_dir(tmp_path / "state")
    nothing: Any = None
    with pytest.raises(ConfigError, match="chmod 600"):
        run_service(ServiceOptions(loaded), nothing)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200), ("localhost", 200), ("LOCALHOST:9", 200), ("[::1]:8080", 200),
        ("10.1.2.3", 200), ("collector.lan:8080", 200), ("evil.example", 403),
        ("localhost.evil.example", 403), ("127.0.0.1.nip.io", 403), ("", 403), (DROP, 400),
        ("evil\x1b[31m", 403),
    ],
)  # fmt: skip
def test_host_must_be_an_address_or_a_name_of_ours(host: str, status: int) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("GET", "/streams", headers={"host": host})
        assert answer.status == status
        assert b"\x1b" not in answer.text

    run_with_rig(scenario, allowed_hosts=("Collector.lan",))


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8080", 201), ("https://127.0.0.1:8080", 201),
        ("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:9999", 403),
        ("http://[", 403),
    ],
)  # fmt: skip
def test_origin_must_be_ours_when_there_is_one(origin: str, status: int) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("POST", "/streams", BODY, headers={"origin": origin})
        assert answer.status == status
        if status == 403:
            assert (await rig.ask("GET", "/streams", headers={"origin": origin})).status == 403

    run_with_rig(scenario)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json; charset=utf-8"}, 201),
        ({"content-type": "Application/JSON"}, 201),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": DROP}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"transfer-encoding": "chunked"}, 400),
    ],
)
def test_commands_are_plain_json(headers: dict[str, str], status: int) -> None:
    async def scenario(rig: Rig) -> None:
        assert (await rig.ask("POST", "/streams", BODY, headers=headers)).status == status

    run_with_rig(scenario)


def test_every_answer_has_the_security_headers() -> None:
    def check(answer: Answer) -> None:
        for name, value in (
            ("x-content-type-options", "nosniff"), ("cache-control", "no-store"),
            ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer"),
        ):  # fmt: skip
            assert answer.headers[name] == value
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in answer.headers

    async def scenario(rig: Rig) -> None:
        for method, path in (
            ("GET", "/streams"), ("GET", "/docs"), ("GET", "/nowhere"), ("PUT", "/streams"),
            ("POST", "/streams"), ("GET", "/metrics"), ("GET", "/openapi.json"),
        ):  # fmt: skip
            check(await rig.ask(method, path))
        check(await rig.ask("GET", "/streams", headers={"host": "evil.example"}))

    run_with_rig(scenario)


def test_a_fault_in_a_route_shows_nothing_of_the_inside() -> None:
    async def scenario(rig: Rig) -> None:
        async def broken(*_: object) -> None:
            raise RuntimeError("secret in /root/canary.py")

        rig.backend.add = broken  # type: ignore[method-assign,assignment]
        answer = await rig.ask("POST", "/streams", BODY)
        assert (answer.status, answer.body["kind"]) == (500, "internal")
        assert b"canary" not in answer.text
        assert b"Traceback" not in answer.text

    run_with_rig(scenario)


def test_wrong_methods_are_told_the_right_ones() -> None:
    async def scenario(rig: Rig) -> None:
        answer = await rig.ask("PUT", "/streams")
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == {"DELETE", "GET", "HEAD", "POST"}
        assert answer.body["kind"] == "method_not_allowed"
        assert (await rig.ask("TRACE", "/streams/count")).status == 405

    run_with_rig(scenario)
