"""On which file system a folder lies, and what that means: do changes raise events, does a client sync it away.

A watched inbox on a share looks healthy and hears nothing: the kernel reports what this machine does, never what a
server, a host or another client does. So each mount is judged by its type, sub-mounts of one inbox apart from each
other, and where events cannot be trusted the folder is polled.
"""

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

if sys.platform == "win32":
    import ctypes

_MOUNTINFO = "/proc/self/mountinfo"
_LEAST_BYTES = 1 << 16  # a transaction of the ledger is smaller, a picture seldom
_DRIVE_REMOTE = 4  # what Windows' GetDriveType answers for a mapped share

# fmt: off
# Other machines write here.
_REMOTE = frozenset({
    "nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "glusterfs", "lustre",
    "beegfs", "gpfs", "orangefs", "pvfs2", "panfs", "davfs", "webdav", "afpfs", "sshfs", "s3fs", "ocfs2", "gfs2",
})
# The host of this virtual machine, container or subsystem writes here. Docker Desktop forwards some events of its
# host and WSL none; neither promises them.
_HOST = frozenset({
    "9p", "drvfs", "virtiofs", "vboxsf", "vmhgfs", "hgfs", "prl_fs", "fakeowner", "grpcfuse", "osxfs",
    "fuse.vmhgfs-fuse", "fuse.grpcfuse", "fuse.osxfs", "fuse.prl_fsd",
})
# Every change goes through this kernel. fuseblk (ntfs-3g, exfat) belongs here although it is FUSE: it holds a block
# device that nobody else writes to. All other FUSE programs may change files behind the kernel's back.
_LOCAL = frozenset({
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs", "reiser4", "nilfs2",
    "ubifs", "jffs2", "minix", "ufs", "fuseblk", "ntfs", "ntfs3", "vfat", "msdos", "exfat", "hfs", "hfsplus", "apfs",
    "udf", "iso9660", "squashfs", "erofs", "tmpfs", "ramfs", "rootfs", "devtmpfs", "overlay", "overlayfs", "aufs",
    "unionfs", "shiftfs", "ecryptfs", "lxfs", "wslfs",
})
# fmt: on


class Mount(NamedTuple):
    """One line of the mount table.

    Attributes:
        point: the folder where it is mounted; its bytes may be any, as `os.fsdecode` shows them.
        fstype: the kernel's name of the file system, such as "ext4", "cifs" or "fuse.sshfs".
        source: what is mounted: a device, a share, or any word.
        device: "major:minor". Two mounts with one device are two views of one file system; on btrfs this is not
            the `st_dev` of the files.
    """

    point: str
    fstype: str
    source: str
    device: str


class Watching(NamedTuple):
    """How a folder is to be watched.

    Attributes:
        polling: True where native events cannot be trusted.
        why: one clause for the log and `doctor`.
    """

    polling: bool
    why: str


def read_mounts() -> list[Mount]:
    """The mount table of this process, in the kernel's order; empty where the system has none to read."""
    try:
        with open(_MOUNTINFO, "rb") as file:
            return parse_mountinfo(file.read())
    except OSError:
        return []


def parse_mountinfo(table: bytes) -> list[Mount]:
    """Read the text of `/proc/self/mountinfo`, see proc(5); lines of another shape are skipped."""
    mounts = []
    for line in table.split(b"\n"):
        # A line is "id parent device root point options [tags...] - fstype source options"; a blank inside a field
        # is escaped, so that a lone hyphen ends the tags for certain.
        head, hyphen, tail = line.partition(b" - ")
        fields, filesystem = head.split(b" "), tail.split(b" ")
        if not hyphen or len(fields) < 6 or len(filesystem) < 2:
            continue
        mounts.append(
            Mount(
                point=_unescape(fields[4]),
                fstype=_unescape(filesystem[0]),
                source=_unescape(filesystem[1]),
                device=_unescape(fields[2]),
            )
        )
    return mounts


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that holds `path`: the deepest that contains its real path, and of two on one point the later.

    Symbolic links are resolved on the disk. Nothing has to exist at `path`. None if no mount contains it, as with
    the empty table of a system that has none.
    """
    real = os.path.realpath(path)
    deepest = None
    for mount in mounts:
        if _contains(mount.point, real) and (deepest is None or len(mount.point) >= len(deepest.point)):
            deepest = mount
    return deepest


def mounts_below(path: str, mounts: Iterable[Mount]) -> list[Mount]:
    """The mounts inside the folder `path`, in the table's order, without those that a later one covers."""
    real = os.path.realpath(path)
    visible = {mount.point: mount for mount in mounts if mount.point != real and _contains(real, mount.point)}
    return list(visible.values())


def is_network(mount: Mount) -> bool:
    """Whether somebody else than this kernel may change files here, so that native events miss changes."""
    return _writers(mount.fstype) is not None


def why(mount: Mount) -> str:
    """What decides between native events and polling on this mount, as one clause for the log and `doctor`."""
    writers = _writers(mount.fstype)
    if writers is not None:
        return f"{mount.fstype}: changes made by {writers} raise no events here, polling"
    if mount.fstype in _LOCAL:
        return f"{mount.fstype}: local, native events"
    return f"{mount.fstype}: unknown file system, taken for local: native events, the rescan finds what they miss"


def how_to_watch(path: str, mounts: Iterable[Mount]) -> Watching:
    """Native events or polling for the folder `path` itself; ask again for each of `mounts_below`."""
    mount = mount_of(path, mounts)
    if mount is not None:
        return Watching(is_network(mount), why(mount))
    if _is_windows_share(path):
        return Watching(True, "network share: changes made by other machines may raise no events here, polling")
    return Watching(False, "unknown file system, no mount table: native events, the rescan finds what they miss")


def is_read_only(folder: str) -> bool:
    """Whether nobody may write to the file system of a folder; False where it cannot be told."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):  # Windows has none
        return False


def no_room(folder: str) -> str:
    """Why nothing can be written to the disk of a folder, as a clause; empty where it can, or it cannot be told."""
    try:
        disk = os.statvfs(folder)
    except (AttributeError, OSError):
        return ""
    if is_read_only(folder):
        return "its file system is read-only"
    # some servers report zeros for what they do not count
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < _LEAST_BYTES:
        return "its disk is full"
    if disk.f_files and disk.f_favail == 0:
        return "its disk has no room for more files (inodes)"
    return ""


def is_unc(path: str) -> bool:
    r"""Whether a Windows path names a share, such as `\\server\share\inbox`, however it is spelled."""
    path = path.replace("/", "\\")
    if path.startswith(("\\\\?\\", "\\\\.\\")):
        return path[4:8].upper() == "UNC\\"
    return path.startswith("\\\\")


def sync_client_hint(path: str) -> str | None:
    """The client that seems to sync the folder `path`, such as "Syncthing", or None.

    Moving an original out of a synced folder deletes it on every phone and PC that shares the folder, so a person
    should know. It is a guess, by the names of the folder and its parents and by the files that clients keep in them.
    Folders that cannot be read are passed over.
    """
    folder = os.path.realpath(path)
    while True:
        client = _client_by_name(os.path.basename(folder)) or _client_by_marker(folder)
        parent = os.path.dirname(folder)
        if client is not None or parent == folder:
            return client
        folder = parent


def sync_warning(client: str) -> str:
    """What a person should know whose inbox is synced."""
    return (
        f"the inbox seems to be synced by {client}: when an original moves to the archive, {client} deletes it from "
        "the inbox on every other device, too"
    )


def _writers(fstype: str) -> str | None:
    """Who besides this kernel changes files on such a file system, or None."""
    if fstype in _HOST:
        return "the host"
    # An automount is only a placeholder until somebody looks inside, and what it then mounts is mostly a share.
    if fstype in _REMOTE or fstype == "autofs":
        return "other machines"
    if fstype == "fuse" or fstype.startswith("fuse."):
        return "others than this machine's kernel"
    return None


def _contains(folder: str, path: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _unescape(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-3][0-7]{2})", lambda code: bytes([int(code[1], 8)]), field))


def _is_windows_share(path: str) -> bool:
    shared = False
    if sys.platform == "win32":
        # The real path of a mapped drive letter mostly names its share; GetDriveType knows the rest.
        drive = os.path.splitdrive(os.path.abspath(path))[0] + "\\"
        shared = is_unc(os.path.realpath(path)) or ctypes.windll.kernel32.GetDriveTypeW(drive) == _DRIVE_REMOTE
    return shared


# Folders that clients create under their own name. Spelled as they spell it: "dropbox" is a good name for any inbox.
_NAMES: Sequence[tuple[str, re.Pattern[str]]] = [
    ("Dropbox", re.compile(r"Dropbox( \(.*\))?", re.DOTALL)),
    ("OneDrive", re.compile(r"OneDrive( ?-.*)?", re.DOTALL)),
    ("Google Drive", re.compile(r"Google ?Drive(-.*)?", re.DOTALL)),
    ("iCloud Drive", re.compile(r"iCloud ?Drive|com~apple~CloudDocs")),
    ("Synology Drive", re.compile(r"Synology ?Drive")),
]


def _client_by_name(name: str) -> str | None:
    return next((client for client, pattern in _NAMES if pattern.fullmatch(name)), None)


def _always(_path: str) -> bool:
    return True


def _is_resilio_share(path: str) -> bool:
    # In a home folder, ".sync" is where the client keeps its own settings, and nothing there is synced.
    return os.path.lexists(os.path.join(path, "ID")) or os.path.lexists(os.path.join(path, "IgnoreList"))


# Files that clients keep at the top of a synced folder, and what else has to hold of them. A folder ".dropbox" is
# where Dropbox keeps its settings in a home folder; at the top of what it syncs stands a file of that name.
_MARKERS: Sequence[tuple[str, re.Pattern[str], Callable[[str], bool]]] = [
    ("Syncthing", re.compile(r"\.stfolder"), _always),
    ("Resilio Sync", re.compile(r"\.sync"), _is_resilio_share),
    ("Dropbox", re.compile(r"\.dropbox"), os.path.isfile),
    ("Dropbox", re.compile(r"\.dropbox\.cache"), _always),
    (
        "Nextcloud or ownCloud",
        re.compile(r"\._?sync_.*\.db|\.csync_journal\.db|\.(owncloud|nextcloud)sync\.log", re.DOTALL),
        _always,
    ),
    ("Synology Drive", re.compile(r"\.SynologyWorkingDirectory"), _always),
    ("Insync", re.compile(r"\.insync(-trash)?"), _always),
]


def _client_by_marker(folder: str) -> str | None:
    try:
        # An inbox may hold a hundred thousand pictures: only names that can be markers are kept.
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".")]
    except OSError:
        return None
    for client, pattern, holds in _MARKERS:
        if any(pattern.fullmatch(name) and holds(os.path.join(folder, name)) for name in names):
            return client
    return None
