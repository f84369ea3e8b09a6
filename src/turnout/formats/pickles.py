"""What a pickle looks like from outside, in every form joblib writes it. Nothing is unpickled here."""

from __future__ import annotations

import pickletools

from turnout.formats.artifact import Artifact

_LZ4 = b"\x04\x22\x4d\x18"
#: torch.save before 1.6 starts with a pickled magic number.
TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
SUFFIXES = (".pkl", ".pickle", ".joblib")


#: Packages whose pickles have a format of their own.
_CLAIMED = {"statsmodels"}


def is_pickle(artifact: Artifact) -> bool:
    """Whether the file is a pickle, compressed or not, that no other format claims by what it names first."""
    return looks_like_pickle(artifact) and first_module(artifact).partition(".")[0] not in _CLAIMED


def looks_like_pickle(artifact: Artifact) -> bool:
    """Whether the file starts as a pickle does, compressed or not."""
    if artifact.head.startswith(TORCH_LEGACY):
        return False
    head = artifact.unpacked_head
    if len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    if artifact.suffix not in SUFFIXES:
        return False
    # Without a known ending, the old text protocols and lz4 are too little to go by.
    return head.startswith(_LZ4) or (head[:2] in (b"cs", b"cn", b"c_", b"(i", b"(c", b"(d", b"(l", b"]q", b"}q"))


def describe(artifact: Artifact) -> str:
    """How a message names the pickle."""
    return "a compressed joblib file (a pickle)" if artifact.unpacked_head is not artifact.head else "a Python pickle"


def first_module(artifact: Artifact) -> str:
    """The module of the first class or function that the pickle names, "" if none stands near its start.

    The operations are read one by one, and not one is carried out.
    """
    texts: list[str] = []
    try:
        for operation, argument, _place in pickletools.genops(artifact.unpacked_head):
            if operation.name in {"GLOBAL", "INST"}:
                return str(argument).partition(" ")[0]
            if operation.name == "STACK_GLOBAL":
                return texts[-2] if len(texts) > 1 else ""
            if operation.name.endswith(("UNICODE", "UNICODE8")):
                texts.append(str(argument))
    except (ValueError, IndexError, UnicodeError, OverflowError):  # the head ends in the middle, or it is no pickle
        pass
    return ""
