"""The only thing that the page writes for others to see: a new picture in the inbox.

It is written under a hidden name that the watcher leaves alone, judged from its header, synced to the disk, and gets
its name by a rename that cannot overwrite. What a request calls it is a wish: only a plain file name is left of it.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from itsdangerous import BadSignature, URLSafeSerializer

from sr_engine import limits
from sr_engine.errors import PictureError
from sr_engine.headers import Kind, read_header
from watcher.files.filesystem import look_at, publish
from watcher.files.ignore import DEFAULT_EXTENSIONS, IgnoreRules
from watcher.files.mounted import has_lost_its_share
from watcher.files.names import candidate_names, longest_name
from watcher.operation import heic
from watcher.sections import Config
from webpage.reading import Reading

_CHUNK_BYTES = 1 << 18
_PREFIX = ".dropscale-upload-"  # begins as all that is ours, so the watcher leaves it alone
_STALE_SECONDS = 86_400.0
_SPARE_BYTES = 64 << 20  # are left on the disk
_LONGEST_NAME = 180  # bytes; the file system's 255 have to hold `~`, a hash and a new ending, too
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?\Z")  # of Windows, which may see the share
_ENDINGS = {Kind.JPEG: ".jpg", Kind.JPEG2000: ".jp2"}
_SALT = "upload"


class Refused(Exception):
    """It does not become a picture in the inbox.

    Attributes:
        code: for programs, see the OpenAPI document.
        status: of HTTP.
    """

    def __init__(self, code: str, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


class Received(NamedTuple):
    """A picture that is in the inbox now.

    Attributes:
        name: below the inbox; another than the wished one, if that was taken.
        sha256: of its content.
        bytes: how large it is.
    """

    name: str
    sha256: str
    bytes: int


class Fate(NamedTuple):
    """What became of an upload.

    Attributes:
        state: "waiting", "working", "done", "failed", or "gone": it was taken out of the inbox.
        why: it waits or failed; empty if there is nothing to say.
        picture: its id in the ledger, once it came to its end.
    """

    state: str
    why: str = ""
    picture: int | None = None


class Uploads:
    """The way into the inbox, and what became of those that went it."""

    def __init__(
        self, config: Config, reading: Reading, key: bytes, scale: int, stale_seconds: float = _STALE_SECONDS
    ) -> None:
        """Nothing is written yet.

        Args:
            config: folders and limits.
            reading: the ledger.
            key: to sign the names of uploads with.
            scale: of the model, for what a result would need.
            stale_seconds: after which a hidden part is taken for a leftover.
        """
        self._inbox = config.folders.inbox
        self._limits = config.limits.wire()
        self._output = config.output.wire()
        self._scale = scale
        self._rules = IgnoreRules(config.watch.ignore)
        self._reading = reading
        self._stale_seconds = stale_seconds
        self._swept_at = time.monotonic()
        self._serializer = URLSafeSerializer(key, salt=_SALT)
        self.heic_lack = heic.lack(config)
        self.most_bytes = min(config.web.upload_megabytes << 20, config.limits.file_megabytes << 20)

    def sweep(self) -> None:
        """Remove what a kill left of an upload; one that is still being written is younger."""
        self._swept_at = time.monotonic()
        with contextlib.suppress(OSError), os.scandir(self._inbox) as entries:
            for entry in entries:
                if entry.name.startswith(_PREFIX):
                    with contextlib.suppress(OSError):
                        if time.time() - entry.stat(follow_symlinks=False).st_mtime > self._stale_seconds:
                            os.unlink(entry.path)

    def receive(self, stream: BinaryIO, size: int | None, name: str) -> Received:
        """Put a picture into the inbox, in constant memory.

        Args:
            stream: its bytes.
            size: how many there are to be; None: that was not told.
            name: what it wants to be called.

        Raises:
            Refused: it is no picture that can be enlarged, is too large, or there is no room.
            OSError: the inbox cannot be written.
        """
        wished = plain_name(name)
        self._check_mount()
        if time.monotonic() - self._swept_at > self._stale_seconds:  # the page may run for months
            self.sweep()
        self._check_room(size)
        hidden = os.path.join(self._inbox, f"{_PREFIX}{secrets.token_hex(8)}.part")
        try:
            with open(hidden, "xb") as file:
                sha256, written = self._copy(stream, file)
                if size is not None and written != size:
                    raise Refused("incomplete", f"{written} of {size} bytes arrived: send it again", 400)
                file.flush()
                os.fsync(file.fileno())
            ending = self._judge(hidden, written)
            target = self._publish(hidden, _with_ending(wished, ending), sha256)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(hidden)
            raise
        return Received(target, sha256, written)

    def ticket(self, received: Received) -> str:
        """What an upload is asked for by: signed, so that nobody can ask for other names."""
        ticket = self._serializer.dumps([received.name, received.sha256, int(time.time())])
        return ticket if isinstance(ticket, str) else ticket.decode()

    def fate(self, ticket: str) -> tuple[Received, Fate] | None:
        """What became of an upload; None: that is no ticket.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        try:
            name, sha256, at = self._serializer.loads(ticket)
        except (BadSignature, ValueError, UnicodeError):
            return None
        return Received(name, sha256, 0), self._fate(name, sha256, at)

    def _fate(self, name: str, sha256: str, at: float) -> Fate:
        path = os.fsencode(name)
        open_ = self._rows("path = ? AND state NOT IN ('done', 'failed', 'withdrawn')", (path,))
        if open_ and open_[0][1] == "waiting":
            return Fate("waiting", open_[0][2])
        if open_:
            return Fate("working")
        if look_at(os.path.join(self._inbox, name)) is not None:
            return Fate("waiting")
        done = self._rows("sha256 = ? AND state IN ('done', 'archiving') AND path = ? ORDER BY id DESC", (sha256, path))
        if done:
            return Fate("done", picture=done[0][0])
        failed = self._rows(
            "state = 'failed' AND changed_at > ? AND path = ? AND sha256 = ? ORDER BY changed_at DESC",
            (at - _STALE_SECONDS, path, sha256),
        )
        if failed:
            return Fate("failed", failed[0][3], failed[0][0])
        return Fate("gone")

    def _rows(self, condition: str, parameters: Sequence[object]) -> list[tuple[int, str, str, str]]:
        sql = f"SELECT id, state, trouble, reason FROM pictures WHERE {condition} LIMIT 1"  # noqa: S608 - ours
        return self._reading.select(sql, tuple(parameters))

    def _check_mount(self) -> None:
        notes = dict(self._reading.select("SELECT key, value FROM notes"))
        if has_lost_its_share("inbox", self._inbox, notes):
            raise Refused("not_mounted", "the share that the inbox lies on is not mounted: mount it", 503)

    def _check_room(self, size: int | None) -> None:
        if size is not None and size > self.most_bytes:
            raise Refused("too_large", f"more than {self.most_bytes >> 20} MB, see web.upload_megabytes", 413)
        free = shutil.disk_usage(self._inbox).free
        if free < (size or 0) + _SPARE_BYTES:
            raise Refused("no_room", "the inbox's disk is full: free space, then send it again", 507)

    def _copy(self, stream: BinaryIO, file: BinaryIO) -> tuple[str, int]:
        hasher, written = hashlib.sha256(), 0
        while chunk := stream.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > self.most_bytes:
                raise Refused("too_large", f"more than {self.most_bytes >> 20} MB, see web.upload_megabytes", 413)
            hasher.update(chunk)
            file.write(chunk)
        return hasher.hexdigest(), written

    def _judge(self, path: str, size: int) -> str:
        """Refuse what the engine would; returns the ending of its kind."""
        try:
            with open(path, "rb") as file:
                header = read_header(file)
            limits.check(header, size, self._limits, self._output, scale=self._scale)
        except PictureError as error:
            raise Refused(error.code.value, error.message) from error
        if header.kind is Kind.HEIC and self.heic_lack:
            raise Refused("missing_package", self.heic_lack)
        return _ENDINGS.get(header.kind, f".{header.kind}")

    def _publish(self, hidden: str, name: str, sha256: str) -> str:
        for candidate in candidate_names(name, sha256[:8], longest_name(self._inbox)):
            if reason := self._rules.reason(candidate):
                raise Refused("ignored", f"the inbox leaves {candidate} alone ({reason}): give it another name")
            try:
                publish(hidden, os.path.join(self._inbox, candidate))
            except FileExistsError:
                continue
            return candidate
        raise AssertionError("candidate_names never ends")


def plain_name(wish: str) -> str:
    """A file name that is one everywhere, and nothing but a name; "picture" if nothing is left of the wish."""
    name = unicodedata.normalize("NFC", wish).replace("\\", "/").rpartition("/")[2]
    name = "".join(char if char.isprintable() else "_" for char in name)
    name = _FORBIDDEN.sub("_", name).strip(" .")
    if not name or _RESERVED.match(name):
        name = f"picture{name and '-'}{name}"
    stem, ending = os.path.splitext(name)
    ending = ending if len(ending) <= 10 else ""
    stem = stem.encode()[: _LONGEST_NAME - len(ending.encode())].decode(errors="ignore")
    return stem.rstrip(" .") + ending


def _with_ending(name: str, ending: str) -> str:
    """The name, with an ending that is taken for a picture's."""
    return name if os.path.splitext(name)[1].lower() in DEFAULT_EXTENSIONS else name + ending
