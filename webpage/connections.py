"""What is said to a connection before the page itself is asked: waitress reads a whole request first, wherever it ends.

- One who does not know the token cannot make it read a large body.
- A body for which there is no room is read to its end and dropped: a browser that is cut off shows no answer at all.
- A request that does not come to its end keeps its place no longer than one that is silent.
- What waitress answers by itself is JSON, as all else that programs are told.
"""

import contextlib
import json
import shutil
import time
from typing import Any

from waitress.buffers import OverflowableBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.utilities import Error

from webpage.security import Wall

_SMALL_BODY_BYTES = 1 << 16
_SPARE_BYTES = 64 << 20  # are left on the disk: the ledger lies there, too
_LOOK_BYTES = 16 << 20  # how much comes between two looks at the room
_NO_ROOM = "the disk of the state folder is full, where uploads lie on their way: free space, then send it again"


def channel_class(wall: Wall, incoming: str) -> type[HTTPChannel]:
    """Waitress's connections, for one page.

    Args:
        wall: who may send much.
        incoming: the folder in which bodies are laid down on their way.
    """

    class Parser(HTTPRequestParser):  # type: ignore[misc]
        chunked: bool
        content_length: int
        expect_continue: bool
        body_rcv: Any
        error: Error | None
        body: "_Body | None" = None
        address = ""

        @property
        def is_large(self) -> bool:
            return self.chunked or self.content_length > _SMALL_BODY_BYTES

        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            if self.body_rcv is None:
                return
            if self.is_large and not wall.admits(self.headers, self.address):
                self._refuse(_Told(401, "token", "the token is missing or wrong"))
                return
            self.body = self.body_rcv.buf = _Body(self.adj.inbuf_overflow, incoming)
            if self.is_large and not self.body.has_room_for(self.content_length):
                if self.expect_continue:  # it has sent nothing yet
                    self._refuse(_Told(507, "no_room", _NO_ROOM))
                else:
                    self.body.drop()

        def received(self, data: bytes) -> int:
            consumed: int = super().received(data)
            if self.completed and self.error is None and self.body is not None and self.body.is_dropped:
                self.error = _Told(507, "no_room", _NO_ROOM)
            if self.error is not None:
                self.error = _Told.of(self.error)
                self.expect_continue = False  # else waitress asks for the rest of what it has just refused
            return consumed

        def _refuse(self, error: "_Told") -> None:
            self.error = error
            self.connection_close = True
            self.chunked, self.content_length, self.body_rcv = False, 0, None

    class Channel(HTTPChannel):  # type: ignore[misc]
        begun = 0.0

        def parser_class(self, adjustments: Any) -> Parser:
            parser = Parser(adjustments)
            parser.address = str(self.addr[0]) if self.addr else ""
            return parser

        def received(self, data: bytes) -> bool:
            taken: bool = super().received(data)
            coming = self.request
            if coming is None or (coming.headers_finished and coming.is_large):
                self.begun = 0.0
            else:  # a byte now and then is no activity
                self.begun = self.begun or time.time()
                self.last_activity = self.begun
            return taken

    return Channel


class _Body(OverflowableBuffer):  # type: ignore[misc]
    """A body on its way: in memory at first, on the disk where it is large, nowhere once there is no room for it."""

    def __init__(self, overflow: int, folder: str) -> None:
        super().__init__(overflow)
        self.is_dropped = False
        self._folder = folder
        self._unlooked = 0

    def has_room_for(self, size: int) -> bool:
        """Whether so many bytes more leave some on the disk."""
        try:
            return shutil.disk_usage(self._folder).free >= size + _SPARE_BYTES
        except OSError:
            return False

    def append(self, piece: bytes) -> None:
        if self.is_dropped:
            return
        self._unlooked += len(piece)
        if self._unlooked > _LOOK_BYTES:
            self._unlooked = 0
            if not self.has_room_for(0):
                self.drop()
                return
        try:
            super().append(piece)
        except OSError:
            self.drop()

    def drop(self) -> None:
        """Forget what came, and what comes."""
        self.is_dropped = True
        with contextlib.suppress(OSError):  # of writing what nobody wants any more
            self.close()
        self.buf, self.strbuf = None, b""


class _Told(Error):  # type: ignore[misc]
    """An answer of waitress's own."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.code = status
        self.reason = code.replace("_", " ").capitalize()
        self._name = code

    @classmethod
    def of(cls, error: Error) -> "_Told":
        """The same in our words."""
        if isinstance(error, cls):
            return error
        if error.code == 413:
            return cls(413, "too_large", "more than web.upload_megabytes or limits.file_megabytes allow")
        return cls(error.code, error.reason.lower().replace(" ", "_"), error.body)

    def to_response(self, ident: str | None = None) -> tuple[str, list[tuple[str, str]], bytes]:
        body = json.dumps({"error": {"code": self._name, "message": self.body}}).encode()
        headers = [("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff")]
        headers += [("Cache-Control", "no-store")] + [("WWW-Authenticate", "Bearer")] * (self.code == 401)
        return f"{self.code} {self.reason}", headers, body
