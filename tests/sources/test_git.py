"""Repositories on this machine, read as those elsewhere are."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from turnout.core.errors import LoadFailed, SourceFailed
from turnout.deploy.sources import source_of
from turnout.deploy.sources.cache import ArtifactCache
from turnout.deploy.sources.source import SourceSettings


class Repository:
    """A repository with one commit on the branch `main`, of which the tag `v1` is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")
        (path / "models" / "iris").mkdir(parents=True)
        (path / "models" / "iris" / "a.txt").write_bytes(b"line\n")
        (path / "models" / "one.onnx").write_bytes(b"\x08\x01")
        (path / ".gitattributes").write_text("*.txt text eol=crlf filter=evil export-ignore\n")
        self.commit()
        self.git("tag", "-a", "v1", "-m", "v1")
        self.first = self.git("rev-parse", "HEAD")

    def git(self, *words: str) -> str:
        environment = {
            **os.environ,
            **{f"GIT_{who}_{what}": "t@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            "GIT_CONFIG_GLOBAL": os.devnull,
        }
        command = ["git", "-C", str(self.path), "-c", "protocol.file.allow=always", *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change")
        return self.git("rev-parse", "HEAD")

    @property
    def uri(self) -> str:
        return f"git+file://{self.path}"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.mark.parametrize("ref", ["", "@main", "@v1", "@refs/heads/main", "@HEAD", "@COMMIT"])
def test_what_a_ref_stands_for(repository: Repository, cache: ArtifactCache, quick: SourceSettings, ref: str) -> None:
    uri = repository.uri + ref.replace("COMMIT", repository.first) + "#subdirectory=models/iris"
    fetched = cache.fetch(uri, quick)
    assert fetched.pinned.version == repository.first
    assert fetched.pinned.pinned == f"{repository.uri}@{repository.first}#subdirectory=models%2Firis"
    assert [path.name for path in fetched.path.iterdir()] == ["a.txt"]
    assert (fetched.path / "a.txt").read_bytes() == b"line\n", "as it was stored: attributes have no say"


def test_the_whole_repository_and_one_file_of_it(
    repository: Repository, cache: ArtifactCache, quick: SourceSettings
) -> None:
    whole = cache.fetch(repository.uri, quick)
    assert [file.name for file in whole.manifest.files] == [".gitattributes", "models/iris/a.txt", "models/one.onnx"]
    one = cache.fetch(f"{repository.uri}#subdirectory=models/one.onnx", quick)
    assert [file.name for file in one.manifest.files] == ["one.onnx"]


def test_a_branch_moves_and_a_tag_stays(repository: Repository, cache: ArtifactCache, quick: SourceSettings) -> None:
    before = cache.fetch(f"{repository.uri}@main", quick)
    (repository.path / "models" / "new").write_bytes(b"n")
    second = repository.commit()
    after = cache.fetch(f"{repository.uri}@main", quick)
    assert (before.pinned.version, after.pinned.version) == (repository.first, second)
    assert cache.fetch(f"{repository.uri}@v1", quick).digest == before.digest
    assert cache.fetch(f"{repository.uri}@v1", quick).from_cache


def test_a_pinned_commit_that_is_no_longer_a_tip(
    repository: Repository, cache: ArtifactCache, quick: SourceSettings
) -> None:
    (repository.path / "models" / "new").write_bytes(b"n")
    repository.commit()
    assert cache.fetch(f"{repository.uri}@{repository.first}", quick).pinned.version == repository.first


def test_nothing_of_a_repository_is_run(
    repository: Repository, cache: ArtifactCache, quick: SourceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    config = tmp_path / "gitconfig"  # as the user's own may be, with LFS, say
    config.write_text(
        f'[filter "evil"]\nsmudge = touch {ran}; cat\nprocess = touch {ran}\n[core]\nhooksPath = {tmp_path / "hooks"}\n'
    )
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-merge", "pre-auto-gc"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (hooks / name).chmod(0o755)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    cache.fetch(repository.uri, quick)
    assert not ran.exists()


def test_links_lfs_pointers_and_submodules(
    repository: Repository, cache: ArtifactCache, quick: SourceSettings, tmp_path: Path
) -> None:
    other = Repository(tmp_path / "other")
    repository.git("submodule", "--quiet", "add", str(other.path), "sub")
    repository.commit()
    assert not any(file.name.startswith("sub/") for file in cache.fetch(repository.uri, quick).manifest.files)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
    (repository.path / "models" / "iris" / "big.bin").write_bytes(pointer)
    repository.commit()
    with pytest.raises(SourceFailed, match="pointer of Git LFS"):
        cache.fetch(repository.uri, quick)
    (repository.path / "models" / "iris" / "big.bin").unlink()
    (repository.path / "models" / "iris" / "link").symlink_to("/etc/passwd")
    repository.commit()
    with pytest.raises(SourceFailed, match="symbolic link"):
        cache.fetch(repository.uri, quick)
    assert len(cache.entries()) == 1


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("@no-such-branch", "no branch or tag 'no-such-branch'"),
        ("@-b", "no name of a branch"),
        ("@--upload-pack=touch /tmp/x", "no name of a branch"),
        ("@" + "0" * 40, "failed"),
        ("@main#subdirectory=nowhere", "no file 'nowhere'"),
        ("@main#subdirectory=../x", "no path inside"),
        ("@main#subdirectory=-x", "no file '-x'"),
        ("@main#branch=x", "means nothing"),
    ],
)
def test_what_is_not_there_or_meant_ill(
    repository: Repository, cache: ArtifactCache, quick: SourceSettings, end: str, said: str
) -> None:
    with pytest.raises(SourceFailed, match=said) as failed:
        cache.fetch(repository.uri + end, quick)
    assert not failed.value.retryable
    assert not cache.entries()


@pytest.mark.parametrize(
    "uri",
    [
        "git+ssh://-oProxyCommand=touch%20x/repo",
        "git+ssh://git@-oProxyCommand=x/repo",
        "git+https://user:password@example.com/repo",
        "git+file:///no/such/place/at/all",
        "git+https://",
        "git+https://127.0.0.1/repo",
        "git+https://169.254.169.254/repo",
    ],
)
def test_addresses_that_are_none(cache: ArtifactCache, quick: SourceSettings, uri: str) -> None:
    with pytest.raises(LoadFailed):
        cache.fetch(uri, quick)
    assert not cache.entries()


def test_a_host_that_is_down_is_asked_again(cache: ArtifactCache, quick: SourceSettings) -> None:
    told: list[str] = []
    with pytest.raises(SourceFailed) as failed:
        cache.fetch(
            "git+https://127.0.0.1:1/repo",
            replace(quick, allowed_hosts=("127.0.0.1",)),
            lambda what, done, total: told.append(what),
        )
    assert failed.value.retryable
    assert len(told) == quick.attempts - 1


def test_too_large_a_repository(repository: Repository, cache: ArtifactCache, quick: SourceSettings) -> None:
    with pytest.raises(SourceFailed, match="max_artifact_bytes"):
        cache.fetch(repository.uri, replace(quick, max_artifact_bytes=10))


def test_git_is_the_source_of_its_schemes() -> None:
    for scheme in ("git+https", "git+ssh", "git+file"):
        source = source_of(f"{scheme}://h/p")
        assert source is not None
        assert source.name == "git"
    with pytest.raises(SourceFailed, match="known are"):
        source_of("git+http://h/p")
