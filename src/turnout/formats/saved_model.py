"""What a saved_model.pb holds, read without TensorFlow: its signatures, its operations, its asset files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from turnout.core.errors import LoadFailed
from turnout.formats.protobuf_fields import BYTES, Damaged, Span, spans
from turnout.formats.refusals import untrusted

FILE = "saved_model.pb"
DEFAULT = "serving_default"
#: Operations by which a graph reads or writes files of its choice, calls Python, or speaks to others.
UNSAFE = frozenset(
    {
        *("ReadFile", "WriteFile", "MatchingFiles", "WholeFileReader", "WholeFileReaderV2", "TextLineReader"),
        *("TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2", "FixedLengthRecordReader"),
        *("FixedLengthRecordReaderV2", "TextLineDataset", "TFRecordDataset", "FixedLengthRecordDataset"),
        *("FixedLengthRecordDatasetV2", "CSVDataset", "CSVDatasetV2", "SqlDataset", "ExperimentalSqlDataset"),
        *("SaveDataset", "SaveDatasetV2", "LoadDataset", "DatasetToTFRecord", "CacheDataset", "CacheDatasetV2"),
        *("CreateSummaryFileWriter", "CreateSummaryDbWriter", "DebugIdentityV2", "DebugIdentity", "PrintV2"),
        *("PyFunc", "PyFuncStateless", "EagerPyFunc", "RpcCall", "RpcClient", "RpcServer", "RpcServerStart"),
        *("DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4"),
        *("LookupTableExportV2ToFile", "SaveSlices", "Save", "RemoteCall"),
    }
)


@dataclass
class Content:
    """The parts of a SavedModel that are judged before TensorFlow reads it."""

    signatures: list[str] = field(default_factory=list)
    operations: set[str] = field(default_factory=set)
    assets: list[str] = field(default_factory=list)
    tags: list[list[str]] = field(default_factory=list)


def looks_like(head: bytes) -> bool:
    """Whether the bytes start as a SavedModel does: schema version 1, then a graph."""
    return head.startswith(b"\x08\x01\x12")


def read(path: Path) -> Content:
    """The content of a saved_model.pb. Raises LoadFailed where it is cut off or damaged."""
    data = path.read_bytes()
    found = Content()
    try:
        for graph in _parts(data, 0, len(data), 2):
            found.tags.append([])
            for part in spans(data, graph.start, graph.end):
                _meta_graph(data, part, found)
    except (Damaged, UnicodeDecodeError) as problem:
        raise LoadFailed(f"{FILE} is cut off or damaged ({problem})") from None
    if not found.tags:
        raise LoadFailed(f"{FILE} holds no graph; it is cut off or damaged")
    found.signatures = [name for name in found.signatures if not name.startswith("__saved_model")]
    return found


def check(content: Content, label: str, *, trusted: bool) -> None:
    """Raises LoadFailed for assets outside the directory, PickleRefused for operations that reach outside the graph."""
    for name in content.assets:
        if name.startswith("/") or ".." in Path(name).parts:
            raise LoadFailed(f"{label}: the asset {name!r} lies outside the model's own directory")
    unsafe = sorted(content.operations & UNSAFE)
    if unsafe and not trusted:
        raise untrusted(
            f"{label}: its graph holds {', '.join(unsafe[:6])}, which read or write files, call Python or open "
            "connections"
        )


def _parts(data: bytes, start: int, end: int, number: int) -> Iterator[Span]:
    return (part for part in spans(data, start, end) if part.number == number and part.wire == BYTES)


def _text(data: bytes, span: Span) -> str:
    return data[span.start : span.end].decode()


def _meta_graph(data: bytes, part: Span, found: Content) -> None:
    if part.wire != BYTES:
        return
    if part.number == 1:
        found.tags[-1] += [_text(data, tag) for tag in _parts(data, part.start, part.end, 4)]
    elif part.number == 2:
        _graph(data, part, found)
    elif part.number == 5:
        found.signatures += [_text(data, key) for key in _parts(data, part.start, part.end, 1)]
    elif part.number == 6:
        found.assets += [_text(data, name) for name in _parts(data, part.start, part.end, 2)]


def _graph(data: bytes, graph: Span, found: Content) -> None:
    """The operations of a GraphDef and of the functions in its library."""
    nodes = list(_parts(data, graph.start, graph.end, 1))
    for library in _parts(data, graph.start, graph.end, 2):
        for function in _parts(data, library.start, library.end, 1):
            nodes += _parts(data, function.start, function.end, 3)
    for node in nodes:
        found.operations.update(_text(data, op) for op in _parts(data, node.start, node.end, 2))
