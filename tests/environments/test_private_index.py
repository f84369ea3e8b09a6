"""Packages come from where the operator says, whatever the host, the model or the installer would like."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments.index import Index, serving
from tests.environments.wheels import make_wheel, sha256
from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments import build
from turnout.deploy.environments.environment import IndexPolicy, Requirements
from turnout.deploy.environments.host import host_settings
from turnout.deploy.environments.installers import Pip, find_installer
from turnout.deploy.environments.store import Environments

ROOT = Path(__file__).parents[2]
VERSIONS = {"numpy": "2.4.0", "scores": "1.0"}
SCORES = Requirements(("scores",))


@pytest.fixture(params=["uv", pytest.param("pip", marks=pytest.mark.slow)])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pip":
        monkeypatch.setattr(build, "find_installer", lambda: Pip(sys.executable))
    assert build.find_installer().name == request.param
    return str(request.param)


@pytest.fixture
def private(wheels: Path) -> Iterator[Index]:
    with serving(wheels) as index:
        yield index


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index that nobody named, with a higher version of everything, to which this host's settings all point."""
    folder = tmp_path / "public"
    for name in ("numpy", "scores", "only-public"):
        make_wheel(folder, name, "99.0")
    with serving(folder) as index:
        for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"):
            monkeypatch.setenv(name, index.url)
        for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
            monkeypatch.setenv(name, str(folder))
        configured = tmp_path / "configured"
        (configured / "uv").mkdir(parents=True)
        (configured / "uv" / "uv.toml").write_text(f'index-url = "{index.url}"\nfind-links = ["{folder}"]\n')
        (configured / "pip").mkdir()
        (configured / "pip" / "pip.conf").write_text(f"[global]\nextra-index-url = {index.url}\n")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(configured))
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
        host_settings.cache_clear()
        yield index
        host_settings.cache_clear()


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """Where everything goes that is not for this machine: it records, and answers nothing."""
    with serving(None) as recorder:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, recorder.address)
            monkeypatch.setenv(name.lower(), recorder.address)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        monkeypatch.setenv("PIP_RETRIES", "0")
        yield recorder


def only(index: Index) -> IndexPolicy:
    return IndexPolicy(index_urls=(index.url,), public=False)


@pytest.mark.usefixtures("installer")
def test_only_the_named_index_is_asked(private: Index, public: Index, elsewhere: Index, tmp_path: Path) -> None:
    store = Environments(tmp_path / "environments", only(private))
    assert store.ensure(SCORES).packages == VERSIONS
    with pytest.raises(EnvironmentFailed, match=r"only.public"):
        store.ensure(Requirements(("only-public",)))
    assert {path for path in private.asked if "simple" in path} >= {"/simple/scores/", "/simple/only-public/"}
    assert public.asked == []
    assert elsewhere.asked == []


def test_a_folder_of_wheels_is_enough(wheels: Path, public: Index, elsewhere: Index, tmp_path: Path) -> None:
    for policy in (IndexPolicy(wheels=(wheels,), offline=True), IndexPolicy(wheels=(wheels,), public=False)):
        store = Environments(tmp_path / "environments", policy)
        assert store.ensure(SCORES).packages == VERSIONS
    assert public.asked == elsewhere.asked == []


def test_offline_asks_no_index_that_is_named(private: Index, wheels: Path, public: Index, tmp_path: Path) -> None:
    policy = IndexPolicy(index_urls=(private.url,), wheels=(wheels,), offline=True)
    assert Environments(tmp_path / "environments", policy).ensure(SCORES).packages["scores"] == "1.0"
    assert private.asked == public.asked == []


@pytest.mark.usefixtures("public")
def test_the_recorder_would_see_the_public_index(
    private: Index, elsewhere: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the public one allowed it is asked, last: the proof that the others prove something."""
    assert find_installer().name == "uv"
    monkeypatch.delenv("PIP_INDEX_URL")
    host_settings.cache_clear()
    store = Environments(tmp_path / "environments", IndexPolicy(index_urls=(private.url,)))
    with pytest.raises(EnvironmentFailed):
        store.ensure(Requirements(("only-public",)))
    assert any(asked.startswith("CONNECT ") for asked in elsewhere.asked), elsewhere.asked


@pytest.mark.usefixtures("public")
def test_in_a_network_of_its_own_nothing_else_is_needed(wheels: Path, tmp_path: Path) -> None:
    """No route out of the machine and no name service; every address that is tried is seen by the kernel."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    command = [unshare, "-rn", sys.executable, "-m", "tests.environments.alone", str(wheels), str(tmp_path / "built")]
    strace = shutil.which("strace")
    if strace and subprocess.run([strace, "-o", "/dev/null", "true"], check=False).returncode == 0:
        command[2:2] = [strace, "-f", "-qq", "-e", "trace=connect", "-o", str(tmp_path / "connects")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.splitlines()[-1])
    assert said["packages"] == VERSIONS
    assert "only-public" in said["refused"]
    if (tmp_path / "connects").exists():
        tried = [line for line in (tmp_path / "connects").read_text().splitlines() if "sin_port" in line]
        assert tried
        assert [line for line in tried if f"htons({said['port']})" not in line] == []


def test_indexes_are_asked_in_their_order(private: Index, public: Index, tmp_path: Path) -> None:
    """A package of the first index is never taken from the second, however high its version there."""
    policy = IndexPolicy(index_urls=(private.url, public.url), public=False)
    store = Environments(tmp_path / "environments", policy)
    assert store.ensure(Requirements(("scores", "only-public"))).packages == {
        "numpy": "2.4.0",
        "scores": "1.0",
        "only-public": "99.0",
    }


def test_pip_refuses_to_mix_indexes(private: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "find_installer", lambda: Pip(sys.executable))
    for policy in (IndexPolicy((private.url, private.url), public=False), IndexPolicy((private.url,))):
        with pytest.raises(EnvironmentFailed, match="cannot ask several indexes in order; install uv"):
            Environments(tmp_path / "environments", policy).ensure(SCORES)


@pytest.mark.usefixtures("installer", "public")
def test_a_password_is_used_and_never_shown(wheels: Path, tmp_path: Path) -> None:
    with serving(wheels, "reader", "s3cret-word") as index:
        said: list[str] = []
        store = Environments(tmp_path / "environments", only(index))
        assert store.ensure(SCORES, said.append).packages["scores"] == "1.0"
        with pytest.raises(EnvironmentFailed) as failed:
            store.ensure(Requirements(("nosuch",)), said.append)
        wrong = Environments(tmp_path / "environments", IndexPolicy((index.url.replace("s3", "s4"),), public=False))
        with pytest.raises(EnvironmentFailed) as refused:
            wrong.ensure(SCORES, said.append)
    for text in (*said, failed.value.message, refused.value.message):
        assert "cret-word" not in text
    assert not [path for path in store.root.rglob("*.json") if "cret-word" in path.read_text()]


@pytest.mark.usefixtures("installer", "public")
def test_hashes_are_held_to(private: Index, wheels: Path, tmp_path: Path) -> None:
    right = {name: sha256(next(wheels.glob(f"{name}-*.whl"))) for name in ("scores", ["numpy", "2.4.0"][0])}
    right["numpy"] = sha256(wheels / "numpy-2.4.0-py3-none-any.whl")
    lines = (f"numpy==2.4.0 --hash=sha256:{right['numpy']}", f"scores==1.0 --hash=sha256:{right['scores']}")
    store = Environments(tmp_path / "environments", IndexPolicy((private.url,), public=False, require_hashes=True))
    assert store.ensure(Requirements(lines)).packages == VERSIONS
    wrong = (lines[0], f"scores==1.0 --hash=sha256:{'0' * 64}")
    with pytest.raises(EnvironmentFailed, match=r"(?i)hash"):
        store.ensure(Requirements(wrong))
    assert len(store.entries()) == 1


@pytest.mark.usefixtures("installer", "public")
def test_source_is_not_built_unless_allowed(tmp_path: Path) -> None:
    """A source package runs its own code when it is built."""
    folder = tmp_path / "sources"
    make_wheel(folder, "numpy", "2.0")
    (tmp_path / "evil-1.0").mkdir()
    (tmp_path / "evil-1.0" / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (tmp_path / "evil-1.0" / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    subprocess.run(["tar", "czf", folder / "evil-1.0.tar.gz", "-C", tmp_path, "evil-1.0"], check=True)
    store = Environments(tmp_path / "environments", IndexPolicy(wheels=(folder,), offline=True))
    with pytest.raises(EnvironmentFailed, match="evil"):
        store.ensure(Requirements(("evil",)))
    assert not (tmp_path / "ran").exists()


def test_an_index_that_is_down_says_so(public: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(None) as index:
        down = index.url
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(EnvironmentFailed, match=r"127\.0\.0\.1"):
        Environments(tmp_path / "environments", IndexPolicy((down,), public=False)).ensure(SCORES)
    assert public.asked == []
