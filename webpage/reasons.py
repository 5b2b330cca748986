"""Which kind of reason the ledger's sentence is: it keeps what was said, not the code. Other languages tell the kind.

Every sentence of the engine ends with what to do, and that differs by kind. A test holds this against its sources.
"""

import re

from sr_engine.protocol import Code

_MISSING_PACKAGE = "missing_package"
_ENGINE_ENDED = "engine_ended"  # it took the engine down, each time
_TOLD = {
    Code.OUT_OF_MEMORY: r"needs more memory than|for want of memory",
    Code.TOO_LARGE: r"raise limits\.|file cannot hold|divide the pages",
    Code.UNSUPPORTED: r"\b(is|are) not handled\b|^this is (?!not a picture)|holds one picture",
    Code.UNDECODABLE: r"copy (it|the picture) again|than any sound program writes",
    Code.UPSCALE_FAILED: r"^the network gave|could not be encoded",
    _MISSING_PACKAGE: r"one more package",
    _ENGINE_ENDED: r"while it worked on this picture",
}
_KINDS = {str(code): re.compile(pattern) for code, pattern in _TOLD.items()}


def code_of(reason: str) -> str:
    """Why a picture failed, in one word; empty if that cannot be told from the sentence."""
    return next((code for code, pattern in _KINDS.items() if pattern.search(reason)), "")
