"""scp and sftp, by OpenSSH's server: written under the final name, open until the last byte."""

import pytest
from servers import Programs, SshServer, need
from uploads import Album, Uploads


@pytest.mark.slow
def test_throttled_uploads_by_scp_and_sftp_are_taken_whole(uploads: Uploads, album: Album, programs: Programs) -> None:
    """-l is in kilobits; the old protocol of scp, too, which sets the size and the time in its own way."""
    scp, sftp = need("scp", "openssh-client"), need("sftp", "openssh-client")
    server, inbox = SshServer(programs), uploads.site.inbox
    limit = ("-l", "8000")
    sources = {}
    for name in ("scp.jpg", "old.png", "sftp.jpg"):
        data = uploads.expect(name, album.png(2.5) if name.endswith("png") else album.jpeg(2.5))
        sources[name] = programs.file(name, data)
    batch = programs.file("batch", f'put -p "{sources["sftp.jpg"]}" "{inbox}/sftp.jpg"\n')
    clients = {
        "scp.jpg": programs.start(scp, "-p", *limit, *server.options, sources["scp.jpg"], server.at(inbox)),
        "old.png": programs.start(scp, "-O", "-p", *limit, *server.options, sources["old.png"], server.at(inbox)),
        "sftp.jpg": programs.start(sftp, *limit, "-b", batch, *server.options, server.at(inbox)),
    }
    uploads.stall(clients, album.png(1))
    uploads.finish()


@pytest.mark.slow
def test_uploads_that_are_killed_and_repeated_are_taken_once(
    uploads: Uploads, album: Album, programs: Programs
) -> None:
    """scp begins anew over what is there; sftp's reput goes on where it was."""
    scp, sftp = need("scp", "openssh-client"), need("sftp", "openssh-client")
    server, inbox = SshServer(programs), uploads.site.inbox
    copied = programs.file("scp.png", uploads.expect("scp.png", album.png(4)))
    put = programs.file("sftp.jpg", uploads.expect("sftp.jpg", album.jpeg(4)))
    batches = [programs.file(verb, f"{verb} {put} {inbox}/sftp.jpg\n") for verb in ("put", "reput")]
    clients = {
        "scp.png": programs.start(scp, "-l", "8000", *server.options, copied, server.at(inbox)),
        "sftp.jpg": programs.start(sftp, "-l", "8000", "-b", batches[0], *server.options, server.at(inbox)),
    }
    for name, client in clients.items():
        uploads.wait_for_part(name, client)
        client.kill()
    for name in clients:
        uploads.wait_for_doubts(name)
    programs.run(scp, *server.options, copied, server.at(inbox))
    programs.run(sftp, "-b", batches[1], *server.options, server.at(inbox))
    uploads.finish(interrupted=set(clients))


def test_a_folder_by_scp_is_taken_once_each(uploads: Uploads, album: Album, programs: Programs) -> None:
    scp, server = need("scp", "openssh-client"), SshServer(programs)
    for number in range(12):
        name = f"album/{number}.jpg"
        programs.file(name, uploads.expect(name, album.jpeg(1 if number else 20)))
    programs.run(scp, "-r", *server.options, programs.folder / "album", server.at(uploads.site.inbox))
    uploads.finish()
