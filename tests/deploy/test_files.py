"""What is in `deploy/` and what the product is: keys, routes, ports, files, deadlines agree."""

import argparse
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from control.api.routes import probes
from control.cli.exits import Exit
from control.cli.options import load
from control.http.auth import Guard
from engine.data.kinds import KINDS
from engine.data.ring import ring_bytes
from engine.start.config import LoadedConfig
from engine.start.stream_share import StreamShare
from engine.supervisor.spawning import Timing
from shards.venues import preferred_transport

yaml = pytest.importorskip("yaml")

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "fintickstreams.service"
COMPOSE = DEPLOY / "container" / "compose.yaml"
BASE = DEPLOY / "kubernetes" / "base"
OVERLAYS = sorted((DEPLOY / "kubernetes" / "overlays").iterdir())
CONFIGS = sorted(DEPLOY.rglob("*.toml"))
SCRIPTS = [*sorted(DEPLOY.rglob("*.sh")), DEPLOY / "systemd" / "check-shm"]
FILES = sorted(
    path
    for path in DEPLOY.rglob("*")
    if path.is_file() and not {"secrets", "__pycache__"} & set(path.parts)
)
YAML = [path for path in FILES if path.suffix in (".yaml", ".yml")]
TOKEN = "c0ffee" + "0123456789" * 6
_TIMING = Timing()
START_S = 2 * 30 + _TIMING.writer_ready_s + 2 * _TIMING.ready_s
"""Schema and mirror of a silent database, and every child as late as it may be."""
STOP_S = (
    _TIMING.shard_drain_s + _TIMING.writer_drain_s + _TIMING.control_drain_s + 3 * _TIMING.grace_s
)
SECRET = re.compile(r'"(/run/(?:secrets|credentials)/[^"]+)"')


def name_of(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def unit() -> dict[str, list[str]]:
    """Every value of each key."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Za-z]+)=(.*)$", UNIT.read_text("utf-8"), re.M):
        found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> float:
    number, word = re.fullmatch(r"(\d+)(s|min)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "min": 60}[word]


def loaded(config: Path, folder: Path) -> LoadedConfig:
    """As the command line reads it, with secrets of the test's own where it wants them."""

    def mine(found: re.Match[str]) -> str:
        name = Path(found[1]).name
        secret = folder / name
        urls = {"database": "postgresql://fts@db/fts", "redis": "redis://db/0"}
        secret.write_text(next((url for key, url in urls.items() if key in name), TOKEN))
        secret.chmod(0o600)
        return f'"{secret}"'

    copy = folder / "fts.toml"
    uncommented = re.sub(r"^#   ?(?=\[|\w+ =)", "", config.read_text("utf-8"), flags=re.M)
    copy.write_text(SECRET.sub(mine, uncommented))
    return load(argparse.Namespace(config=copy, state_dir=folder / "state"))


# -- everywhere ----------------------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_scripts_are_sound(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)
    if (shellcheck := shutil.which("shellcheck")) is None:
        pytest.skip("no shellcheck (Debian: apt-get install shellcheck)")
    done = subprocess.run(
        [shellcheck, "-x", str(script)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_configurations_are_understood_and_collect_something(config: Path, tmp_path: Path) -> None:
    found = loaded(config, tmp_path)
    assert found.stream_keys(preferred_transport)
    assert found.no_symbols() == []
    control = found.config.control
    assert Guard.load(control.token_file, control.read_token_file, {}).is_armed


@pytest.mark.parametrize("path", YAML, ids=name_of)
def test_yaml_can_be_read(path: Path) -> None:
    assert read(path)


def test_variables_of_ours_are_those_of_the_product() -> None:
    pages = ("configuration.md", "prometheus.md")  # Grafana reads some of its own
    known = "".join((DEPLOY.parent / "docs" / page).read_text("utf-8") for page in pages)
    texts = [path.read_text("utf-8") for path in FILES]
    named = {name for text in texts for name in re.findall(r"\bFTS_[A-Z_]+", text)}
    assert {"FTS_SHARE", "FTS_DASHBOARDS"} <= named
    assert {name for name in named if not re.search(rf"\b{name}\b", known)} == {
        "FTS_SHM_MIB", "FTS_SHM_DIR"
    }  # fmt: skip


# -- systemd -------------------------------------------------------------------------------------


def test_the_unit_waits_watches_and_stops_as_the_engine_does() -> None:
    keys = {key: values[-1] for key, values in unit().items()}
    expected = {
        "Type": "notify",
        "NotifyAccess": "main",
        "KillMode": "mixed",  # servers and children stop when the supervisor says so
        "RemoveIPC": "no",  # rings outlive a crash
        "OOMPolicy": "continue",
        "SuccessExitStatus": str(int(Exit.UNFINISHED)),
        "Restart": "on-failure",
        "StartLimitIntervalSec": "0",
        "LoadCredential": "fts:/etc/fintickstreams/credentials",
        "ExecReload": "/bin/kill -HUP $MAINPID",
        "UMask": "0077",
    }
    assert {key: keys.get(key) for key in expected} == expected
    assert seconds(keys["TimeoutStartSec"]) >= START_S
    assert seconds(keys["TimeoutStopSec"]) >= STOP_S + 20, "and its private servers"
    assert seconds(keys["WatchdogSec"]) >= 30
    assert int(keys["LimitNOFILE"]) >= 65_536


@pytest.mark.whole
def test_systemd_finds_the_unit_sound_and_little_exposed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze (Debian: apt-get install systemd)")
    runnable = tmp_path / UNIT.name
    text = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", UNIT.read_text("utf-8"), flags=re.M)
    runnable.write_text(text.replace("User=fintickstreams", "User=root"))
    done = subprocess.run([analyze, "verify", str(runnable)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", str(UNIT)],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode()[-400:]


# -- containers ----------------------------------------------------------------------------------


def test_compose_gives_the_engine_what_its_configuration_names(tmp_path: Path) -> None:
    compose = read(COMPOSE)
    engine = compose["services"]["engine"]
    text = (COMPOSE.parent / "fts.toml").read_text("utf-8")
    assert {Path(path).name for path in SECRET.findall(text)} == set(engine["secrets"])
    control = loaded(COMPOSE.parent / "fts.toml", tmp_path).config.control
    assert engine["ports"] == [f"127.0.0.1:{control.port}:{control.port}"]
    assert control.allowed_hosts == ["engine"]
    scrape = read(COMPOSE.parent / "prometheus.yml")["scrape_configs"][0]
    assert scrape["static_configs"] == [{"targets": [f"engine:{control.port}"]}]
    assert int(engine["shm_size"].removesuffix("gb")) << 30 > 2 * rings_bytes()
    assert seconds(engine["stop_grace_period"]) >= STOP_S + 20


def test_compose_mounts_what_exists_and_opens_ports_to_this_machine_alone() -> None:
    compose = read(COMPOSE)
    made = (COMPOSE.parent / "secrets.sh").read_text("utf-8")
    for name, secret in compose["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
        assert re.search(rf"^keep \d+ \S+ {name} ", made, re.M), name
    for name, service in compose["services"].items():
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            is_ours = source.startswith(".")
            exists = (COMPOSE.parent / source).exists()
            assert exists if is_ours else source in compose["volumes"]


def test_the_image_is_asked_where_the_product_answers() -> None:
    text = (COMPOSE.parent / "Dockerfile").read_text("utf-8")
    assert re.search(r"'GET', '(.*?)'", text)[1] in probes.PATHS  # type: ignore[index]
    for source in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M):
        for name in source.split():
            assert (DEPLOY.parent / name).exists(), name


def rings_bytes() -> int:
    return sum(ring_bytes(kind, kind.ring_records) for kind in KINDS.values())


# -- Kubernetes ----------------------------------------------------------------------------------


def pod() -> Any:
    return read(BASE / "statefulset.yaml")["spec"]["template"]["spec"]


def test_probes_ask_for_what_the_product_answers_and_wait_as_long_as_a_start_may_take() -> None:
    (engine,) = pod()["containers"]
    asked = {name: engine[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    paths = {name: probe["httpGet"]["path"] for name, probe in asked.items()}
    assert paths == {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}
    assert set(paths.values()) == probes.PATHS
    assert asked["startup"]["periodSeconds"] * asked["startup"]["failureThreshold"] >= START_S
    lived_s = asked["liveness"]["periodSeconds"] * asked["liveness"]["failureThreshold"]
    assert lived_s >= probes.LIVE_SILENCE_S, "a control process that is started again is not dead"
    assert pod()["terminationGracePeriodSeconds"] >= STOP_S + 20


def test_pods_have_the_port_and_the_files_that_their_configuration_names(tmp_path: Path) -> None:
    (engine,) = pod()["containers"]
    mounts = {each["mountPath"]: each["name"] for each in engine["volumeMounts"]}
    rings = next(each for each in pod()["volumes"] if each["name"] == mounts["/dev/shm"])
    assert rings["emptyDir"]["medium"] == "Memory"
    assert int(rings["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 30 > 2 * rings_bytes()
    for config in (BASE / "fts.toml", *(DEPLOY / "kubernetes").rglob("overlays/*/fts.toml")):
        found = loaded(config, tmp_path).config.control
        assert engine["ports"] == [{"name": "api", "containerPort": found.port}]
        secrets = {Path(path) for path in SECRET.findall(config.read_text("utf-8"))}
        assert {str(path.parent) for path in secrets} <= mounts.keys()
        for overlay in OVERLAYS:
            (generator,) = read(overlay / "kustomization.yaml")["secretGenerator"]
            assert {Path(path).name for path in generator["files"]} == {
                path.name for path in secrets
            }


@pytest.mark.parametrize("overlay", OVERLAYS, ids=name_of)
def test_engines_of_an_overlay_have_every_stream_once(overlay: Path, tmp_path: Path) -> None:
    patch = overlay / "engines.yaml"
    replicas, variables = 1, pod()["containers"][0]["env"]
    values = {each["name"]: each.get("value") for each in variables}
    assert list(values) == ["ENGINES", "ORDINAL", "FTS_SHARE"], "each after those that it names"
    assert values["FTS_SHARE"] == "$(ORDINAL)/$(ENGINES)"
    if patch.exists():
        spec = read(patch)["spec"]
        replicas = spec["replicas"]
        values |= {
            each["name"]: each["value"] for each in spec["template"]["spec"]["containers"][0]["env"]
        }
    assert values["ENGINES"] == str(replicas)
    config = overlay / "fts.toml" if (overlay / "fts.toml").exists() else BASE / "fts.toml"
    keys = loaded(config, tmp_path).stream_keys(preferred_transport)
    shares = [StreamShare.parse(f"{number}/{replicas}", "env") for number in range(replicas)]
    assert [sum(share.has(key) for share in shares) for key in keys] == [1] * len(keys)
    assert all(any(share.has(key) for key in keys) for share in shares), "none is idle"


@pytest.mark.whole
@pytest.mark.parametrize("overlay", OVERLAYS, ids=name_of)
def test_kustomize_builds_an_overlay_with_its_secrets(overlay: Path, tmp_path: Path) -> None:
    kustomize = shutil.which("kustomize")
    if kustomize is None:
        pytest.skip("no kustomize")
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "k", ignore=shutil.ignore_patterns("secrets"))
    copy = tmp_path / "k" / "overlays" / overlay.name
    urls = ("postgresql://fts@db/fts", "redis://db/0")
    subprocess.run([str(tmp_path / "k" / "secrets.sh"), str(copy), *urls], check=True)
    built = subprocess.run([kustomize, "build", str(copy)], capture_output=True, check=True)
    kinds = {each["kind"]: each for each in yaml.safe_load_all(built.stdout)}
    wanted = {"StatefulSet", "ConfigMap", "Secret", "Service", "PodDisruptionBudget", "Namespace"}
    assert wanted <= kinds.keys()
    labels = kinds["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        if kind in kinds:
            assert kinds[kind]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert kinds["Service"]["spec"]["selector"].items() <= labels.items()
