"""What Prometheus's own tool says of the metrics, the alerts, and when these fire."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.program import Start
from tests.support.valkey import Valkey

ALERTS = ROOT / "deploy/alerts.yaml"


def promtool(*arguments: str, given: str = "") -> str:
    if shutil.which("promtool") is None:
        pytest.fail("promtool is missing: apt-get install prometheus", pytrace=False)
    done = subprocess.run(
        ["promtool", *arguments], input=given, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("redis", ["up", "away"])
def test_metrics_are_clean(redis: str, program: Start, valkey: Valkey) -> None:
    url = valkey.url if redis == "up" else "unix:/nowhere/redis.sock"
    server = program(f"--redis-url={url}", "--version-label=v1", "--labels=zone=eu-1")
    server.visits()
    server.get("/nothing", method="DELETE")
    promtool("check", "metrics", given=server.get("/metrics")[1])


def test_alerts_are_rules_that_fire_when_they_should_and_else_not(tmp_path: Path) -> None:
    assert "4 rules found" in promtool("check", "rules", str(ALERTS))
    cases = ROOT / "tests/watch/alerts.yaml"
    (tmp_path / "cases.yaml").write_text(cases.read_text().replace("ALERTS", str(ALERTS)))
    promtool("test", "rules", str(tmp_path / "cases.yaml"))
