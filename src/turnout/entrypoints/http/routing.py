"""Which route a method and a path lead to. Paths are taken apart first and percent-decoded once, segment by
segment, so an encoded slash stays inside its name and `..` is only a name that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from turnout.entrypoints.http.responses import refusal
from turnout.entrypoints.http.syntax import Refusal, shown
from turnout.protocols.http import HttpResponse, RestProtocol, Route

_PARAMETER = re.compile(r"\{(name|version)\}([^{}]*)")
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NEAR = 3
_COMPARED_SEGMENTS = 12


class Found(NamedTuple):
    """A route with what stood in its path."""

    route: Route
    protocol: RestProtocol
    name: str = ""
    version: str = ""


class _Node:
    """One place in the tree of paths: fixed segments by their text, `{name}` and `{version}` by what follows them."""

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.parameters: list[tuple[str, str, _Node]] = []
        self.routes: dict[str, tuple[Route, RestProtocol]] = {}

    def child(self, segment: str) -> _Node:
        """The node below, made where there is none."""
        match = _PARAMETER.fullmatch(segment)
        if match is None:
            return self.fixed.setdefault(segment, _Node())
        kind, suffix = match[1], match[2]
        for known_kind, known_suffix, node in self.parameters:
            if (known_kind, known_suffix) == (kind, suffix):
                return node
        node = _Node()
        self.parameters.append((kind, suffix, node))
        self.parameters.sort(key=lambda parameter: -len(parameter[1]))  # `{name}:predict` before `{name}`
        return node

    def matches(self, segments: Sequence[str], at: int, name: str, version: str) -> Iterator[tuple[_Node, str, str]]:
        """Every place that the segments lead to, the most exact first."""
        if at == len(segments):
            if self.routes:
                yield self, name, version
            return
        segment = segments[at]
        fixed = self.fixed.get(segment)
        if fixed is not None:
            yield from fixed.matches(segments, at + 1, name, version)
        for kind, suffix, node in self.parameters:
            if not segment.endswith(suffix) or len(segment) == len(suffix):
                continue
            value = segment[: len(segment) - len(suffix)]
            if kind == "name":
                yield from node.matches(segments, at + 1, value, version)
            else:
                yield from node.matches(segments, at + 1, name, value)


class Routes:
    """All routes of a door. Raises ValueError where two protocols claim the same method and pattern."""

    def __init__(self, protocols: Sequence[RestProtocol]) -> None:
        self._root = _Node()
        self._patterns: list[tuple[str, list[str]]] = []
        methods = {route.method for protocol in protocols for route in protocol.routes()}
        #: Every method that some path allows, for `OPTIONS *`.
        self.methods = ", ".join(sorted(methods | {"HEAD", "OPTIONS"}))
        for protocol in protocols:
            for route in protocol.routes():
                self._add(route, protocol)
        #: Found once for each short path: heads differ more than paths do.
        self.find = lru_cache(maxsize=1024)(self._find)

    def _add(self, route: Route, protocol: RestProtocol) -> None:
        if (route.codec is None) == (route.answer is None):
            raise ValueError(f"{route.method} {route.pattern}: a route has either a codec or an answer")
        node = self._root
        segments = route.pattern.split("/")[1:]
        for segment in segments:
            node = node.child(segment)
        if route.method in node.routes:
            other = node.routes[route.method][1].name
            raise ValueError(f"{route.method} {route.pattern}: claimed by {other!r} and {protocol.name!r}")
        node.routes[route.method] = (route, protocol)
        if route.pattern not in (pattern for pattern, _ in self._patterns):
            self._patterns.append((route.pattern, segments))

    def _find(self, method: str, path: str) -> tuple[str, Found | HttpResponse]:
        """The decoded path, and where it leads or why it leads nowhere. Raises Refusal for a malformed path."""
        segments = decoded_segments(path)
        allowed: set[str] = set()
        for node, name, version in self._root.matches(segments, 1, "", ""):
            hit = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
            if hit is not None:
                return "/".join(segments), Found(hit[0], hit[1], name, version)
            allowed.update(node.routes)
        plain = "/".join(segments)
        if not allowed:
            return plain, self._unknown(plain, segments)
        if "GET" in allowed:
            allowed.add("HEAD")
        allow = ", ".join(sorted({*allowed, "OPTIONS"}))
        if method == "OPTIONS":
            return plain, HttpResponse(200, "text/plain", b"", (("Allow", allow),))
        return plain, refusal(405, f"{method} is not allowed for {plain}; expected one of {allow}", (("Allow", allow),))

    def _unknown(self, plain: str, segments: Sequence[str]) -> HttpResponse:
        near = self._near(segments[1:])
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return refusal(404, f"no such path: {plain[:200]}{hint}")

    def _near(self, segments: Sequence[str]) -> list[str]:
        """The patterns that share most with the path. Cheap on purpose: anybody can ask for paths that are not."""
        scored: list[tuple[float, str]] = []
        for pattern, wanted in self._patterns:
            shared = 0.0
            for have, want in zip(segments[:_COMPARED_SEGMENTS], wanted, strict=False):
                if have == want:
                    shared += 1.0
                elif "{" in want:
                    shared += 0.5
            shared -= 0.25 * abs(len(segments) - len(wanted))
            if shared >= 1.0:
                scored.append((shared, pattern))
        scored.sort(key=lambda score: -score[0])
        return [pattern for _, pattern in scored[:_NEAR]]


def decoded_segments(path: str) -> list[str]:
    """The path's segments, each percent-decoded once. Raises Refusal for anything but percent-encoded UTF-8."""
    segments = path.split("/")
    if "%" not in path:
        return segments
    if _BAD_PERCENT.search(path):
        raise Refusal(400, f"a percent sign in the path is not followed by two hex digits, got {shown(path.encode())}")
    try:
        decoded = [unquote_to_bytes(segment).decode() if "%" in segment else segment for segment in segments]
    except UnicodeDecodeError:
        raise Refusal(400, f"the path is not UTF-8 once percent-decoded, got {shown(path.encode())}") from None
    if any(map(_CONTROL.search, decoded)):
        raise Refusal(400, f"the path has a control character once percent-decoded, got {shown(path.encode())}")
    return decoded
