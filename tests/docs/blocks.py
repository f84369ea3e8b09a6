"""Code blocks of a page, and a reader who types them in: one directory, one server, what is printed is compared.

A comment above a fence says what the reader does with it:

- `<!-- run -->`: types the commands, each after `$ `, and expects the lines below them; `...` stands for anything.
- `<!-- run: NAME.py -->`: saves the block under that name and runs it; `print(...)  # text` says what it prints.
- `<!-- file: NAME -->`: saves the block.
- `<!-- output -->`: what the block before has printed.
- `<!-- server -->`: types the command and leaves it running; the lines below are what it prints until it is ready.
- `<!-- interrupt -->`: presses Ctrl-C there; after `^C` stands what it prints then.
- `<!-- not run: REASON -->`: only reads.

The ports 8080 and 8081 of the pages are free ones here.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PYTHON = Path(sys.executable)
_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
_ADDRESS = re.compile(r"(localhost|127\.0\.0\.1):(\d+)")
_AT_SERVER = re.compile(
    r"\b(turnout (?:status|versions|load|unload|label|apply|plan|undo|traffic|rollout|explain|history|watch|shadow"
    r"|token)(?=[ )\"]|$))(?![^|;&)]*--url)",
    re.MULTILINE,
)
_SECONDS = 60.0


class Block(NamedTuple):
    """One fenced block and the mark above it, "" where there is none."""

    line: int
    mark: str
    language: str
    text: str


class Command(NamedTuple):
    """What is typed after `$ `, and the lines below it."""

    typed: str
    expected: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page in their order."""
    for found in _FENCE.finditer(page):
        line = page.count("\n", 0, found.start("language")) + 1
        yield Block(line, found["mark"] or "", found["language"], found["text"])


def commands(text: str) -> list[Command]:
    """The commands of a console block; a line that ends in a backslash goes on in the next."""
    found: list[Command] = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        typed, lines = "", part.splitlines()
        while lines:
            typed += lines.pop(0)
            if not typed.endswith("\\"):
                break
            typed += "\n"
        found.append(Command(typed, "\n".join(lines)))
    return found


def fits(expected: str, printed: str) -> bool:
    """Whether what was printed is what the page says, where `...` stands for anything."""
    lines = []
    for line in expected.strip("\n").splitlines():
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(r".*?".join(map(re.escape, line.rstrip().split("..."))) + r"[ \t]*\n")
    return re.fullmatch("".join(lines), printed.strip("\n") + "\n") is not None


class Reader:
    """Follows a page in a directory of its own. `close` ends the server that it may have left running."""

    def __init__(self, name: str, place: Path) -> None:
        self._name = name
        self._place = place
        self._ports: dict[str, str] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._server_log = place / ".server.log"
        self._home = tempfile.mkdtemp(prefix="turnout-")  # short, for a socket's path is
        self._environment = os.environ | {
            "TURNOUT_HOME": self._home,  # or revisions would not begin with the first
            "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "80",
            "OMP_NUM_THREADS": "1",  # tiny models: threads would only wait for each other
        }
        self._printed = ""

    def follow(self, block: Block) -> None:
        """Does what the mark says. Raises AssertionError with the page, the line and both texts."""
        kind, _, argument = block.mark.partition(": ")
        if kind == "file" or argument.endswith(".py"):
            (self._place / argument).write_text(self._real(block.text))
        if kind == "run" and argument:
            self._printed = self._do(f"python {argument}", block)
            if printed := _PRINTED.findall(block.text):
                self._compare("\n".join(printed), self._printed, block)
        elif kind == "run":
            for command in commands(block.text):
                self._printed = self._do(command.typed, block, fails=command.expected.startswith("turnout: "))
                if command.expected:
                    self._compare(command.expected, self._printed, block, command.typed)
        elif kind == "output":
            self._compare(block.text, self._printed, block)
        elif kind == "server":
            self._serve(block)
        elif kind == "interrupt":
            self._interrupt(block)

    def close(self) -> None:
        """Ends the server, if one is running."""
        if self._server is not None and self._server.poll() is None:
            self._server.terminate()
            try:
                self._server.wait(_SECONDS)
            finally:
                self._server.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _do(self, typed: str, block: Block, *, fails: bool = False) -> str:
        ended = subprocess.run(
            ["bash", "-c", self._real(typed)],
            cwd=self._place,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        printed = self._shown(ended.stdout)
        assert (ended.returncode != 0) is fails, (
            f"{self._at(block)}: {typed}\nended with {ended.returncode}:\n{printed}"
        )
        return printed

    def _serve(self, block: Block) -> None:
        (command,) = commands(block.text)
        typed = re.sub(r" --(grpc-)?port \d+", "", command.typed).removesuffix(" &") + " --port 0 --grpc-port 0"
        with self._server_log.open("wb") as log:
            self._server = subprocess.Popen(
                ["bash", "-c", f"exec {typed}"],
                cwd=self._place,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + _SECONDS
        while "Ctrl-C stops it." not in self._server_log.read_text():
            assert self._server.poll() is None, f"{self._at(block)}: it ended\n{self._server_log.read_text()}"
            assert time.monotonic() < end, f"{self._at(block)}: not ready\n{self._server_log.read_text()}"
            time.sleep(0.05)
        log_text = self._server_log.read_text()
        for named, pattern in (("8080", r"REST +http://127\.0\.0\.1:(\d+)"), ("8081", r"gRPC +127\.0\.0\.1:(\d+)")):
            found = re.search(pattern, log_text)
            assert found, log_text
            self._ports[named] = found[1]
        if command.expected:
            self._compare(command.expected, self._shown(log_text), block, typed)

    def _interrupt(self, block: Block) -> None:
        assert self._server is not None, f"{self._at(block)}: nothing is running"
        before = len(self._server_log.read_text())
        self._server.send_signal(signal.SIGINT)
        code = self._server.wait(_SECONDS)
        printed = self._shown(self._server_log.read_text()[before:])
        assert code == 0, f"{self._at(block)}: ended with {code}\n{printed}"
        self._compare(block.text.removeprefix("^C"), printed, block)

    def _real(self, text: str) -> str:
        """The text with the ports that the server really has."""
        if "8080" in self._ports:
            text = _AT_SERVER.sub(rf"\1 --url http://127.0.0.1:{self._ports['8080']}", text)
        return _ADDRESS.sub(lambda found: f"{found[1]}:{self._ports.get(found[2], found[2])}", text)

    def _shown(self, text: str) -> str:
        """What was printed, with the ports that the page has."""
        named = {real: port for port, real in self._ports.items()}
        return _ADDRESS.sub(lambda found: f"{found[1]}:{named.get(found[2], found[2])}", text)

    def _at(self, block: Block) -> str:
        return f"{self._name}:{block.line}"

    def _compare(self, expected: str, printed: str, block: Block, typed: str = "") -> None:
        assert fits(expected, printed), (
            f"{self._at(block)}: {typed}\n--- the page says\n{expected.strip()}\n--- it printed\n{printed.strip()}"
        )
