"""Colour code points (ITU-T H.273), by which AVIF, HEIC and PNG say without a profile what their numbers mean.

Light: no numpy, no cv2.
"""

Codes = tuple[int, int]  # colour primaries, transfer characteristics

_PQ, _HLG = 16, 18
# Those of sRGB, the same as BT.709 and BT.601 to all viewers, and "unspecified".
_LIKE_SRGB = ({1, 2}, {1, 2, 6, 13, 14, 15})
_KNOWN = ({*range(1, 13), 22} - {3}, {*range(1, 18)} - {3})
_NAMES = {9: "BT.2020", 11: "DCI P3", 12: "Display P3"}


def obstacle(codes: Codes) -> str:
    """Why pictures of these colours are not handled; empty if they are."""
    if codes[1] in (_PQ, _HLG):
        return "HDR pictures are not handled: save it in standard dynamic range (SDR)"
    return ""


def telling(codes: Codes | None) -> Codes | None:
    """The codes, if they are known and say more than a picture without any: that it is not sRGB."""
    if codes is None or any(code not in known for code, known in zip(codes, _KNOWN, strict=True)):
        return None
    return None if all(code in like for code, like in zip(codes, _LIKE_SRGB, strict=True)) else codes


def name_of(codes: Codes) -> str:
    """What people call such colours."""
    return _NAMES.get(codes[0], f"colours {codes[0]}/{codes[1]} of ITU-T H.273")
