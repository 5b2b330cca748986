"""One batch on a device, across the processes of a machine: a lock of the kernel."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import wait_until

from sr_engine import device_lock
from sr_engine.errors import DeviceBusy

HOLD = """
import sys, time
from sr_engine import device_lock
device_lock.take(sys.argv[1], "cuda:0")
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def name() -> Iterator[str]:
    found = f"test-{os.getpid()}-{time.monotonic_ns()}"
    yield found
    device_lock.release(found)
    for path in set(device_lock._places(found)):
        Path(path).unlink(missing_ok=True)


@pytest.fixture
def holder(name: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_told_who_has_the_device(name: str, holder: "subprocess.Popen[str]") -> None:
    with pytest.raises(DeviceBusy, match="another dropscale") as refused:
        device_lock.take(name, "cuda:0")
    if Path("/proc/locks").exists():
        assert f"process {holder.pid}" in refused.value.message
    assert device_lock.take(f"{name}-other", "cuda:1"), "another device is another lock"
    device_lock.release(f"{name}-other")
    Path(next(device_lock._places(f"{name}-other"))).unlink()


def test_whatever_ends_the_holder_frees_the_device(name: str, holder: "subprocess.Popen[str]") -> None:
    holder.kill()
    holder.wait()

    def taken() -> bool:
        try:
            return device_lock.take(name, "cuda:0")
        except DeviceBusy:
            return False

    wait_until(taken, "the lock")


def test_a_process_has_it_once_and_all_users_may_take_it(name: str) -> None:
    assert device_lock.take(name, "cuda:0")
    assert not device_lock.take(name, "cuda:0"), "it is its own already"
    path = Path(next(device_lock._places(name)))
    assert path.stat().st_mode & 0o777 == 0o666 and path.stat().st_size == 0
    device_lock.release(name)
    assert device_lock.take(name, "cuda:0")


def test_the_folder_is_one_that_a_service_with_its_own_tmp_shares(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /run/lock is for root alone, as on Fedora; PrivateTmp=yes has a /tmp that nobody else sees."""
    if Path("/dev/shm").is_dir():
        places = [str(Path(path).parent) for path in device_lock._places(name)]
        assert places.index("/dev/shm") < places.index("/tmp")
    folders = []
    for number, mode in enumerate((0o755, 0o777, 0o1777, 0o1777)):
        folder = tmp_path / str(number)
        folder.mkdir()
        folder.chmod(mode)
        folders.append(str(folder))
    monkeypatch.setattr(device_lock, "_FOLDERS", (str(tmp_path / "none"), *folders))
    assert device_lock.take(name, "cuda:0")
    assert [sorted(path.name for path in Path(folder).iterdir()) for folder in folders] == [
        [],
        [],
        [f"dropscale-{name}.lock"],
        [],
    ]


def test_a_link_in_its_place_is_neither_followed_nor_passed_over(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = Path(next(device_lock._places(name)))
    path.symlink_to(victim)
    with pytest.raises(DeviceBusy, match="symbolic link: remove it"):
        device_lock.take(name, "cuda:0")
    assert victim.read_text() == "precious" and victim.stat().st_mode & 0o777 != 0o666
