"""The stub engine with eyes: its results are the stub's, but it decodes each picture first, as the real engine does.

A client that is killed leaves a part of a picture under its final name, and nobody has it open any more. What keeps
such a part out of the outbox is that it cannot be decoded, so an engine that takes any bytes would prove nothing.
It uses `sr_engine`'s own decoder; words in the picture mean nothing to it: these are photographs.
"""

import os
import sys

from sr_engine import protocol
from sr_engine.errors import PictureError
from sr_engine.formats.decoding import decode

_TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(_TESTS, "engines"))

import stub  # noqa: E402 - it lies beside no package


def judge(data: bytes, picture: int) -> bool:
    """Refuse what cannot be decoded; whether it was refused."""
    try:
        decode(data)
    except PictureError as error:
        stub.fail(picture, error.code, str(error), protocol.Fault.PICTURE)
        return True
    return False


if __name__ == "__main__":
    stub.misbehave = judge
    stub.main()
