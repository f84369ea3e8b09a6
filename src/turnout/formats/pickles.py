"""What a pickle looks like from outside, in every form joblib writes it. Nothing is unpickled here."""

from __future__ import annotations

from turnout.formats.artifact import Artifact

_LZ4 = b"\x04\x22\x4d\x18"
#: torch.save before 1.6 starts with a pickled magic number.
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
SUFFIXES = (".pkl", ".pickle", ".joblib")


def is_pickle(artifact: Artifact) -> bool:
    """Whether the file is a pickle, compressed or not."""
    if artifact.head.startswith(_TORCH_LEGACY):
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
