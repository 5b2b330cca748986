import os
import sys
from pathlib import Path

import pytest

from watcher.files.mounts import (
    Mount,
    how_to_watch,
    is_network,
    is_unc,
    mount_of,
    mounts_below,
    parse_mountinfo,
    read_mounts,
    sync_client_hint,
    why,
)

posix_only = pytest.mark.skipif(os.sep != "/", reason="mount tables with POSIX paths")

# A NAS box: inbox on the local disk, a Windows share and an SSH one below it.
NAS = rb"""22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
31 28 0:26 / /dev/shm rw,nosuid,nodev shared:4 - tmpfs tmpfs rw,inode64
88 28 8:17 / /srv/pictures rw,relatime shared:44 - xfs /dev/sdb1 rw,attr2,inode64
90 88 0:52 / /srv/pictures/inbox/office rw,relatime shared:50 - cifs //nas.example/scans rw,vers=3.1.1,cache=strict
91 88 0:53 / /srv/pictures/inbox/My\040phone\011\134o/ rw,nosuid,nodev shared:51 - fuse.sshfs me@phone:/DCIM rw
92 88 0:54 / /srv/pictures/inbox/cards rw shared:52 - fuseblk /dev/sdc1 rw,user_id=0,group_id=0,blksize=4096
93 28 8:17 /inbox /srv/drop rw,relatime shared:44 - xfs /dev/sdb1 rw,attr2,inode64
94 28 0:55 / /srv/pictures-nfs rw,relatime master:3 propagate_from:1 - nfs4 10.0.0.2:/pictures rw,vers=4.2
"""

WSL = rb"""75 60 8:32 / / rw,relatime - ext4 /dev/sdc rw,discard,errors=remount-ro,data=ordered
80 75 0:29 / /mnt/wsl rw,relatime shared:1 - tmpfs none rw
107 75 0:60 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\;uid=1000;gid=1000,access=client,trans=fd
108 75 0:61 / /mnt/d rw,noatime - drvfs D:\134 rw,uid=1000,gid=1000,case=off
"""

DOCKER = rb"""621 530 0:93 / / rw,relatime master:180 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
622 621 0:96 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
630 621 254:1 /docker/volumes/state/_data /srv/state rw,relatime master:34 - ext4 /dev/vda1 rw
631 621 0:40 /Users/me/inbox /srv/inbox rw,relatime - fakeowner /run/host_mark/Users rw,fakeowner
632 621 0:41 / /srv/outbox rw,nosuid,nodev,relatime - fuse.grpcfuse grpcfuse rw,user_id=0,group_id=0,allow_other
633 621 0:42 / /srv/archive rw,relatime - virtiofs virtiofs0 rw
"""


def test_reads_a_line_with_and_without_tags() -> None:
    mounts = parse_mountinfo(NAS)
    assert len(mounts) == 9
    assert mounts[1] == Mount("/", "ext4", "/dev/sda1", "8:1")
    assert mounts[-1] == Mount("/srv/pictures-nfs", "nfs4", "10.0.0.2:/pictures", "0:55")
    assert parse_mountinfo(WSL)[2] == Mount("/mnt/c", "9p", "C:\\", "0:60")


def test_undoes_the_escapes_of_the_kernel() -> None:
    assert parse_mountinfo(NAS)[5].point == "/srv/pictures/inbox/My phone\t\\o/"
    line = rb"40 28 0:9 / /srv/line\012end\040-\040hash\043 rw - tmpfs a\040source rw"
    assert parse_mountinfo(line) == [Mount("/srv/line\nend - hash#", "tmpfs", "a source", "0:9")]


@posix_only
def test_names_that_are_not_utf8_survive() -> None:
    (mount,) = parse_mountinfo(b"40 28 0:9 / /srv/caf\xe9\\040bar rw - cifs //nas/\xe9 rw")
    assert os.fsencode(mount.point) == b"/srv/caf\xe9 bar"
    assert mount_of(os.fsdecode(b"/srv/caf\xe9 bar/a.jpg"), [mount]) == mount


def test_lines_of_another_shape_are_skipped() -> None:
    table = (
        b"\n\nbroken line\n1 2 3 - x\n40 28 0:9 / /a rw -\n41 28 0:9 / /b rw - tmpfs\n42 28 0:9 / /c rw - tmpfs  rw\n"
    )
    assert parse_mountinfo(table) == [Mount("/c", "tmpfs", "", "0:9")]
    assert parse_mountinfo(b"") == []


@posix_only
def test_the_deepest_mount_that_contains_the_path_decides() -> None:
    mounts = parse_mountinfo(NAS)
    for path, fstype in [
        ("/srv/pictures/inbox/office/2024/a.jpg", "cifs"),
        ("/srv/pictures/inbox/office", "cifs"),
        ("/srv/pictures/inbox/office2", "xfs"),
        ("/srv/pictures/inbox", "xfs"),
        ("/srv/pictures-nfs/a", "nfs4"),
        ("/srv/pictures-nf", "ext4"),
        ("/srv", "ext4"),
        ("/", "ext4"),
    ]:
        mount = mount_of(path, mounts)
        assert mount is not None, path
        assert mount.fstype == fstype, path


@posix_only
def test_a_bind_mount_is_a_mount_of_its_own_on_the_same_device() -> None:
    mounts = parse_mountinfo(NAS)
    bound, disk = mount_of("/srv/drop/a.jpg", mounts), mount_of("/srv/pictures", mounts)
    assert bound is not None
    assert disk is not None
    assert bound.point == "/srv/drop"
    assert bound.device == disk.device


@posix_only
def test_a_later_mount_hides_an_earlier_one_on_the_same_point() -> None:
    mounts = parse_mountinfo(
        b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        b"2 1 0:5 / /srv/nas rw - autofs /etc/auto.nas rw\n"
        b"3 2 0:6 / /srv/nas rw - nfs nas:/x rw\n"
    )
    mount = mount_of("/srv/nas/inbox", mounts)
    assert mount is not None
    assert mount.fstype == "nfs"
    assert [m.fstype for m in mounts_below("/srv", mounts)] == ["nfs"]
    assert how_to_watch("/srv/nas", mounts[:2]).polling, "not mounted yet: it will mostly be a share"


@posix_only
def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    mounts = [Mount("/", "ext4", "/dev/sda1", "8:1"), Mount(os.path.realpath(real), "cifs", "//nas/x", "0:5")]
    assert mount_of(str(tmp_path / "link" / "a.jpg"), mounts) == mounts[1]
    assert mounts_below(str(tmp_path), mounts) == [mounts[1]]


@posix_only
def test_sub_mounts_of_an_inbox_are_found_and_judged_one_by_one() -> None:
    mounts = parse_mountinfo(NAS)
    below = mounts_below("/srv/pictures/inbox", mounts)
    assert [(m.fstype, is_network(m)) for m in below] == [("cifs", True), ("fuse.sshfs", True), ("fuseblk", False)]
    assert not how_to_watch("/srv/pictures/inbox", mounts).polling
    assert how_to_watch("/srv/pictures/inbox/office", mounts).polling
    assert mounts_below("/srv/pictures/inbox/office", mounts) == []
    assert len(mounts_below("/", mounts)) == 8


@posix_only
def test_wsl_sees_windows_drives_as_somebody_elses() -> None:
    mounts = parse_mountinfo(WSL)
    assert how_to_watch("/mnt/c/Users/me/inbox", mounts).polling
    assert how_to_watch("/mnt/d/inbox", mounts).polling
    assert not how_to_watch("/srv/inbox", mounts).polling


@posix_only
def test_containers_see_bind_mounts_of_their_host_as_somebody_elses() -> None:
    mounts = parse_mountinfo(DOCKER)
    polled = {point: how_to_watch(point, mounts).polling for point in ("/app", "/srv/state", "/srv/inbox")}
    assert polled == {"/app": False, "/srv/state": False, "/srv/inbox": True}
    assert how_to_watch("/srv/outbox", mounts).polling
    assert how_to_watch("/srv/archive", mounts).polling


OTHERS_WRITE = """
nfs nfs4 cifs smb3 smbfs ncpfs afs ceph glusterfs lustre davfs autofs 9p drvfs virtiofs vboxsf vmhgfs prl_fs fakeowner
osxfs grpcfuse fuse fuse.sshfs fuse.rclone fuse.glusterfs fuse.vmhgfs-fuse fuse.gvfsd-fuse fuse.mergerfs fuse.shfs
fuse.s3fs fuse.osxfs
"""
LOCAL = "ext4 ext3 xfs btrfs zfs f2fs bcachefs ecryptfs overlay tmpfs ntfs3 vfat exfat fuseblk apfs"


@pytest.mark.parametrize("fstype", OTHERS_WRITE.split())
def test_polls_where_others_write(fstype: str) -> None:
    mount = Mount("/srv", fstype, "x", "0:1")
    assert is_network(mount)
    assert why(mount).startswith(f"{fstype}: ")
    assert why(mount).endswith(", polling")


@pytest.mark.parametrize("fstype", LOCAL.split())
def test_trusts_events_on_local_disks(fstype: str) -> None:
    mount = Mount("/srv", fstype, "x", "0:1")
    assert not is_network(mount)
    assert why(mount) == f"{fstype}: local, native events"


def test_says_who_writes() -> None:
    assert why(Mount("/m", "cifs", "//nas/x", "0:1")) == (
        "cifs: changes made by other machines raise no events here, polling"
    )
    assert why(Mount("/m", "9p", "C:\\", "0:1")) == "9p: changes made by the host raise no events here, polling"
    assert "this machine's kernel" in why(Mount("/m", "fuse.mergerfs", "a:b", "0:1"))


def test_an_unknown_file_system_is_tried_and_called_unknown() -> None:
    mount = Mount("/m", "newfs", "x", "0:1")
    assert not is_network(mount)
    assert why(mount).startswith("newfs: unknown file system")


@posix_only
def test_without_a_mount_table_events_are_tried(tmp_path: Path) -> None:
    assert mount_of(str(tmp_path), []) is None
    assert mounts_below(str(tmp_path), []) == []
    polling, reason = how_to_watch(str(tmp_path), [])
    assert not polling
    assert reason.startswith("unknown file system")


@pytest.mark.parametrize(
    ("path", "share"),
    [
        (r"\\server\share\inbox", True),
        ("//server/share/inbox", True),
        (r"\\?\UNC\server\share", True),
        (r"\\?\unc\server\share", True),
        (r"\\wsl.localhost\Ubuntu\srv", True),
        (r"\\?\C:\inbox", False),
        (r"\\.\C:\inbox", False),
        (r"C:\inbox", False),
        (r"\inbox", False),
        ("inbox", False),
    ],
)
def test_knows_the_spellings_of_windows_shares(path: str, share: bool) -> None:
    assert is_unc(path) is share


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_reads_this_machines_own_table(tmp_path: Path) -> None:
    mounts = read_mounts()
    root = mount_of("/", mounts)
    assert root is not None
    assert root.point == "/"
    proc = mount_of("/proc/self", mounts)
    assert proc is not None
    assert proc.fstype == "proc"
    here = mount_of(str(tmp_path / "not" / "there" / "yet"), mounts)
    assert here is not None
    assert os.path.ismount(here.point)
    assert how_to_watch(str(tmp_path), mounts).why


@pytest.mark.skipif(sys.platform.startswith("linux"), reason="other systems have no /proc")
def test_no_table_where_there_is_no_proc() -> None:
    assert read_mounts() == []


@pytest.mark.parametrize(
    ("marker", "client"),
    [
        (".stfolder/", "Syncthing"),
        (".stfolder", "Syncthing"),
        (".sync/ID", "Resilio Sync"),
        (".sync/IgnoreList", "Resilio Sync"),
        (".dropbox", "Dropbox"),
        (".dropbox.cache/", "Dropbox"),
        (".sync_0123456789ab.db", "Nextcloud or ownCloud"),
        ("._sync_0123456789ab.db", "Nextcloud or ownCloud"),
        (".csync_journal.db", "Nextcloud or ownCloud"),
        (".owncloudsync.log", "Nextcloud or ownCloud"),
        (".nextcloudsync.log", "Nextcloud or ownCloud"),
        (".SynologyWorkingDirectory/", "Synology Drive"),
        (".insync-trash/", "Insync"),
    ],
)
def test_knows_clients_by_what_they_leave_at_the_top(tmp_path: Path, marker: str, client: str) -> None:
    inbox = tmp_path / "shared" / "pictures" / "inbox"
    inbox.mkdir(parents=True)
    assert sync_client_hint(str(inbox)) is None
    made = tmp_path / "shared" / marker
    if marker.endswith("/"):
        made.mkdir()
    else:
        made.parent.mkdir(exist_ok=True)
        made.touch()
    assert sync_client_hint(str(inbox)) == client
    assert sync_client_hint(str(tmp_path / "shared")) == client
    assert sync_client_hint(str(tmp_path / "shared" / "not" / "there" / "yet")) == client
    assert sync_client_hint(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("folder", "client"),
    [
        ("Dropbox", "Dropbox"),
        ("Dropbox (Example Ltd)", "Dropbox"),
        ("OneDrive", "OneDrive"),
        ("OneDrive - Example Ltd", "OneDrive"),
        ("OneDrive-Personal", "OneDrive"),
        ("Google Drive", "Google Drive"),
        ("GoogleDrive-me@example.org", "Google Drive"),
        ("iCloud Drive", "iCloud Drive"),
        ("iCloudDrive", "iCloud Drive"),
        ("com~apple~CloudDocs", "iCloud Drive"),
        ("SynologyDrive", "Synology Drive"),
        ("dropbox", None),
        ("drop", None),
        ("Dropboxes", None),
        ("OneDriver", None),
    ],
)
def test_knows_clients_by_the_folders_they_create(tmp_path: Path, folder: str, client: str | None) -> None:
    assert sync_client_hint(str(tmp_path / folder / "inbox")) == client


def test_the_settings_of_clients_in_a_home_folder_do_not_count(tmp_path: Path) -> None:
    (tmp_path / ".dropbox").mkdir()
    (tmp_path / ".sync").mkdir()
    assert sync_client_hint(str(tmp_path / "inbox")) is None
