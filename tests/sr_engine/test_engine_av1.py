"""AV1's sequence header: sides from every form of it, bit by bit from the specification."""

import pytest

from sr_engine.formats.av1 import sides


def unit(bits, kind=1, *, size=True, layer=False):
    """An OBU of these bits, as text of 0 and 1."""
    body = int(bits.ljust(-(-len(bits) // 8) * 8, "0") or "0", 2).to_bytes(-(-len(bits) // 8))
    front = bytes([kind << 3 | layer << 2 | size << 1]) + (b"\0" if layer else b"")
    return front + (bytes([len(body)]) if size else b"") + body


def told(width, height):
    return f"{15:04b}{11:04b}{width - 1:016b}{height - 1:012b}"


REDUCED = "000" + "1" + "1" + "01000" + told(40_000, 3000)
POINT = "0" * 12 + "00100"
PLAIN = "000" + "0" + "0" + "0" + "0" + "00000" + POINT + told(40_000, 3000)
TIMED = "000" + "0" + "0" + "1" + "1" * 64 + "1" + "00110" + "0" + "0" + "00000" + POINT + told(40_000, 3000)
# With a decoder model of delays of 4 bits, two operating points, the first of a tier and both with all they can say.
MODEL = "1" + "1" * 64 + "0" + "1" + "00011" + "1" * 42
FULL_POINT = "0" * 12 + "11111" + "1" + "1" + "1" * 9 + "1" + "1010"
LAST_POINT = "0" * 12 + "00100" + "0" + "0"
FULL = "000" + "0" + "0" + MODEL + "1" + "00001" + FULL_POINT + LAST_POINT + told(40_000, 3000)


@pytest.mark.parametrize("bits", [REDUCED, PLAIN, TIMED, FULL])
def test_sides_of_every_form(bits):
    for data in (unit(bits), unit(bits, layer=True), unit(bits, size=False), unit("", 2) + unit(bits) + unit("1", 6)):
        assert list(sides(data)) == [(40_000, 3000)]


def test_every_sequence_header_counts():
    assert len(list(sides(unit(PLAIN) + unit("1", 6) + unit(REDUCED)))) == 2
    assert list(sides(b"")) == []


@pytest.mark.parametrize("data", [unit(PLAIN)[:-4], b"\x0a", b"\x0a" + b"\xff" * 9, bytes([0x12, 0]) * 20_000])
def test_damage_is_an_index_error(data):
    with pytest.raises(IndexError):
        list(sides(data))
