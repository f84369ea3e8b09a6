"""Environments are built once, shared, found again, held, and removed when long unused; never left half-built."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.environments.index import serving
from tests.environments.wheels import make_wheel, sha256
from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.environment import Environment, IndexPolicy, Requirements
from turnout.deploy.environments.locks import alone
from turnout.deploy.environments.pythons import find_python
from turnout.deploy.environments.store import Environments, digest_of

SCORES = Requirements(("scores==1.0",))
OLD = Requirements(("old-scores",))


def run(environment: Environment, code: str) -> str:
    command = [str(environment.python), "-I", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_what_cannot_live_together_lives_side_by_side(environments: Environments) -> None:
    new, old = environments.ensure(SCORES), environments.ensure(OLD)
    assert new.packages == {"numpy": "2.4.0", "scores": "1.0"}
    assert old.packages == {"numpy": "1.23.5", "old-scores": "0.9"}
    code = "import numpy, sys; print(numpy.__version__, sys.prefix)"
    assert run(new, code) == f"2.4.0 {new.path}"
    assert run(old, code) == f"1.23.5 {old.path}"
    assert {entry.digest for entry in environments.entries()} == {new.digest, old.digest}


def test_numpy_comes_along_and_nothing_else(environments: Environments) -> None:
    assert environments.ensure(Requirements(())).packages == {"numpy": "2.4.0"}


def test_the_same_again_is_only_looked_up(environments: Environments) -> None:
    first = environments.ensure(SCORES)
    said: list[str] = []
    again = Environments(environments.root, environments.policy).ensure(SCORES, said.append)
    assert again.path == first.path
    assert said == []
    assert again.used >= first.used


def test_progress_is_told(environments: Environments) -> None:
    said: list[str] = []
    found = environments.ensure(SCORES, said.append)
    assert said[0].startswith(f"building the environment {found.digest} of the spec with Python 3.")
    assert any(line.startswith("Installed 2 packages") for line in said)
    assert not [line for line in said if "scores==1.0" in line]  # not a line for each of two hundred packages
    assert said[-1].startswith(f"built the environment {found.digest} in ")


def test_what_differs_gets_another(environments: Environments, wheels: Path) -> None:
    named = {
        environments.ensure(SCORES).digest,
        environments.ensure(Requirements(("scores",))).digest,
        environments.ensure(Requirements(("scores",), constraints=("numpy<3",))).digest,
        Environments(environments.root, IndexPolicy(wheels=(wheels,), public=False)).ensure(SCORES).digest,
    }
    assert len(named) == 4


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("nosuch",), "nosuch was not found in the provided package locations"),
        (("scores", "old-scores"), "scores depend on numpy<2.*requirements are unsatisfiable"),
        (("scores>=7",), r"only scores==1\.0 is available"),
    ],
)
def test_what_cannot_be_resolved_says_why_and_leaves_nothing(
    environments: Environments, lines: tuple[str, ...], said: str
) -> None:
    with pytest.raises(EnvironmentFailed) as failed:
        environments.ensure(Requirements(lines, origin="requirements.txt"))
    assert failed.value.message.startswith("what requirements.txt asks for cannot be installed by uv: ")
    assert re.search(said, " ".join(failed.value.message.split())), failed.value.message
    assert environments.entries() == []
    assert [entry.name for entry in environments.root.iterdir()] == [".locks"]


def test_what_has_no_wheel_names_the_option_that_builds_it(environments: Environments, wheels: Path) -> None:
    source = wheels / "only-source-1.0.tar.gz"
    source.write_bytes(b"")
    try:
        with pytest.raises(EnvironmentFailed, match=r"hint: only wheels .* \(--source-builds;") as failed:
            environments.ensure(Requirements(("only-source",)))
    finally:
        source.unlink()
    assert "--no-build" not in failed.value.message


def test_a_numpy_that_does_not_import_is_no_environment(environments: Environments, tmp_path: Path) -> None:
    make_wheel(tmp_path / "bad", "numpy", "3.0", code="raise ImportError('no such symbol: dgemm_')\n")
    broken = Environments(environments.root, IndexPolicy(wheels=(tmp_path / "bad",), offline=True))
    with pytest.raises(EnvironmentFailed, match=r"numpy does not import(.|\n)*no such symbol: dgemm_"):
        broken.ensure(Requirements(()))
    assert broken.entries() == []


def test_many_who_ask_build_once(environments: Environments, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from turnout.deploy.environments.environment import *\n"
        "from turnout.deploy.environments.store import Environments\n"
        "store = Environments(Path(sys.argv[1]), IndexPolicy(wheels=(Path(sys.argv[2]),), offline=True))\n"
        "store.ensure(Requirements(('scores==1.0',)), print)\n"
    )
    command = [sys.executable, "-c", script, str(environments.root), str(environments.policy.wheels[0])]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [one.communicate(timeout=60)[0] for one in asking]
    assert [one.returncode for one in asking] == [0] * 4
    assert sum("building the environment" in text for text in said) == 1
    assert len(environments.entries()) == 1


def test_a_build_that_is_cancelled_leaves_nothing(environments: Environments) -> None:
    begun = threading.Event()
    with pytest.raises(EnvironmentFailed, match="cancelled"):
        environments.ensure(SCORES, lambda line: begun.set(), begun.is_set)
    assert [entry.name for entry in environments.root.iterdir()] == [".locks"]
    assert environments.ensure(SCORES).packages["scores"] == "1.0"


def test_a_build_that_is_killed_is_swept_by_the_next(environments: Environments) -> None:
    """Killed at any moment, even between two commands: what is there is not taken for an environment."""
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from turnout.deploy.environments.environment import *\n"
        "from turnout.deploy.environments.store import Environments\n"
        "store = Environments(Path(sys.argv[1]), IndexPolicy(wheels=(Path(sys.argv[2]),), offline=True))\n"
        "def tell(line):\n"
        "    if line.startswith('Installed'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.ensure(Requirements(('scores==1.0',)), tell)\n"
    )
    command = [sys.executable, "-c", script, str(environments.root), str(environments.policy.wheels[0])]
    ended = subprocess.run(command, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    left = [entry.name for entry in environments.root.iterdir() if entry.name != ".locks"]
    assert len(left) == 1
    assert environments.entries() == []
    end = time.monotonic() + 30
    while (environments.root / left[0]).exists():  # what it had started may still be writing, and holds the lock
        assert time.monotonic() < end
        environments.sweep()
    assert run(environments.ensure(SCORES), "import scores; print(scores.__version__)") == "1.0"


def test_what_a_killed_builder_had_started_keeps_the_lock(environments: Environments, wheels: Path) -> None:
    """Its installer may go on writing for a while; nobody builds at the same place meanwhile."""
    with serving(wheels) as index:
        index.go.clear()
        script = (
            "import sys; from pathlib import Path\n"
            "from turnout.deploy.environments.environment import *\n"
            "from turnout.deploy.environments.store import Environments\n"
            "store = Environments(Path(sys.argv[1]), IndexPolicy((sys.argv[2],), public=False))\n"
            "store.ensure(Requirements(('scores==1.0',)))\n"
        )
        with subprocess.Popen([sys.executable, "-c", script, str(environments.root), index.url]) as builder:
            assert index.came.wait(30)
            builder.kill()
        (digest,) = [entry.name for entry in environments.root.iterdir() if entry.name != ".locks"]
        with alone(environments.root / ".locks" / digest) as lock:
            assert lock is None
        index.go.set()
        store = Environments(environments.root, IndexPolicy((index.url,), public=False))
        assert store.ensure(SCORES).digest == digest
    assert store.entries()[0].packages == {"numpy": "2.4.0", "scores": "1.0"}


def test_a_server_that_ends_takes_its_installer_along(environments: Environments, wheels: Path) -> None:
    """It builds in a thread that nobody waits for."""
    with serving(wheels) as index:
        index.go.clear()
        script = (
            "import sys, threading; from pathlib import Path\n"
            "from turnout.deploy.environments.environment import *\n"
            "from turnout.deploy.environments.store import Environments\n"
            "store = Environments(Path(sys.argv[1]), IndexPolicy((sys.argv[2],), public=False))\n"
            "build = lambda: store.ensure(Requirements(('scores==1.0',)))\n"
            "threading.Thread(target=build, daemon=True).start(); sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", script, str(environments.root), index.url]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as server:
            assert index.came.wait(30)
            server.communicate(timeout=30)
        assert server.returncode == 0
        environments.sweep()
        assert [entry.name for entry in environments.root.iterdir()] == [".locks"]
        index.go.set()


def test_waiting_for_another_is_said_and_can_be_cancelled(environments: Environments) -> None:
    digest = digest_of(SCORES, find_python(), environments.policy)
    said: list[str] = []
    with alone(environments.root / ".locks" / digest), pytest.raises(EnvironmentFailed, match=r"waiting .* cancelled"):
        environments.ensure(SCORES, said.append, lambda: bool(said))
    assert said == [f"waiting for another process that builds the environment {digest}"]


def test_numpy_is_added_where_none_fits_this_python(environments: Environments, wheels: Path) -> None:
    """A marker may leave it out, and a lock may have forgotten it."""
    said: list[str] = []
    old = environments.ensure(Requirements(("old-scores", "numpy<2 ; python_version < '3'")), said.append)
    assert old.packages == {"numpy": "1.23.5", "old-scores": "0.9"}
    make_wheel(wheels, "alone", "1.0")
    locked = f"alone==1.0 --hash=sha256:{sha256(wheels / 'alone-1.0-py3-none-any.whl')}"
    assert environments.ensure(Requirements((locked,)), said.append).packages == {"alone": "1.0", "numpy": "2.4.0"}
    assert said.count("the spec brings no numpy for this Python; adding it") == 1


def test_where_files_are_fixed_by_hash_the_places_make_no_difference(wheels: Path) -> None:
    python = find_python()
    named, other = IndexPolicy(("https://a.example/simple",), public=False), IndexPolicy()
    locked = Requirements((f"numpy==1 --hash=sha256:{'0' * 64}",))
    assert digest_of(locked, python, named) == digest_of(locked, python, other)
    assert digest_of(SCORES, python, named) != digest_of(SCORES, python, other)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.10", r"requirements.txt asks for Python 3\.10, and workers need 3\.11 or newer"),
        ("3.99", r"there is no python3\.99 on PATH"),
        ("3.98", r"python3\.98 is Python 3\."),
        ("3.97", r"the interpreter .*python3\.97 does not run"),
    ],
)
def test_a_python_that_is_not_here(
    version: str, said: str, environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3.98").symlink_to(sys.executable)
    (tmp_path / "bin" / "python3.97").write_text("#!/bin/false\n")
    (tmp_path / "bin" / "python3.97").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentFailed, match=said):
        environments.ensure(Requirements((), version, "requirements.txt"))


def test_one_whose_python_was_uninstalled_is_built_again(environments: Environments) -> None:
    found = environments.ensure(SCORES)
    found.python.unlink()
    assert environments.entries() == []
    assert run(environments.ensure(SCORES), "import scores; print(scores.__version__)") == "1.0"


def test_a_mark_that_was_damaged_is_no_mark(environments: Environments) -> None:
    found = environments.ensure(SCORES)
    (found.path / "turnout-environment.json").write_text("{")
    assert environments.entries() == []
    assert environments.ensure(SCORES).packages["scores"] == "1.0"


def test_the_longest_unused_goes_first_and_none_in_use(environments: Environments) -> None:
    new, old, bare = (environments.ensure(wanted) for wanted in (SCORES, OLD, Requirements(("numpy",))))
    for age, one in enumerate((bare, new, old)):
        os.utime(one.path, (time.time() - age, time.time() - age))
    assert [one.digest for one in environments.entries()] == [bare.digest, new.digest, old.digest]

    assert environments.evict(sum(one.nbytes for one in (new, old, bare))) == []
    with environments.hold(old):
        assert [one.digest for one in environments.evict(1, in_use={bare.digest})] == [new.digest]
        assert not environments.remove(old.digest)
    assert environments.entries()[0].digest == old.digest, "what is let go was used until then"
    assert [one.digest for one in environments.evict(old.nbytes)] == [bare.digest]
    assert environments.remove(old.digest)
    assert environments.entries() == []


def test_a_hold_ends_with_its_process(environments: Environments) -> None:
    found = environments.ensure(SCORES)
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from turnout.deploy.environments.environment import Requirements\n"
        "from turnout.deploy.environments.store import Environments\n"
        "store = Environments(Path(sys.argv[1]))\n"
        "hold = store.hold(store.entries()[0]); print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(environments.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not environments.remove(found.digest)
        holder.kill()
        holder.wait()
    assert environments.remove(found.digest)


def test_what_was_removed_cannot_be_held(environments: Environments) -> None:
    found = environments.ensure(SCORES)
    environments.remove(found.digest)
    with pytest.raises(EnvironmentFailed, match="was removed; ask for it again"):
        environments.hold(found)
    with pytest.raises(EnvironmentFailed, match="there is no environment"):
        environments.remove(found.digest)
    with pytest.raises(EnvironmentFailed, match="there is no environment"):
        environments.remove("../../etc")


def test_a_place_that_cannot_be_written_says_so(wheels: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Environments(tmp_path / "file" / "inside", IndexPolicy(wheels=(wheels,), offline=True))
    with pytest.raises(EnvironmentFailed, match=r"cannot be built in .*Not a directory; .* set TURNOUT_HOME"):
        store.ensure(SCORES)
