"""Memory: what was measured counts, an estimate says that it is one, and the arithmetic holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import InvalidInput
from turnout.deploy.ledger import MAX_REMEMBERED, Ledger, Need, estimate, judge, keep_ledger, read_ledger
from turnout.deploy.memory_limit import Limit, limit_of, parse_bytes, shown_bytes
from turnout.monitoring.process import resident_bytes

MIB = 1 << 20
NAMES = ("a@1", "a@2", "b@1", "b@2")
needs = st.lists(st.sampled_from(NAMES), unique=True).map(
    lambda names: [Need(name, (NAMES.index(name) + 1) * 100 * MIB) for name in names]
)


@given(needs, needs, st.booleans())
def test_the_arithmetic(now: list[Need], wanted: list[Need], pauses: bool) -> None:
    fit = judge(now, wanted, Limit(500 * MIB, "said"), rest=50 * MIB, pauses=pauses)
    total = 50 * MIB + sum(need.nbytes or 0 for need in wanted)
    assert fit.after == total
    assert fit.peak >= max(fit.now, fit.after)
    assert fit.peak == fit.now + sum(need.nbytes or 0 for need in wanted if need not in now) or pauses
    assert fit.fits == (fit.peak <= 500 * MIB)
    assert bool(fit.notes) == ({need.name for need in now} != {need.name for need in wanted})


def test_what_is_kept_for_an_instant_return_takes_its_room() -> None:
    old, new = Need("a@1", 100), Need("a@2", 100)
    kept = judge([old], [new], Limit(150, "said"), kept=[old])
    assert (kept.after, kept.fits) == (200, False)
    assert (judge([old], [new], Limit(150, "said")).after, judge([old], [new], Limit(150, "said")).fits) == (100, False)
    assert judge([old], [new], Limit(150, "said"), pauses=True).fits is True, "what goes makes room first"


def test_it_says_its_sum_in_words_and_refuses_what_does_not_fit() -> None:
    now = [Need("fraud@v7", 300 * MIB, measured=True)]
    wanted = [Need("fraud@v8", 900 * MIB, 2), Need("fraud@v9", None)]
    fit = judge(now, wanted, Limit(1024 * MIB, "server.memory_limit"), rest=80 * MIB)
    assert "\n".join(fit.notes) == (
        "memory: does NOT fit: 1.2 GiB at most, of 1.0 GiB (server.memory_limit)\n"
        "  now 380 MiB, of which 80 MiB are the server's own\n"
        "  + fraud@v8: 900 MiB (an estimate, 2 replicas)\n"
        "  + fraud@v9: nobody knows how much before it is fetched\n"
        "  - fraud@v7: 300 MiB (measured)\n"
        "  = 1.2 GiB at most, as what goes is unloaded when what comes is ready; 980 MiB after that"
    )
    with pytest.raises(
        InvalidInput, match=r"memory_limit: does not fit in memory; expected at most 1\.0 GiB; got 1\.2 GiB"
    ):
        fit.check()
    assert judge(now, wanted[1:], Limit(1024 * MIB, "said")).fits is None, "nobody can tell"


def test_what_was_measured_is_kept_and_counts() -> None:
    ledger = Ledger()
    assert ledger.record(["sha256:7", "", "s3://m/7#etag"], 90 * MIB)
    assert ledger.record(["sha256:7", "s3://m/7#etag"], 100 * MIB)
    assert not ledger.record(["sha256:7"], 80 * MIB), "the most that was ever seen counts"
    assert not ledger.record(["sha256:8"], 0), "a worker that is not there says nothing"
    again = Ledger.from_json(ledger.to_json())
    assert again.need("fraud@v7", ["sha256:7"], replicas=3) == Need("fraud@v7", 300 * MIB, 3, measured=True)
    assert again.need("fraud@v7", ["", "s3://m/7#etag"]).measured
    assert again.need("fraud@v9", ["sha256:9"], artifact_bytes=10 * MIB, format="onnx") == Need(
        "fraud@v9", estimate("onnx", 10 * MIB), 1
    )
    assert again.need("fraud@v9", ["sha256:9"]).nbytes is None
    assert Ledger.from_json({"a": "x", "b": True, "c": -1, "d": 5}).measured == {"d": 5}


def test_it_is_kept_for_servers_to_come(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "memory.json"
    assert read_ledger(path).measured == {}
    keep_ledger(Ledger({"sha256:1": 5}), path)
    assert read_ledger(path).measured == {"sha256:1": 5}
    for odd in ("", "[]", "{"):
        path.write_text(odd)
        assert read_ledger(path).measured == {}, "what cannot be read is nothing, and no failure"


def test_it_remembers_a_bounded_number() -> None:
    ledger = Ledger({str(number): 1 for number in range(MAX_REMEMBERED)})
    ledger.record(["0"], 2)
    ledger.record(["new"], 3)
    assert len(ledger.measured) == MAX_REMEMBERED
    assert {"0", "new"} <= set(ledger.measured)
    assert "1" not in ledger.measured, "who was not seen for longest is forgotten"


@pytest.mark.parametrize(
    ("format", "library"), [("onnx", "onnxruntime"), ("sklearn", "sklearn.ensemble"), ("python", "numpy")]
)
def test_an_estimate_covers_what_a_worker_takes_with_the_library(format: str, library: str) -> None:
    """And is no wild guess."""
    code = (
        f"import turnout.entrypoints.worker, {library}\nfrom turnout.monitoring.process import resident_bytes\n"
        "print(resident_bytes())"
    )
    measured = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert resident_bytes() > 0
    assert measured / 2 < estimate(format, 0) < 4 * measured


@pytest.mark.parametrize(
    ("said", "nbytes"),
    [(4096, 4096), ("4GiB", 4 << 30), ("512 MB", 512 * 10**6), ("1.5gib", 3 << 29), ("7", 7), ("2 KiB", 2048)],
)
def test_sizes_may_have_a_unit(said: object, nbytes: int) -> None:
    assert parse_bytes(said, "server.memory_limit") == nbytes


@pytest.mark.parametrize("said", ["4 gigs", "GiB", "", -1, True, None, [], "4GiB extra", "1e9"])
def test_what_is_no_size_is_refused(said: object) -> None:
    with pytest.raises(InvalidInput, match=r"server\.memory_limit: not a size; .*works: memory_limit: 4GiB"):
        parse_bytes(said, "server.memory_limit")


def test_sizes_are_shown_as_people_say_them() -> None:
    assert [shown_bytes(one) for one in (0, 1023, 1 << 20, 1536 << 20)] == ["0 B", "1023 B", "1 MiB", "1.5 GiB"]


def test_the_limit_is_the_least_that_anybody_sets(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16000000 kB\nMemFree: 5 kB\n")
    assert limit_of(0, tmp_path) == Limit(16000000 * 1024, "the memory of this machine")
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/turnout.service\n")
    inner = tmp_path / "sys/fs/cgroup/system.slice/turnout.service"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text(f"{2 << 30}\n")
    assert limit_of(0, tmp_path) == Limit(2 << 30, "the limit of this cgroup")
    assert limit_of(1 << 30, tmp_path) == Limit(1 << 30, "server.memory_limit")
    old = tmp_path / "sys/fs/cgroup/memory/docker/1"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text(f"{1 << 30}\n")
    (tmp_path / "proc/self/cgroup").write_text("5:memory:/docker/1\n4:cpu:/docker/1\nodd\n")
    assert limit_of(0, tmp_path).nbytes == 1 << 30
    assert limit_of(0).nbytes > 64 * MIB, "this machine has some"


def test_nobody_says_how_much_there_is(tmp_path: Path) -> None:
    assert limit_of(0, tmp_path).nbytes > 1 << 60
