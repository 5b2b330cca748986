"""Which paths in the inbox are left alone, and why.

Sync clients, file servers and downloaders leave temporary, conflict and metadata files beside the pictures, and many
keep a picture's extension. They are listed in `RULES`, first match wins; to leave another kind alone, add a line.

Two things are left out on purpose. OneDrive's conflict copies, `NAME-HOSTNAME.jpg`, look like any name with a hyphen.
Syncthing's versions, `NAME~YYYYMMDD-HHMMSS.jpg`, are known by their folder `.stversions` alone: the same name elsewhere
is a version that somebody brought back.
"""

import enum
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

# What the engine reads; everything else in the inbox is "not a picture".
DEFAULT_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"}
    | {".avif", ".heic", ".heif", ".hif", ".jp2", ".jpf", ".jpx", ".j2k", ".j2c", ".jpc"},
)


class Applies(enum.Flag):
    """What a rule looks at. A folder that a rule matches hides everything below it."""

    FILES = enum.auto()
    FOLDERS = enum.auto()
    BOTH = FILES | FOLDERS


FILES, FOLDERS, BOTH = Applies.FILES, Applies.FOLDERS, Applies.BOTH


class Rule(NamedTuple):
    r"""One kind of name that is left alone.

    Attributes:
        pattern: `*`, `?` and `[abc]` as in a shell, for one name and not a path, in any case. Between `<` and `>`
            stands a regular expression, for shapes that a shell pattern would draw too wide: `*_conflict-<\d{8}>*`.
        applies: to files, folders or both.
        reason: what such a file is, for `status` and the log.
    """

    pattern: str
    applies: Applies
    reason: str


# Conflict copies are matched as files only: a folder named so may hold the only copy of its pictures.
RULES: tuple[Rule, ...] = (
    Rule(".dropscale*", BOTH, "dropscale's own file"),
    # Syncthing. Both prefixes are its own, whatever follows (syncthing#8595).
    Rule(".syncthing.*", BOTH, "Syncthing temporary file"),
    Rule("~syncthing~*", BOTH, "Syncthing temporary file"),
    Rule(r"*.sync-conflict-<\d{8}-\d{6}>*", FILES, "Syncthing conflict copy"),
    Rule(".stversions", FOLDERS, "Syncthing old versions"),
    Rule(".stfolder", BOTH, "Syncthing metadata"),
    Rule(".stignore", BOTH, "Syncthing metadata"),
    # Nextcloud and ownCloud. The digits keep a picture called "my_conflict-zone.jpg" out of it.
    Rule(r"*(conflicted copy *<\d{4}-\d\d-\d\d \d{6}>)*", FILES, "Nextcloud conflict copy"),
    Rule(r"*(case clash from <\d{4}-\d\d-\d\d \d{6}>)*", FILES, "Nextcloud conflict copy"),
    Rule(r"*_conflict-<\d{8}-\d{6}>*", FILES, "ownCloud conflict copy"),
    Rule(r"*_conflict_*-<\d{8}-\d{6}>*", FILES, "ownCloud conflict copy"),
    Rule(".sync_*.db*", BOTH, "Nextcloud metadata"),
    Rule("._sync_*.db*", BOTH, "Nextcloud metadata"),
    Rule(".csync_journal.db*", BOTH, "ownCloud metadata"),
    Rule(".owncloudsync.log*", BOTH, "ownCloud metadata"),
    Rule("*.octransferid*.part", BOTH, "Nextcloud unfinished upload"),
    Rule(r".*.~<[0-9a-f]+>", BOTH, "Nextcloud temporary file"),
    # Synology. The clock of a conflict copy has four or six digits, and the month is in the client's language.
    Rule("@eadir", FOLDERS, "Synology thumbnails and metadata"),
    Rule("synophoto_thumb_*", FILES, "Synology thumbnail"),
    Rule("*@synoeastream", BOTH, "Synology metadata"),
    Rule("*@synoresource", BOTH, "Synology metadata"),
    Rule("@tmp", FOLDERS, "Synology temporary folder"),
    Rule(".synologyworkingdirectory", BOTH, "Synology Drive working folder"),
    Rule("#recycle", FOLDERS, "Synology recycle bin"),
    Rule("#snapshot", FOLDERS, "Synology snapshots"),
    Rule("@sharebin", FOLDERS, "Synology recycle bin"),
    Rule(r"*_*-<\d\d-\d{4}(\d\d)?-\d{4}>_conflict*", FILES, "Synology Drive conflict copy"),
    Rule(r"*_*-<\d\d-\d{4}(\d\d)?-\d{4}>_caseconflict*", FILES, "Synology Drive conflict copy"),
    # QNAP
    Rule(".@__thumb", FOLDERS, "QNAP thumbnails"),
    Rule("@recycle", FOLDERS, "QNAP recycle bin"),
    Rule("@recently-snapshot", FOLDERS, "QNAP snapshots"),
    # Resilio Sync
    Rule("*.!sync", BOTH, "Resilio Sync unfinished download"),
    Rule("*.syncpart", BOTH, "Resilio Sync temporary file"),
    Rule("*.synctemp", BOTH, "Resilio Sync temporary file"),
    Rule("*.syncold", BOTH, "Resilio Sync temporary file"),
    Rule(".syncid", BOTH, "Resilio Sync metadata"),
    Rule(".syncignore", BOTH, "Resilio Sync metadata"),
    Rule(".syncarchive", BOTH, "Resilio Sync old versions"),
    Rule(".sync", BOTH, "Resilio Sync metadata"),
    Rule("*.rsls", BOTH, "Resilio Sync placeholder"),
    Rule("*.conflict", FILES, "Resilio Sync conflict copy"),
    # Dropbox
    Rule(".dropbox", BOTH, "Dropbox metadata"),
    Rule(".dropbox.attr", BOTH, "Dropbox metadata"),
    Rule(".dropbox.cache", BOTH, "Dropbox cache"),
    Rule("*(*conflicted copy*)*", FILES, "Dropbox conflict copy"),
    # Google Drive, OX Drive, Insync, iCloud
    Rule(".tmp.drivedownload", BOTH, "Google Drive unfinished download"),
    Rule(".tmp.driveupload", BOTH, "Google Drive unfinished upload"),
    Rule("*.drivepart", BOTH, "OX Drive unfinished download"),
    Rule("*.insyncdl", BOTH, "Insync unfinished download"),
    Rule(".*.icloud", BOTH, "iCloud placeholder"),
    # macOS and its file servers
    Rule("._*", BOTH, "macOS metadata"),
    Rule(".ds_store", BOTH, "macOS metadata"),
    Rule(".appledouble", BOTH, "macOS metadata"),
    Rule(".appledb", BOTH, "macOS metadata"),
    Rule(".temporaryitems", BOTH, "macOS temporary folder"),
    Rule(".trashes", BOTH, "macOS recycle bin"),
    Rule(".spotlight-v100", BOTH, "macOS metadata"),
    Rule(".fseventsd", BOTH, "macOS metadata"),
    Rule(".apdisk", BOTH, "macOS metadata"),
    Rule("icon\r", BOTH, "macOS folder icon"),
    Rule("__macosx", FOLDERS, "macOS metadata from an archive"),
    Rule(".smbdelete*", BOTH, "deleted file still open over SMB"),
    # Linux
    Rule(".nfs*", BOTH, "deleted file still open over NFS"),
    Rule(".fuse_hidden*", BOTH, "deleted file still open"),
    Rule(".trash-*", BOTH, "recycle bin"),
    Rule("lost+found", FOLDERS, "recovered by the file system check"),
    # Windows. Its ":Zone.Identifier" streams become files of their own under WSL and Samba.
    Rule("thumbs.db", BOTH, "Windows thumbnails"),
    Rule("desktop.ini", BOTH, "Windows metadata"),
    Rule("*:zone.identifier", BOTH, "Windows metadata"),
    Rule("$recycle.bin", BOTH, "Windows recycle bin"),
    Rule("system volume information", FOLDERS, "Windows metadata"),
    # Android
    Rule(".pending-*", BOTH, "Android unfinished file"),
    Rule(".trashed-*", BOTH, "Android deleted file"),
    # Downloads, uploads and copies that are not finished. Safari's ".download" is a folder with the picture in it.
    Rule("*.part", FILES, "unfinished download"),
    Rule("*.partial", FILES, "unfinished download"),
    Rule("*.filepart", FILES, "unfinished upload"),
    Rule("*.crdownload", FILES, "unfinished download"),
    Rule("*.opdownload", FILES, "unfinished download"),
    Rule("*.download", BOTH, "unfinished download"),
    Rule("*.aria2", FILES, "unfinished download"),
    Rule(".in.*.", BOTH, "ProFTPD unfinished upload"),
    Rule(".pureftpd-upload.*", BOTH, "Pure-FTPd unfinished upload"),
    Rule("*.unison", FILES, "Unison temporary file"),
    Rule(".~tmp~", BOTH, "rsync temporary folder"),
    Rule(".rsync-partial", BOTH, "rsync unfinished file"),
    # Offices and editors
    Rule("~$*", FILES, "Office lock file"),
    Rule(".~lock.*", BOTH, "Office lock file"),
    Rule(".*.sw?", FILES, "editor swap file"),
    Rule("*.kate-swp", FILES, "editor swap file"),
    Rule("*.~*", FILES, "backup or temporary file"),
    Rule("*~", FILES, "backup or temporary file"),
    Rule("*.tmp", FILES, "temporary file"),
    Rule("*.temp", FILES, "temporary file"),
    # By convention, not by a program's mark, therefore last. Synology Drive leaves "~" names alone as well.
    Rule("~*", FILES, "temporary file (its name begins with ~)"),
    Rule(".htaccess", BOTH, "web server settings"),
    Rule(r".?*.<[a-z0-9]{6}>", FILES, "hidden file, named as rsync names its temporary ones"),
    Rule(".*", FILES, "hidden file"),
    Rule(".*", FOLDERS, "hidden folder"),
)

_OURS = ".dropscale"
_SPECIAL = re.compile(r"\*\*/|\*+|\?|\[!?\]?[^\]/]*\]|<[^>]*>")
_REASONS_KEPT = 1024  # folders whose verdict is remembered; a wide tree then costs time and not memory


class _UserPattern(NamedTuple):
    regex: re.Pattern[str]
    applies: Applies
    reason: str | None  # None: such files are taken after all


class IgnoreRules:
    """What of the inbox is left alone: the table above, the user's patterns, and all that is not a picture.

    User patterns are simple globs in the way of `.gitignore`; the last one that matches decides:

    - `*.bak` names a file or folder at any depth;
    - `drafts/` names a folder at any depth, with everything below it;
    - `drafts/*.png` and `/old` hold a slash before their end, so they are paths from the inbox; `*` stays within one
      folder there, and `**/` stands for any number of folders;
    - `!~*.jpg` takes names after all that another pattern or the table leaves alone. It cannot reach into a folder
      that is left alone, nor make a picture of another kind of file.

    The separator is `/` on every system, `[*]` is a literal star, and the case of letters never matters.

    Names may hold surrogate escapes, as `os.fsdecode` makes of bytes that are not UTF-8.
    """

    def __init__(self, extra_patterns: Sequence[str] = (), extensions: Collection[str] = DEFAULT_EXTENSIONS) -> None:
        """Compile the rules.

        Args:
            extra_patterns: the user's, see above.
            extensions: of pictures, with or without their dot, in any case.

        Raises:
            ValueError: a pattern is empty or no glob; the message quotes it.
        """
        # macOS and some SMB clients store "é" as two characters. Only a pattern with such letters needs to care.
        self._normalise = not all(pattern.isascii() for pattern in extra_patterns)
        self._user = [_user_pattern(pattern) for pattern in reversed(extra_patterns)]
        self._extensions = frozenset("." + extension.lower().lstrip(".") for extension in extensions)
        self._tables = {kind: _table(kind) for kind in (FILES, FOLDERS)}
        self._folder = lru_cache(maxsize=_REASONS_KEPT)(self._find_folder_reason)

    def reason(self, relative_path: str) -> str | None:
        """Why this file is left alone, or None if it is a picture to take.

        Args:
            relative_path: from the inbox, without `..`.
        """
        path = self._comparable(relative_path)
        folder, _, name = path.rpartition("/")
        if folder and (reason := self._folder(folder)):
            return reason
        return self._verdict(path, name, FILES) or self._not_a_picture(name)

    def folder_reason(self, relative_path: str) -> str | None:
        """Why nothing below this folder is looked at, or None.

        Args:
            relative_path: from the inbox, without `..`; the inbox itself, "" or ".", is always looked at.
        """
        return self._folder(self._comparable(relative_path))

    def _comparable(self, relative_path: str) -> str:
        path = relative_path if os.sep == "/" else relative_path.replace(os.sep, "/")
        return _fold(path.removeprefix("./"), self._normalise)

    def _find_folder_reason(self, folder: str) -> str | None:
        end = -1
        while end != len(folder):
            end = folder.find("/", end + 1)
            end = len(folder) if end == -1 else end
            path = folder[:end]
            name = path.rpartition("/")[2]
            if name not in ("", ".") and (reason := self._verdict(path, name, FOLDERS)):
                return reason
        return None

    def _verdict(self, path: str, name: str, kind: Applies) -> str | None:
        # No user pattern may bring our own staging files into the inbox.
        if self._user and not name.startswith(_OURS):
            for pattern in self._user:
                if kind in pattern.applies and pattern.regex.fullmatch(path):
                    return pattern.reason
        return self._tables[kind].reason(name)

    def _not_a_picture(self, name: str) -> str | None:
        extension = os.path.splitext(name)[1]
        if extension in self._extensions:
            return None
        if extension in ("", "."):
            return "not a picture (no extension)"
        # The reason goes to logs and terminals, which a name's stray bytes and line ends must not reach.
        shown = "".join(char if char.isprintable() else "?" for char in extension[:16])
        return f"not a picture ({shown})"


class _Table:
    """All rules for one kind of path as one regular expression: a name is looked at once, not once a rule."""

    def __init__(self, kind: Applies) -> None:
        rules = [rule for rule in RULES if kind in rule.applies]
        self._reasons = [rule.reason for rule in rules]
        self._regex = re.compile("|".join(f"({_translate(rule.pattern)})" for rule in rules), re.ASCII)

    def reason(self, name: str) -> str | None:
        match = self._regex.fullmatch(name)
        return self._reasons[match.lastindex - 1] if match and match.lastindex else None


@cache
def _table(kind: Applies) -> _Table:
    return _Table(kind)


def _fold(text: str, normalise: bool) -> str:
    return (unicodedata.normalize("NFC", text) if normalise else text).lower()


def _user_pattern(text: str) -> _UserPattern:
    pattern = text.removeprefix("!")
    if os.sep != "/":
        pattern = pattern.replace(os.sep, "/")
    applies = FOLDERS if pattern.endswith("/") else BOTH
    pattern = _fold(pattern.removeprefix("./").rstrip("/"), normalise=True)
    if not pattern:
        raise ValueError(f'ignore pattern "{text}" names nothing; write for example "*.bak" or "drafts/"')
    anywhere = "" if "/" in pattern else "(?:.*/)?"
    try:
        regex = re.compile(anywhere + _translate(pattern.lstrip("/"), users=True), re.DOTALL)
    except re.error as error:
        raise ValueError(f'ignore pattern "{text}" is no glob: {error}') from error
    return _UserPattern(regex, applies, None if text.startswith("!") else f'your pattern "{text}"')


def _translate(pattern: str, users: bool = False) -> str:
    """A glob as a regular expression without capturing groups; `users` know no `<regex>`."""
    regex, end = "", 0
    for special in _SPECIAL.finditer(pattern):
        regex += re.escape(pattern[end : special.start()])
        regex += _translate_special(special.group(), users)
        end = special.end()
    return regex + re.escape(pattern[end:])


def _translate_special(text: str, users: bool) -> str:
    if text == "**/":
        return "(?:[^/]+/)*"
    match text[0]:
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
        case "[":
            return _translate_set(text[1:-1])
        case _:
            return re.escape(text) if users else text[1:-1].replace("(", "(?:")


def _translate_set(body: str) -> str:
    # Letter by letter, because re warns of doubled signs, such as "--", that may get a meaning one day.
    negated, body = body.startswith("!"), body.removeprefix("!")
    members = re.sub(
        r"(.)-(.)|(.)",
        lambda found: "-".join(re.escape(char) for char in found.groups() if char),
        body,
        flags=re.DOTALL,
    )
    return f"[{'^/' if negated else ''}{members}]"
