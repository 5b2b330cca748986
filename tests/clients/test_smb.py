"""Samba: what Windows and the Finder write by. smbclient for speed, and rclone, which can be slow."""

import subprocess

import pytest
from servers import Program, Programs, SmbServer, need
from uploads import Album, Uploads


def copy_slowly(programs: Programs, server: SmbServer, name: str, data: bytes) -> Program:
    """smbclient has no limit, and reads all that it can ahead; rclone writes as it goes."""
    return programs.start(*rclone(programs, server, name, data), "--bwlimit", "2M")


def rclone(programs: Programs, server: SmbServer, name: str, data: bytes) -> list[str]:
    program, config = need("rclone", "rclone"), str(programs.file("rclone.conf", ""))
    known = subprocess.run(
        [program, "help", "backends", "--config", config], check=True, capture_output=True, text=True
    )
    if " smb " not in known.stdout:
        pytest.skip("this rclone is too old for SMB: apt-get install rclone, 1.60 or newer")
    source = programs.file(name, data)
    return [program, "copyto", str(source), f"{server.for_rclone}:inbox/{name}", "--config", config]


def test_large_and_many_pictures_are_taken_once_each(uploads: Uploads, album: Album, programs: Programs) -> None:
    server = SmbServer(programs, uploads.site.inbox)
    commands = ["mkdir album"]
    for number in range(24):
        name = f"album/{number}.jpg" if number else "large.png"
        source = programs.file(name, uploads.expect(name, album.jpeg(1) if number else album.png(20)))
        commands.append(f"put {source} {name.replace('/', chr(92))}")
    programs.run(*server.client(*commands))
    uploads.finish()


@pytest.mark.slow
@pytest.mark.parametrize("allocate", ["no", "yes"])
def test_a_slow_upload_is_taken_when_it_is_whole(
    uploads: Uploads, album: Album, programs: Programs, allocate: str
) -> None:
    server = SmbServer(programs, uploads.site.inbox, strict_allocate=allocate)
    data = uploads.expect("slow.jpg", album.jpeg(6))
    uploads.stall({"slow.jpg": copy_slowly(programs, server, "slow.jpg", data)}, album.png(1))
    uploads.finish()


def test_an_upload_that_is_killed_and_repeated_is_taken_once(
    uploads: Uploads, album: Album, programs: Programs
) -> None:
    server = SmbServer(programs, uploads.site.inbox)
    data = uploads.expect("again.jpg", album.jpeg(6))
    client = copy_slowly(programs, server, "again.jpg", data)
    uploads.wait_for_part("again.jpg", client)
    client.kill()
    uploads.wait_for_doubts("again.jpg")
    programs.run(*server.client(f"put {programs.file('again.jpg', data)} again.jpg"))
    uploads.finish(interrupted={"again.jpg"})
