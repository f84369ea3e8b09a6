"""The champion crashes, hangs, crawls or talks nonsense: every request is answered inside its deadline."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.endpoints.models import write_faulty, write_model
from tests.endpoints.open_loop import OpenLoop
from turnout.testing.server import serving

DEADLINE = 0.3
SPEC = """\
server: {access_log: "off"}
endpoints:
  fraud:
    versions:
      champion: {model: champion.py, replicas: 2}
      simple: {model: simple.py}
    traffic: {champion: 100}
    outputs: {finite: true}
    circuit_breaker: {}
    fallback: [simple, {default: {score: -1.0}}]
    deadline: %s
"""
#: The reasons that each fault may be told with, once it is known what is wrong with the champion.
REASONS = {
    "crash": {"error", "not_ready", "circuit_open", "timeout", "predicted_timeout"},
    "hang": {"timeout", "predicted_timeout", "circuit_open", "error", "not_ready", "overloaded"},
    "slow": {"timeout", "predicted_timeout", "circuit_open", "overloaded"},
    "raise": {"error", "circuit_open"},
    "nan": {"invalid_output", "circuit_open"},
    "shape": {"invalid_output", "circuit_open"},
    "memory": {"error", "circuit_open"},
}


#: The others take as long and go the same ways.
_FIRST = ("crash", "hang", "nan")
FAULTS = [fault if fault in _FIRST else pytest.param(fault, marks=pytest.mark.slow) for fault in REASONS]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_is_answered_inside_its_deadline(fault: str, tmp_path: Path) -> None:
    trigger = write_faulty(tmp_path / "champion.py", 2.0, fault)
    write_model(tmp_path / "simple.py", 3.0)
    (tmp_path / "turnout.yaml").write_text(SPEC % DEADLINE)
    with serving("--spec", str(tmp_path / "turnout.yaml")) as server, OpenLoop(server, "fraud", 200.0) as load:
        load.wait_for(100)
        healthy = len(load.seen)
        trigger.touch()
        load.wait_for(healthy + 300)
    before, after = load.seen[:healthy], load.seen[healthy:]
    assert all(one.status == 200 and not one.degraded for one in before)
    failed = [one for one in after if one.status != 200]
    assert not failed, f"{len(failed)} of {len(after)} were not answered: {failed[0]}"
    assert all(one.value in (one.number * 2.0, one.number * 3.0, -1.0) for one in after)
    degraded = [one for one in after if one.degraded]
    assert len(degraded) >= 0.5 * len(after), "the fault did not reach the champion"
    assert {one.degraded for one in degraded} <= REASONS[fault], {one.degraded for one in degraded}
    assert {one.served_by for one in degraded} <= {"fraud@simple", "fraud@default"}
    assert {one.variant for one in degraded} == {"champion"}, "what a request was assigned to stays told"
    # This client counts from when a request was due and shares two cores with the server.
    late = [one for one in after if one.ended - one.sent > DEADLINE + 0.15]
    assert len(late) <= 0.02 * len(after), f"{len(late)} late: {max(one.ended - one.sent for one in late):.3f} s"
