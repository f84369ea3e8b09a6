"""Which file of a directory is the model, and what a file is that no format takes."""

from __future__ import annotations

from collections.abc import Sequence

from turnout.core.errors import FormatUnknown, LoadFailed
from turnout.formats.artifact import Artifact, Format

#: What lies beside a model and is never one.
_COMPANIONS = frozenset(
    {
        "MLmodel",
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "input_example.json",
        "serving_input_example.json",
        "example.json",
        "expected.json",
        "config.json",
        "README.md",
    }
)
#: Endings of files that hold a model's external weights, not a model.
_DATA = frozenset({".data", ".weight", ".weights"})
#: What to do with a model of no known format.
WRAPPED = (
    "A model that is none of the known formats is served by a few lines of Python, a file model.py: "
    'example = {"x": [[0.0, 0.0]]}, and a function predict(x) that returns {"y": ...}; '
    "see docs/how-to/plain-python-model.md"
)
_KNOWN = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file that holds no Keras model"),
    (b"\x93NUMPY", "a NumPy array, not a model"),
    (b"PAR1", "a Parquet file, not a model"),
    (b"\x7fELF", "a native program or library"),
    (b"<?xml", "an XML file (PMML?)"),
    (b"SQLite format 3", "an SQLite database"),
    (b"binf", "an XGBoost model in the old binary form; save it again as .ubj or .json"),
    (b"GGUF", "a GGUF file (a language model for llama.cpp)"),
    (b"TFL3", "a TensorFlow Lite model"),
)


def select_file(directory: Artifact, formats: Sequence[Format]) -> Artifact:
    """The one model file in a directory. Raises FormatUnknown if there is none, or more than one."""
    found: list[Artifact] = []
    empty: list[str] = []
    for name in directory.listing:
        path = directory.file / name
        if name.startswith(".") or name in _COMPANIONS or path.suffix in _DATA or not path.is_file():
            continue
        inner = directory.inside(path)
        if inner.size == 0:
            empty.append(name)
        elif path.suffix != ".py" and any(known.recognise(inner) for known in formats):
            found.append(inner)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(inner.label for inner in found)
        raise FormatUnknown(f"the directory {directory.label} holds several models ({names}); name one of them")
    if empty:
        raise LoadFailed(f"the directory {directory.label} holds no model, and {', '.join(empty)} is empty (0 bytes)")
    versions = sorted((name for name in directory.listing if name.isdecimal()), key=int)
    if versions:
        raise FormatUnknown(
            f"the directory {directory.label} holds versions ({', '.join(versions[:10])}), which `turnout serve` "
            f"takes; here, name one of them: {directory.given.rstrip('/')}/{versions[-1]}"
        )
    seen = ", ".join(directory.listing[:10]) or "nothing"
    raise FormatUnknown(
        f"the directory {directory.label} holds no model file and no model.py (it holds {seen}). {WRAPPED}"
    )


def describe_content(artifact: Artifact) -> str:
    """What a file seems to be, for the message that refuses it."""
    head = artifact.head
    if artifact.is_zip:
        if not artifact.members:
            return "a zip archive that is cut off or damaged"
        return f"a zip archive with {', '.join(artifact.members[:4])} ..."
    for magic, meaning in _KNOWN:
        if head.startswith(magic) or magic == head[4:8]:
            return meaning
    if artifact.unpacked_head is not head:
        return "compressed data that holds no model known here"
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON that describes no model known here, or that is cut off"
    try:
        head[:4096].decode()
    except UnicodeDecodeError:
        return "binary data of no known kind, or a damaged file"
    return "text that describes no model known here, or that is cut off"
