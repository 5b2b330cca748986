"""Redis by TLS, with a user and a password: who is let in, and what those are told who are not."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import QueueSite, RedisServer, children, command_line, redis_program
from test_both_executors import settle
from test_queue_faults import begin

from watcher.queue.redis_link import connect

PASSWORD = "hunter2-and-more"
# Says the same as docs/scaling.md.
RIGHTS = "~rq:* ~dropscale:* &rq:* +@all -@dangerous +info"


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], check=True, cwd=folder, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, and certificates by the first: `good`, `expired`, `elsewhere`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    folder = tmp_path_factory.mktemp("papers")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "other"):
        paths = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl(folder, "req", "-x509", *key, *paths, "-days", "2", "-subj", f"/CN={name} of a test")
    for name, names, days in (
        ("good", "IP:127.0.0.1", "2"),
        ("expired", "IP:127.0.0.1", "-1"),
        ("elsewhere", "DNS:redis.example.org", "2"),
    ):
        openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.names").write_text(f"subjectAltName={names}")
        words = ("-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days)
        openssl(folder, "x509", *words, "-out", f"{name}.pem", "-extfile", f"{name}.names")
    return folder


class TlsServer(RedisServer):
    """A server that speaks TLS on a port, too, for one user; tests look after it by its socket."""

    def __init__(self, papers: Path, certificate: str) -> None:
        refusal = subprocess.run(
            [redis_program(), "--tls-port", "0", "--no-such-option"], check=False, capture_output=True
        )
        if b"tls-port" in refusal.stdout + refusal.stderr:
            pytest.skip("this redis-server was built without TLS")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        paths = [str(papers / f"{certificate}.{kind}") for kind in ("pem", "key")]
        tls = ("--tls-port", str(self.port), "--tls-cert-file", paths[0], "--tls-key-file", paths[1])
        super().__init__(*tls, "--tls-auth-clients", "no")

    def start(self) -> None:
        super().start()
        with self.client() as client:
            client.execute_command("ACL", "SETUSER", "dropscale", "on", f">{PASSWORD}", *RIGHTS.split())

    def address(self, ca: Path | None, user: str = f"dropscale:{PASSWORD}@", scheme: str = "rediss") -> str:
        return f"{scheme}://{user}127.0.0.1:{self.port}/0" + (f"?ssl_ca_certs={ca}" if ca else "")


@pytest.fixture
def tls(request: pytest.FixtureRequest, papers: Path) -> Iterator[TlsServer]:
    server = TlsServer(papers, getattr(request, "param", "good"))
    server.start()
    yield server
    server.close()


def test_pictures_are_done_by_tls_for_a_user_with_few_rights(
    make_queue_site: Callable[..., QueueSite], tls: TlsServer, papers: Path
) -> None:
    site = make_queue_site()
    site.environment["DROPSCALE_QUEUE__URL"] = tls.address(papers / "ca.pem")
    worker = site.worker()
    promise, watcher = begin(site, 2, 0.3)
    while len(site.names(site.archive)) < 2:
        for pid in (worker.pid, watcher.pid, *children(worker.pid), *site.engines()):
            assert PASSWORD.encode() not in command_line(pid), "ps shows it"
        promise.check_now()
    settle(promise)
    assert f"at rediss://127.0.0.1:{tls.port}/0" in worker.log()
    doctor = site.run("doctor")
    assert worker.stop() == watcher.stop() == 0
    told = worker.log() + watcher.log() + doctor.stdout + doctor.stderr
    assert PASSWORD not in told and "warning" not in worker.log() + watcher.log(), told


REFUSED = [
    ("good", "other.pem", {}, "is by an authority that is not known here", "name the file of that authority"),
    ("good", None, {}, "is by an authority that is not known here", "name the file of that authority"),
    ("good", "missing.pem", {}, "cannot be read (No such file or directory)", "correct ssl_ca_certs"),
    ("good", "good.names", {}, "cannot be read (NO_CERTIFICATE_OR_CRL_FOUND)", "correct ssl_ca_certs"),
    ("expired", "ca.pem", {}, "has expired", "renew it"),
    ("elsewhere", "ca.pem", {}, "is for another name", "write a name that it is for"),
    ("good", "ca.pem", {"user": "dropscale:wrong-one@"}, "wants another user or password", "correct queue.url"),
    ("good", "ca.pem", {"user": f"nobody:{PASSWORD}@"}, "wants another user or password", "correct queue.url"),
    ("good", None, {"scheme": "redis"}, "it speaks TLS, the address has to begin with rediss://", "start it, or"),
]


@pytest.mark.parametrize(("tls", "ca", "address", "why", "remedy"), REFUSED, indirect=["tls"])
def test_who_is_not_let_in_is_told_why_and_what_to_do(
    make_queue_site: Callable[..., QueueSite],
    tls: TlsServer,
    papers: Path,
    ca: str | None,
    address: dict[str, str],
    why: str,
    remedy: str,
) -> None:
    site = make_queue_site()
    site.environment["DROPSCALE_QUEUE__URL"] = tls.address(papers / ca if ca else None, **address)
    done = site.run("worker", "--share", str(site.root), "--burst")
    assert done.returncode == 3, done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith("dropscale: ") and why in first
    assert second.startswith("  What to do: ") and remedy in second
    assert "hunter2" not in done.stderr and "wrong-one" not in done.stderr


@pytest.mark.parametrize("tls", ["expired"], indirect=True)
def test_the_watcher_lets_pictures_wait_with_that_reason(
    make_queue_site: Callable[..., QueueSite], tls: TlsServer, papers: Path
) -> None:
    site = make_queue_site()
    site.environment["DROPSCALE_QUEUE__URL"] = tls.address(papers / "ca.pem")
    site.drop("a.png", b"a picture")
    done = site.once()
    assert done.returncode == 3
    assert "has expired: renew it" in site.troubles()
    assert "hunter2" not in done.stdout + done.stderr + str(site.status())


def test_a_user_without_the_rights_is_told_so(queue_site: QueueSite, server: RedisServer) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "poor", "on", ">secret-word", "~other:*", "+@read")
    url = server.url.replace("unix://", "unix://poor:secret-word@")
    queue_site.environment["DROPSCALE_QUEUE__URL"] = url
    done = queue_site.run("worker", "--share", str(queue_site.root), "--burst")
    assert done.returncode == 3
    assert "does not let this user do its work" in done.stderr and "What to do: see" in done.stderr
    assert "secret-word" not in done.stderr


@pytest.mark.parametrize("verb", [("worker", "--share", ".", "--burst"), ("once",)], ids=["worker", "watcher"])
def test_a_port_that_does_not_speak_tls_is_told_after_one_try(
    make_queue_site: Callable[..., QueueSite], verb: tuple[str, ...]
) -> None:
    """It takes each connection and says nothing: a second one would be a second try."""
    site = make_queue_site()
    with socket.create_server(("127.0.0.1", 0)) as plain:
        site.environment["DROPSCALE_QUEUE__URL"] = f"rediss://127.0.0.1:{plain.getsockname()[1]}/0"
        site.drop("a.png", b"a picture")
        done = site.run(*verb)
        assert done.returncode == 3
        assert "the address has to begin with redis://" in done.stderr + site.troubles()
        plain.setblocking(False)
        plain.accept()[0].close()
        with pytest.raises(BlockingIOError):
            plain.accept()


@pytest.mark.slow
def test_an_answer_by_tls_may_take_longer_than_the_handshake(tls: TlsServer, papers: Path) -> None:
    with connect(tls.address(papers / "ca.pem")) as connection:
        assert connection.blpop(["rq:nothing-comes-here"], 6) is None
