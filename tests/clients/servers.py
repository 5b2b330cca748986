"""Servers and clients of the system's own, as children of a test: on loopback, on free ports, and ended with it."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest
from harness import wait_until

LOOPBACK = "127.0.0.1"
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_START_SECONDS = 20.0
_END_SECONDS = 5.0


def need(program: str, package: str) -> str:
    """Where a program is; the test is skipped where it is missing."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return found


def user() -> str:
    """Of this process, whatever the environment says."""
    return pwd.getpwuid(os.getuid()).pw_name


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        return int(free.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


class Program:
    """A child process in a session of its own, so that it can be ended with all that it started."""

    def __init__(self, words: Sequence[str], log: Path, stdin: "int | IO[bytes]", **environment: str) -> None:
        self.name = Path(words[0]).name
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                words,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=log.parent,
                env={**os.environ, **environment},
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def failed(self) -> bool:
        """Whether it has ended, and not well."""
        return self.process.poll() not in (None, 0)

    def wait(self, patience: float = 60.0) -> None:
        """Until it ends by itself, which has to be a good end."""
        code = self.process.wait(patience)
        assert code == 0, f"{self.name} ended with {code}: {self.log()}"

    def pause(self) -> None:
        """Let it stand still half-way, with all that it started, until `resume`: nobody can be too quick for a test."""
        assert not self.ended, f"{self.name} had ended already: {self.log()}"
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it half-way, with all that it started."""
        assert not self.ended, f"{self.name} had ended already: {self.log()}"
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(_END_SECONDS)

    def close(self) -> None:
        """End it, politely first; whatever it started goes with it."""
        if not self.ended:
            self.resume()  # who stands still does not hear
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Programs:
    """All programs of a test, with a folder for their files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._closing: list[Callable[[], object]] = []
        self._count = 0

    def file(self, name: str, content: bytes | str) -> Path:
        """A file of a client's or a server's own."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def start(self, *words: "str | Path", stdin: "int | IO[bytes]" = subprocess.DEVNULL, **environment: str) -> Program:
        self._count += 1
        log = self.folder / f"{self._count}-{Path(words[0]).name}.log"
        program = Program([str(word) for word in words], log, stdin, **environment)
        self.at_end(program.close)
        return program

    def run(self, *words: "str | Path", stdin: "int | IO[bytes]" = subprocess.DEVNULL, **environment: str) -> Program:
        """To its end, which has to be a good one."""
        program = self.start(*words, stdin=stdin, **environment)
        program.wait()
        return program

    def serve(self, port: int, *words: "str | Path", **environment: str) -> Program:
        """A server; returns when it answers."""
        server = self.start(*words, **environment)
        wait_until(lambda: answers(port) or server.ended, f"{server.name} to answer", _START_SECONDS)
        assert not server.ended, server.log()
        return server

    def at_end(self, action: Callable[[], object]) -> None:
        """Do this when the test is over; last come, first served."""
        self._closing.append(action)

    def close(self) -> None:
        while self._closing:
            self._closing.pop()()


class SshServer:
    """sshd with keys of its own, for this user alone; sftp and scp end in the folders of this machine."""

    def __init__(self, programs: Programs) -> None:
        sshd = need("sshd", "openssh-server")
        self.port = free_port()
        self._folder = programs.folder / "ssh"
        self._folder.mkdir()
        for key in ("host", "mine"):
            programs.run(
                need("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", self._folder / key
            )
        public = (self._folder / "host.pub").read_text()
        programs.file("ssh/known", f"[{LOOPBACK}]:{self.port} {public}")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(
                mode=0o755, exist_ok=True
            )  # as its unit does; sshd starts without it for users only
        config = programs.file(
            "ssh/sshd_config",
            f"ListenAddress {LOOPBACK}\nPort {self.port}\nHostKey {self._folder / 'host'}\n"
            f"AuthorizedKeysFile {self._folder / 'mine.pub'}\nAllowUsers {user()}\nPermitRootLogin prohibit-password\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
            "Subsystem sftp internal-sftp\n",
        )
        programs.serve(self.port, sshd, "-D", "-e", "-f", config)

    @property
    def options(self) -> list[str]:
        """For ssh, scp, sftp and sshfs alike: nothing of this user's own settings, and no questions."""
        options = {
            "IdentityFile": self._folder / "mine",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self._folder / "known",
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "Port": self.port,
        }
        return ["-F", "/dev/null", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]

    @staticmethod
    def at(path: Path) -> str:
        return f"{user()}@{LOOPBACK}:{path}"


class SmbServer:
    """Samba with one share that needs no password, and all its own files in the test's folder."""

    def __init__(self, programs: Programs, share: Path, **options: str) -> None:
        smbd, self._client = need("smbd", "samba"), need("smbclient", "smbclient")
        self.port = free_port()
        # Not in the test's folder: the path of a socket has 107 bytes at most.
        folder = Path(tempfile.mkdtemp(prefix="smb-"))
        programs.at_end(lambda: shutil.rmtree(folder))
        places = ("private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir")
        lines = [
            "[global]",
            f"interfaces = {LOOPBACK}",
            "bind interfaces only = yes",
            f"smb ports = {self.port}",
            "server role = standalone server",
            "disable netbios = yes",
            "disable spoolss = yes",
            "load printers = no",
            "printcap name = /dev/null",
            "map to guest = bad user",
            f"guest account = {user()}",
            f"log file = {folder / 'log'}",
        ]
        for place in places:
            (folder / place).mkdir(parents=True)
            lines.append(f"{place} = {folder / place}")
        lines += ["[inbox]", f"path = {share}", "read only = no", "guest ok = yes"]
        lines += [f"{key.replace('_', ' ')} = {value}" for key, value in options.items()]
        self._config = programs.file("smb/smb.conf", "\n".join(lines) + "\n")
        words = (smbd, "--foreground", "--no-process-group", "--debug-stdout", f"--configfile={self._config}")
        programs.serve(self.port, *words)

    def client(self, *commands: str) -> list[str]:
        """The words of a smbclient that does this and ends."""
        share = f"//{LOOPBACK}/inbox"
        return [self._client, share, "-s", str(self._config), "-N", "-p", str(self.port), "-c", "; ".join(commands)]

    @property
    def for_rclone(self) -> str:
        """Where rclone finds it; any user is a guest."""
        return f":smb,host={LOOPBACK},port={self.port},user=somebody"


class RsyncServer:
    """rsync's own daemon, as a NAS has it; a client that dies leaves it behind to tidy up."""

    def __init__(self, programs: Programs, module: Path) -> None:
        self.rsync = need("rsync", "rsync")
        self.port = free_port()
        owner = f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.getuid() == 0 else ""
        config = programs.file(
            "rsyncd.conf", f"use chroot = no\n{owner}[inbox]\npath = {module}\nread only = no\nmunge symlinks = no\n"
        )
        words = ("--daemon", "--no-detach", f"--config={config}", f"--address={LOOPBACK}", f"--port={self.port}")
        programs.serve(self.port, self.rsync, *words, "--log-file=/dev/stderr")
        self.url = f"rsync://{LOOPBACK}:{self.port}/inbox/"


class WebdavServer:
    """rclone, serving a folder by WebDAV."""

    def __init__(self, programs: Programs, folder: Path, *options: str) -> None:
        rclone = need("rclone", "rclone")
        self.port = free_port()
        address = f"{LOOPBACK}:{self.port}"
        own = ("--config", programs.file("rclone.conf", ""), "--cache-dir", programs.folder / f"cache-{self.port}")
        programs.serve(self.port, rclone, "serve", "webdav", folder, "--addr", address, *own, *options)
        self.url = f"http://{address}/"
