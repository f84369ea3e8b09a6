"""What is known of MXNet's two files before MXNet opens them: that they are whole, and what the graph asks for."""

from __future__ import annotations

import json
import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from turnout.core.errors import LoadFailed
from turnout.formats.artifact import Artifact

_SYMBOL = re.compile(rb'\s*\{\s*"nodes"\s*:\s*\[\s*\{\s*"(op|name)"\s*:')
_SYMBOL_NAME = re.compile(r"(?P<stem>.+)-symbol\.json\Z")
_PARAMS_NAME = re.compile(r"(?P<stem>.+)-(?P<epoch>\d{4,})\.params\Z")
_PARAMS_MAGIC = struct.pack("<QQ", 0x112, 0)
#: The header of one array: since MXNet 1.0 (V2), and with numpy's shapes (V3).
_ARRAY_MAGICS = {0xF993FAC9, 0xF993FACA}
_ITEM_BYTES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 8: 2, 9: 2, 10: 4, 11: 8, 12: 2}
_DATATYPES = {"0": "FP32", "1": "FP64", "2": "FP16", "3": "UINT8", "4": "INT32", "5": "INT8", "6": "INT64"}
#: Operations that end a training graph; their second input is a label.
_LOSSES = re.compile(r"(Softmax|SVM|LinearRegression|LogisticRegression|MAERegression)Output\Z|Softmax\Z")
#: Operations that leave the shape as it was, so that what stands behind them says what goes in.
_SAME_SHAPE = {"Cast", "BlockGrad", "identity", "_copy", "Activation", "_minus_scalar", "_mul_scalar", "_div_scalar"}
_MAX_NODES = 1_000_000


@dataclass(frozen=True)
class Symbol:
    """A graph's nodes as its JSON has them, and the names of inputs that are labels."""

    nodes: list[dict[str, Any]]
    labels: frozenset[str]

    def _index(self, name: str) -> int:
        return next(at for at, node in enumerate(self.nodes) if node["op"] == "null" and node["name"] == name)

    def _attributes(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        found = node.get("attrs") or node.get("attr") or node.get("param") or {}
        return found if isinstance(found, dict) else {}

    def datatype_of(self, name: str) -> str:
        """The type an input says it has; FP32 where it says none."""
        return _DATATYPES.get(str(self._attributes(self.nodes[self._index(name)]).get("__dtype__")), "FP32")

    def shape_of(self, name: str, parameters: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
        """The shape an input says it has (0 for free), or the one its first operation's weights ask for."""
        at = self._index(name)
        stated = str(self._attributes(self.nodes[at]).get("__shape__", ""))
        if re.fullmatch(r"[(\[][-\d, ]+[)\]]", stated):
            sizes = tuple(max(0, int(size)) for size in re.findall(r"-?\d+", stated))
            if len(sizes) > 1 and any(sizes[1:]):
                return sizes
        for _ in range(len(self.nodes)):
            users = [n for n in self.nodes if any(entry[0] == at for entry in n["inputs"])]
            if len(users) != 1:
                break
            found = self._asked(users[0], parameters)
            if found is not None:
                return found
            if users[0]["op"] not in _SAME_SHAPE:
                break
            at = self.nodes.index(users[0])
        return None

    def _asked(self, node: Mapping[str, Any], parameters: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
        """The shape that an operation's parameters ask of its data."""
        shapes = [parameters.get(self.nodes[entry[0]]["name"]) for entry in node["inputs"]]
        second = shapes[1] if len(shapes) > 1 else None
        if node["op"] == "FullyConnected" and second is not None and len(second) == 2:
            return (0, second[1]) if self._attributes(node).get("flatten", "True") in {"True", "1", True} else None
        if node["op"] == "Convolution" and second is not None and len(second) > 2:
            groups = int(self._attributes(node).get("num_group", 1))
            return (0, second[1] * groups, *(0 for _ in second[2:]))
        return None


def is_symbol(head: bytes) -> bool:
    """Whether a file starts as a symbol does."""
    return _SYMBOL.match(head) is not None


def is_params(head: bytes) -> bool:
    """Whether a file starts as saved NDArrays do."""
    return head.startswith(_PARAMS_MAGIC)


def pair_of(artifact: Artifact) -> tuple[Path, Path] | None:
    """The symbol and the parameters (of the last epoch) that belong together; None where one is not there."""
    if artifact.path is None:
        return None
    directory = artifact.file if artifact.is_directory else artifact.file.parent
    if artifact.is_file and _PARAMS_NAME.match(artifact.file.name) is None and is_params(artifact.head):
        symbols = [path for path in sorted(directory.iterdir()) if path.name.endswith("symbol.json")]
        return (symbols[0], artifact.file) if len(symbols) == 1 else None
    found: dict[str, Path] = {}
    epochs: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(directory.iterdir()):
        symbol, params = _SYMBOL_NAME.match(path.name), _PARAMS_NAME.match(path.name)
        if symbol is not None:
            found[symbol["stem"]] = path
        elif params is not None:
            epochs.setdefault(params["stem"], []).append((int(params["epoch"]), path))
    pairs = [(path, max(epochs[stem])[1]) for stem, path in found.items() if stem in epochs]
    if artifact.is_directory:
        return pairs[0] if len(pairs) == 1 and is_symbol(_head(pairs[0][0])) else None
    for symbol_file, params_file in pairs:
        if artifact.file == symbol_file:
            return symbol_file, params_file
        if artifact.file.parent == symbol_file.parent and artifact.file in {p for _, p in epochs[_stem(symbol_file)]}:
            return symbol_file, artifact.file
    return None


def _stem(symbol_file: Path) -> str:
    return symbol_file.name.removesuffix("-symbol.json")


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(4096)


def read_symbol(path: Path) -> Symbol:
    """The graph, checked: every node is made of earlier ones. Raises LoadFailed saying what is wrong."""
    try:
        found = json.loads(path.read_bytes())
        nodes = found["nodes"]
        if not isinstance(nodes, list) or not 0 < len(nodes) <= _MAX_NODES:
            raise ValueError("it has no nodes")
        uses: dict[int, set[bool]] = {}
        for at, node in enumerate(nodes):
            if not isinstance(node["op"], str) or not isinstance(node["name"], str):
                raise TypeError(f"node {at} has no name")
            for place, entry in enumerate(node["inputs"]):
                _check_entry(entry, at)
                uses.setdefault(entry[0], set()).add(place == 1 and _LOSSES.match(node["op"]) is not None)
        for at in found["arg_nodes"]:
            if not isinstance(at, int) or not 0 <= at < len(nodes) or nodes[at]["op"] != "null":
                raise ValueError(f"argument {at!r} is no input")
        for entry in found["heads"]:
            _check_entry(entry, len(nodes))
    except RecursionError:
        raise LoadFailed(f"{path.name}: the MXNet symbol is nested too deeply") from None
    except (ValueError, KeyError, TypeError, IndexError) as problem:
        said = str(problem) or type(problem).__name__
        raise LoadFailed(f"{path.name}: the MXNet symbol is cut off or damaged ({said})") from None
    labels = {nodes[at]["name"] for at, kinds in uses.items() if kinds == {True} and nodes[at]["op"] == "null"}
    return Symbol(nodes, frozenset(labels))


def _check_entry(entry: Any, limit: int) -> None:
    if not isinstance(entry, list) or len(entry) < 2 or not all(isinstance(part, int) and part >= 0 for part in entry):
        raise ValueError(f"{entry!r} names no node")
    if entry[0] >= limit:
        raise ValueError(f"node {limit} is made of node {entry[0]}, which comes later")


def check_params(path: Path) -> None:
    """Raises LoadFailed if the arrays are cut off, or claim more than the file has."""
    size = path.stat().st_size
    if size == 0:
        raise LoadFailed(f"{path.name} is empty (0 bytes)")
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            _walk(data, size)
        except (struct.error, ValueError) as problem:
            raise LoadFailed(f"{path.name}: the MXNet parameters are cut off or damaged ({problem})") from None


def _walk(data: mmap.mmap, size: int) -> None:
    if data[:16] != _PARAMS_MAGIC:
        raise ValueError("they do not start as saved NDArrays do")
    (count,) = struct.unpack_from("<Q", data, 16)
    at = 24
    if count > size:
        raise ValueError(f"{count} arrays in {size} bytes")
    for number in range(count):
        magic, storage, axes = struct.unpack_from("<IiI", data, at)
        if magic not in _ARRAY_MAGICS or storage != 0 or axes > 32:
            raise ValueError(f"array {number} is not a dense one of MXNet 1.0 or later")
        shape = struct.unpack_from(f"<{axes}q", data, at + 12)
        kind = struct.unpack_from("<iii", data, at + 12 + 8 * axes)[2]
        if kind not in _ITEM_BYTES or any(extent < 0 for extent in shape):
            raise ValueError(f"array {number} has the type {kind} and the shape {list(shape)}")
        at += 24 + 8 * axes + math.prod(shape) * _ITEM_BYTES[kind]
        if at > size:
            raise ValueError(f"array {number} ends after the file")
    (names,) = struct.unpack_from("<Q", data, at)
    at += 8
    if names != count:
        raise ValueError(f"{names} names for {count} arrays")
    for _ in range(names):
        (length,) = struct.unpack_from("<Q", data, at)
        at += 8 + length
        if at > size:
            raise ValueError("a name ends after the file")
    if at != size:
        raise ValueError(f"{size - at} bytes are left over")


def stated_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """The input shapes in a signature.json as MXNet's model server has it; {} where there is none."""
    path = directory / "signature.json"
    try:
        entries = json.loads(path.read_bytes())["inputs"] if path.is_file() else []
        return {str(e["data_name"]): tuple(int(size) for size in e["data_shape"]) for e in entries}
    except (ValueError, KeyError, TypeError) as problem:
        raise LoadFailed(f"signature.json beside the model cannot be read ({problem})") from None
