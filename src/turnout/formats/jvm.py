"""The Java machine inside this process: started once, with a bounded heap, for the formats whose scorers are Java.

It lives in the process that asked for it and ends with it: there is no second process to be left behind.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from turnout.core.errors import Failure, LoadFailed
from turnout.formats.refusals import library

_MIB = 1 << 20
_LEAST_HEAP, _HEAP_PER_BYTE = 256 * _MIB, 12
_lock = threading.Lock()


def java(jars: Sequence[Path], artifact_bytes: int, threads: int, what: str) -> Any:
    """The `jpype` module with a running machine that has these jars.

    The heap is measured by the first artifact (bytes) and by the machine's memory; later ones share it. Raises
    MissingExtra or LoadFailed, with what to install.
    """
    jpype = library("jpype", what)
    with _lock:
        if jpype.isJVMStarted():
            for jar in jars:
                jpype.addClassPath(str(jar))
            return jpype
        try:
            machine = jpype.getDefaultJVMPath()
        except jpype.JVMNotFoundException:
            raise LoadFailed(
                f"{what} needs Java 17 or newer, which was not found. Install it (apt-get install "
                "default-jre-headless), or set JAVA_HOME to where it is"
            ) from None
        try:
            jpype.startJVM(
                machine,
                f"-Xmx{_heap(artifact_bytes) // _MIB}m",
                f"-XX:ActiveProcessorCount={threads}",
                "-XX:+UseSerialGC",
                "-Xrs",  # signals are the worker's matter
                "-XX:-UsePerfData",  # no files in /tmp
                "-XX:+ErrorFileToStderr",
                "-Djava.awt.headless=true",
                classpath=[str(jar) for jar in jars],
                convertStrings=False,
            )
        except (OSError, RuntimeError) as problem:
            raise LoadFailed(f"{what}: Java at {machine} could not be started ({problem})") from problem
    return jpype


def _heap(artifact_bytes: int) -> int:
    """Bytes for the heap: some times the artifact, which Java unpacks into objects, but at most half the memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(max(_LEAST_HEAP, _HEAP_PER_BYTE * artifact_bytes), memory // 2)


@contextmanager
def reading(jpype: Any, label: str, kind: str) -> Iterator[None]:
    """Turns what Java throws on a broken file into LoadFailed with Java's own words."""
    try:
        yield
    except Failure:
        raise
    except jpype.JException as problem:
        name = str(problem.getClass().getSimpleName())
        if name == "OutOfMemoryError":
            raise LoadFailed(f"{label}: {kind} does not fit into Java's heap, or is damaged") from None
        said = " ".join(str(problem.getMessage() or "").split())[:300]
        raise LoadFailed(f"{label}: {kind} could not be loaded ({name}: {said})") from None
