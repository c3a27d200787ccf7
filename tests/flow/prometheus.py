"""A Prometheus of the test's own: on a free port, with its data in a directory of the test's."""

import re
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

PROGRAM = shutil.which("prometheus")
MISSING = "no prometheus (Debian: apt-get install prometheus)"


class Prometheus:
    """A context in which it scrapes one engine once a second, and judges by rules."""

    def __init__(self, directory: Path, target: str, rules: str) -> None:
        directory.mkdir()
        (directory / "rules.yml").write_text(rules, encoding="utf-8")
        self._config = directory / "prometheus.yml"
        self._config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            "rule_files: [rules.yml]\n"
            "scrape_configs:\n"
            f"  - {{job_name: fintickstreams, static_configs: [{{targets: ['{target}']}}]}}\n",
            encoding="utf-8",
        )
        self._data = directory / "data"
        self._url = ""
        self._log = ""

    def __enter__(self) -> "Prometheus":
        assert PROGRAM is not None, MISSING
        self._process = subprocess.Popen(
            [PROGRAM, f"--config.file={self._config}", f"--storage.tsdb.path={self._data}",
             "--web.listen-address=127.0.0.1:0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log += line
            if found := re.search(r'msg="Listening on" address=(\S+)', line):
                self._url = f"http://{found[1]}/api/v1/"
            if "Server is ready" in line:
                break
        assert self._url, self._log
        self._drain = threading.Thread(target=self._process.stderr.read)  # nobody reads it
        self._drain.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._drain.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API."""
        url = f"{self._url}{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:  # noqa: S310
                return msgspec.json.decode(reply.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def query(self, text: str) -> list[dict[str, Any]]:
        """The samples of a query, now."""
        found: list[dict[str, Any]] = self.ask("query", query=text)["result"]
        return found

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = self.ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}
