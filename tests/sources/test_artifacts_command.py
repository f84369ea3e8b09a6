"""`turnout pull` and `turnout cache`, as they are typed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from turnout.core.errors import SourceFailed
from turnout.entrypoints import artifacts


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TURNOUT_HOME", str(tmp_path / "home"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_bytes(b"x")
    return tmp_path / "model"


def typed(*words: str) -> int:
    parser = argparse.ArgumentParser()
    artifacts.words(parser.add_subparsers(dest="verb", required=True))
    return artifacts.run(parser.parse_args(words))


def test_pull_list_verify_remove(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed("cache", "list") == 0
    assert capsys.readouterr().out.startswith("no artifacts in ")
    assert typed("pull", f"file://{place}", f"file://{place}/MLmodel") == 0
    out = capsys.readouterr().out.splitlines()
    digest, _, path = out[0].partition("  ")
    assert (Path(path) / "MLmodel").read_bytes() == b"x"
    assert out[1] == f"{digest}  {path}/MLmodel", "the same content, and the file itself"
    assert typed("pull", "--json", f"file://{place}") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["digest"], told["path"], told["from_cache"], told["nbytes"]) == (digest, path, True, 1)
    assert typed("cache", "list") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "DIGEST"
    assert row.startswith(digest[7:23])
    assert row.endswith(f"file://{place}")
    assert typed("cache", "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["digest"] == digest
    assert typed("cache", "verify") == 0
    assert "whole: 1 files, 1 bytes" in capsys.readouterr().out
    with pytest.raises(SourceFailed, match="in use by a running process"):
        typed("cache", "remove", digest)


def test_damage_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed("pull", f"file://{place}")
    digest, _, path = capsys.readouterr().out.strip().partition("  ")
    file = Path(path) / "MLmodel"
    file.chmod(0o644)
    file.write_bytes(b"y")
    assert typed("cache", "verify", digest[7:15]) == 1
    assert "damaged" in capsys.readouterr().out
    with pytest.raises(SourceFailed, match="no artifact whose digest begins with 'fff"):
        typed("cache", "verify", "fffffffff")
    with pytest.raises(SourceFailed, match="no place that artifacts come from"):
        typed("pull", "ftp://h/p")
