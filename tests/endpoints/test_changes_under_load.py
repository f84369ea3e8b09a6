"""What is served is changed while requests come in: none fails, and none is answered as it was before the change."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import pytest

from tests.endpoints.models import write_model
from tests.endpoints.open_loop import OpenLoop, Seen
from turnout.entrypoints.remote import ask_here
from turnout.testing.server import Server, serving

FACTORS = {"v1": 2.0, "v2": 3.0, "v3": 5.0}
SPEC = """\
server: {{access_log: "off"}}
endpoints:
  fraud:
    versions:
{versions}
    traffic: {{{traffic}}}
    sticky: {{header: x-account-id}}
"""


def document(weights: dict[str, float]) -> str:
    versions = "\n".join(f"      {name}: {{model: {name}.py, replicas: 2}}" for name in weights)
    return SPEC.format(versions=versions, traffic=", ".join(f"{name}: {share}" for name, share in weights.items()))


class Change:
    """One change: which revision is in force after it, from when to when it was made, and with which weights."""

    def __init__(self, revision: int, began: float, ended: float, weights: dict[str, float]) -> None:
        self.revision, self.began, self.ended, self.weights = revision, began, ended, weights


def make_changes(server: Server, folder: Path, count: int, pause: float) -> list[Change]:
    """Weights, versions that come and go, all of the traffic to one and back, and undo."""
    chance = random.Random(7)
    path = str(folder / "turnout.yaml")
    now = {"v1": 90.0, "v2": 10.0}
    before = dict(now)
    made = [Change(1, 0.0, time.monotonic(), dict(now))]
    for number in range(count):
        began = time.monotonic()
        kind = ("traffic", "apply", "promote", "undo", "traffic")[number % 5]
        if kind == "undo":
            answer = ask_here(server.port, {"do": "undo", "author": "test"})
            now, before = before, now
        else:
            before = dict(now)
            if kind == "apply":
                names = ["v1", "v2", "v3"] if "v3" not in now else ["v1", "v2"]
                now = dict(zip(names, (40.0, 60.0) if len(names) == 2 else (40.0, 30.0, 30.0), strict=True))
            elif kind == "promote":
                now = {name: 100.0 if name == "v2" else 0.0 for name in now}
            else:
                share = float(chance.randrange(5, 96))
                now = {name: {"v1": share, "v2": 100.0 - share}.get(name, 0.0) for name in now}
            if kind == "apply":
                question = {"do": "apply_document", "document": document(now), "path": path, "author": "test"}
            else:
                question = {"do": "traffic", "endpoint": "fraud", "weights": now, "author": "test"}
            answer = ask_here(server.port, question)
        made.append(Change(answer["revision"], began, time.monotonic(), dict(now)))
        time.sleep(pause)
    return made


def check(seen: list[Seen], made: list[Change]) -> None:
    """No failure, no answer of a version that nobody wanted any more, no excluded window."""
    failed = [one for one in seen if one.status != 200]
    assert not failed, f"{len(failed)} of {len(seen)} failed: {failed[0]}"
    wrong = [one for one in seen if not math.isclose(one.value, one.number * FACTORS[one.variant])]
    assert not wrong, f"answers of somebody else: {wrong[:2]}"
    stale = []
    at = 0
    for one in sorted(seen, key=lambda one: one.sent):
        while at + 1 < len(made) and made[at + 1].ended <= one.sent:
            at += 1
        allowed = {made[at].revision}
        later = at + 1
        while later < len(made) and made[later].began <= one.ended:  # a change was under way while it was
            allowed.add(made[later].revision)
            later += 1
        if one.revision not in allowed:
            stale.append((one, allowed))
    assert not stale, f"{len(stale)} of {len(seen)} were answered by a revision that was not in force: {stale[0]}"


def check_shares(seen: list[Seen], made: list[Change]) -> None:
    """Of each revision's requests, every version has had its share: by units, for those stay where they are."""
    for change in made:
        variant_of = {one.unit: one.variant for one in seen if one.revision == change.revision}
        units = len(variant_of)
        if units < 200 or sum(other.revision == change.revision for other in made) > 1:
            continue
        for name, weight in change.weights.items():
            share = weight / 100
            spread = 4.0 * math.sqrt(share * (1 - share) / units) + 1e-9
            found = sum(variant == name for variant in variant_of.values()) / units
            assert abs(found - share) <= spread, f"{name}: {found:.3f} of {units} units, {share:.3f} wanted"


def run(folder: Path, changes: int, rate: float, least: int, pause: float) -> None:
    for name, factor in FACTORS.items():
        write_model(folder / f"{name}.py", factor)
    (folder / "turnout.yaml").write_text(document({"v1": 90.0, "v2": 10.0}))
    units = [f"account-{number}" for number in range(1000)]
    with (
        serving("--spec", str(folder / "turnout.yaml")) as server,
        OpenLoop(server, "fraud", rate, units=units) as load,
    ):
        load.wait_for(100)
        made = make_changes(server, folder, changes, pause)
        load.wait_for(least, 600.0)
    seen = load.seen
    slowest = max(change.ended - change.began for change in made[1:])
    weights = sorted(change.ended - change.began for number, change in enumerate(made[1:]) if number % 5 in {0, 4})
    print(
        f"{changes} changes, {len(seen)} requests at {rate:g}/s; a change of weights is in force everywhere after "
        f"{weights[len(weights) // 2] * 1e3:.0f} ms (at most {weights[-1] * 1e3:.0f}), any change after {slowest:.2f} s"
    )
    assert len(seen) >= least
    check(seen, made)
    check_shares(seen, made)


@pytest.mark.slow
def test_twenty_changes_cost_nobody_anything(tmp_path: Path) -> None:
    run(tmp_path, 20, 400.0, 5_000, 0.3)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_hundred_changes_cost_nobody_anything(tmp_path: Path) -> None:
    run(tmp_path, 200, 600.0, 100_000, 0.5)


def test_a_request_that_was_answered_by_an_old_revision_is_found() -> None:
    """The check itself: one stale answer among good ones is seen."""
    made = [Change(1, 0.0, 1.0, {}), Change(2, 5.0, 5.1, {})]
    good = Seen(1, 6.0, 6.0, 6.1, 200, 2.0, "", "v1", "fraud@v1", 2, "", "")
    check([good, good._replace(sent=4.9, ended=5.05, revision=1), good._replace(sent=5.05, revision=1)], made)
    with pytest.raises(AssertionError, match="1 of 2 were answered by a revision"):
        check([good, good._replace(revision=1)], made)
    with pytest.raises(AssertionError, match="1 of 2 failed"):
        check([good, good._replace(status=503)], made)
