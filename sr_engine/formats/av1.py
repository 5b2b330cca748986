"""The sides that AV1 data claims of itself: what a decoder allocates, whatever the boxes around it say.

Light (no numpy, no cv2) and safe with hostile input.
"""

from collections.abc import Iterator

_SEQUENCE_HEADER = 1
_MAX_UNITS = 10_000


def sides(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height of each sequence header in the units (OBUs) of `data`.

    Raises:
        IndexError: it is cut off.
    """
    at = 0
    for _ in range(_MAX_UNITS):
        if at >= len(data):
            return
        front = data[at]
        at += 2 if front & 4 else 1  # with the layer it belongs to
        size = len(data) - at
        if front & 2:
            size, at = _leb128(data, at)
        if front >> 3 & 15 == _SEQUENCE_HEADER:
            yield _sequence_sides(_Bits(data[at : at + size]))
        at += size
    raise IndexError


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to eight bytes, and the position behind it."""
    found = 0
    for index in range(8):
        byte = data[at + index]
        found |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return found, at + index + 1
    raise IndexError


class _Bits:
    """Reads numbers of any width."""

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data[:256])
        self._left = 8 * len(data[:256])

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._left -= count
        if self._left < 0:
            raise IndexError
        return self._number >> self._left & (1 << count) - 1


def _sequence_sides(bits: _Bits) -> tuple[int, int]:
    """As in section 5.5 of the AV1 specification, as far as the sides."""
    bits.take(4)  # profile, still picture
    if bits.take(1):  # reduced header
        bits.take(5)
    else:
        _skip_operating_points(bits)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(across) + 1, bits.take(down) + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            zeros = 0
            while not bits.take(1):
                zeros += 1
            bits.take(zeros if zeros < 32 else 0)
        if bits.take(1):  # decoder model
            delay = bits.take(5) + 1
            bits.take(42)
    displayed = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if displayed and bits.take(1):
            bits.take(4)
