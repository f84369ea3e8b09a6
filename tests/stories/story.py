"""Runs a story: a readable text file of commands, files and what is to be seen.

# what it is about, for people
file rows.csv               the indented lines below become the file's content
    a,b
    1,2
$ command                   runs in a shell, in the story's own empty folder; indented lines are its output
    exact text, with ... for anything within a line
    ...                     alone on a line: any number of lines
exit 3                      after an output: the exit code, where it is not 0
start command               runs on in the background until `stop` or the end of the story
    ready when a line of its output matches these lines; (NAME) keeps what stands there as $NAME
stop                        SIGTERM to what was started; indented lines and `exit` as for a command
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 30.0
_STEP = re.compile(r"(\$|file|start|stop|exit)(?:\s+(.*))?$")


@dataclass
class Step:
    """One line that is not indented, and the indented ones below it."""

    line: int
    verb: str
    words: str
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()


def parse(text: str) -> list[Step]:
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or (not line.strip() and not (steps and steps[-1].lines)):
            continue
        if line.startswith("    ") or not line.strip():
            if not steps:
                raise ValueError(f"line {number}: indented, but under nothing")
            steps[-1].lines.append(line[4:])
            continue
        found = _STEP.match(line)
        if found is None:
            raise ValueError(f"line {number}: not a step: {line!r}")
        steps.append(Step(number, found[1], found[2] or ""))
    return steps


def matches(wanted: str, got: str) -> re.Match[str] | None:
    """Whether the text is as wanted, with `...` for anything and (NAME) for what is to be kept."""
    parts = []
    for line in wanted.splitlines():
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        pieces = re.split(r"(\.\.\.|\([A-Z]+\))", line.rstrip())
        for piece in pieces:
            if piece == "...":
                parts.append(".*?")
            elif re.fullmatch(r"\([A-Z]+\)", piece):
                parts.append(f"(?P<{piece[1:-1]}>\\S+?)")
            else:
                parts.append(re.escape(piece))
        parts.append(r"[ \t]*\n")
    cleaned = "".join(line.rstrip() + "\n" for line in got.strip("\n").splitlines())
    return re.fullmatch("".join(parts), cleaned)


class Story:
    """Runs the steps of one file in a folder of its own."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._folder = folder
        self._background: subprocess.Popen[bytes] | None = None
        self._environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._log = folder / ".background"

    def run(self) -> None:
        """Raises AssertionError with the line of the story that did not come true."""
        try:
            steps = parse(self._path.read_text())
            for step, code in _with_exit(steps):
                self._do(step, code)
        finally:
            if self._background is not None and self._background.poll() is None:
                self._background.send_signal(signal.SIGTERM)
                try:
                    self._background.wait(10.0)
                except subprocess.TimeoutExpired:
                    self._background.kill()
                    self._background.wait()

    def _do(self, step: Step, code: int) -> None:
        if step.verb == "file":
            target = self._folder / step.words
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(step.text + "\n")
        elif step.verb == "$":
            done = subprocess.run(
                step.words,
                shell=True,
                cwd=self._folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=PATIENCE,
                check=False,
            )
            self._check(step, done.stdout.decode(errors="replace"), done.returncode, code)
        elif step.verb == "start":
            self._start(step)
        else:
            self._stop(step, code)

    def _check(self, step: Step, output: str, got: int, wanted: int) -> None:
        where = f"{self._path.name}, line {step.line}: {step.verb} {step.words}"
        assert got == wanted, f"{where}\nexit code {got}, not {wanted}\n{output}"
        found = matches(step.text, output)
        assert found is not None, f"{where}\n--- wanted\n{step.text}\n--- got\n{output}"
        self._environment |= found.groupdict()

    def _start(self, step: Step) -> None:
        with self._log.open("wb") as out:
            self._background = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {step.words}"],
                cwd=self._folder,
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._background.poll() is None:
            found = matches(step.text, self._log.read_text(errors="replace"))
            if found is not None:
                self._environment |= found.groupdict()
                return
            time.sleep(0.02)
        place = f"{self._path.name}, line {step.line}: {step.words}"
        raise AssertionError(f"{place}\n--- wanted\n{step.text}\n--- got\n{self._log.read_text()}")

    def _stop(self, step: Step, code: int) -> None:
        assert self._background is not None, f"line {step.line}: nothing was started"
        before = len(self._log.read_bytes())
        self._background.send_signal(signal.SIGTERM)
        got = self._background.wait(PATIENCE)
        self._check(step, self._log.read_bytes()[before:].decode(errors="replace"), got, code)
        self._background = None


def _with_exit(steps: list[Step]) -> Iterator[tuple[Step, int]]:
    for step, following in zip(steps, [*steps[1:], Step(0, "", "")], strict=True):
        if step.verb != "exit":
            yield step, int(following.words) if following.verb == "exit" else 0
