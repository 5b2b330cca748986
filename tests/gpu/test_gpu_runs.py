"""Batches on a GPU that is not there, through the installed command: the bill, the wait for it, and its release."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpus import Gpus, python
from harness import HASTE, QUICK, STUB_ENGINE, Site, photo, wait_until

from sr_engine.nvml import sees_all_processes

trusted = pytest.mark.skipif(not sees_all_processes(), reason="process numbers here are not those that a driver sees")
FULL = 16_150  # MiB of 16,384: no tile fits


@pytest.fixture
def gpu_site(make_site: Callable[..., Site], gpus: Gpus) -> Site:
    """The stub engine, on a device that it says is cuda:0, where it has 500 MiB."""
    site = make_site(engine={"command": STUB_ENGINE, **QUICK["engine"], "device": "cuda:0"})
    site.environment |= {**gpus.environment, "STUB": "DEVICE cuda:0 CONTEXT 500 1500"}
    return site


def run(site: Site) -> dict[str, Any]:
    """A batch of one picture; returns its engine's row."""
    site.drop("a.png", os.urandom(20) + b" SLOW 0.3 ")
    done = site.once()
    assert done.returncode == 0, done.stderr
    names = "device, held_by, exited_at - held_from, exited_at - spawned_at, energy_joules, device_peak_bytes"
    (row,) = site.query(f"SELECT {names}, release_seconds, unreleased_bytes FROM engine_runs ORDER BY id DESC LIMIT 1")
    keys = ("device", "held_by", "held", "wall", "energy", "peak", "release", "unreleased")
    return {**dict(zip(keys, row, strict=True)), "log": done.stderr}


def report(site: Site) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(site.run("report", "--json").stdout)
    return told


def test_a_run_is_metered_by_the_clock_where_the_driver_keeps_no_accounts(gpu_site: Site, gpus: Gpus) -> None:
    for accounts in ("accounting off", "accounting denied"):
        gpus.describe(accounts)
        row = run(gpu_site)
        assert (row["device"], row["held_by"], row["energy"], row["peak"]) == ("cuda:0", "wall", None, None)
        assert 0 < row["held"] <= row["wall"]
        assert row["unreleased"] == 0 and row["release"] < 1
    told = report(gpu_site)
    assert told["gpu_seconds_by"] == {"nvml": 0, "wall": pytest.approx(told["gpu_seconds"], abs=0.01)}
    assert (told["energy_kwh"], told["releases"]["measured"], told["releases"]["late"]) == (None, 2, 0)
    text = gpu_site.run("report").stdout
    assert "by the clock" in text and "kWh" not in text and "after an engine's end" in text


@trusted
def test_a_run_is_metered_by_the_drivers_accounts_and_its_energy_is_told(gpu_site: Site, gpus: Gpus) -> None:
    gpu_site.drop("slow.png", b"SLOW 2 ")  # longer than the 1.5 s that the driver is going to tell
    gpus.describe("accounting on", "watts 3600")
    row = run(gpu_site)
    assert (row["held_by"], row["held"], row["peak"]) == ("nvml", pytest.approx(1.5), 500 << 20)
    assert row["energy"] == pytest.approx(3600 * row["wall"], rel=0.5) and row["energy"] >= 3600 * 2
    told = report(gpu_site)
    assert told["gpu_seconds_by"] == {"nvml": pytest.approx(1.5), "wall": 0}
    assert told["energy_kwh"] == pytest.approx(row["energy"] / 3.6e6, abs=1e-6)
    text = gpu_site.run("report").stdout
    assert "1.5 s of it by the driver's accounts (NVML)" in text and "kWh of the whole GPUs" in text
    (day,) = [row for row in csv.DictReader(io.StringIO(gpu_site.run("report", "--csv").stdout)) if row["energy_kwh"]]
    assert float(day["energy_kwh"]) == pytest.approx(told["energy_kwh"])
    assert gpu_site.run("report", "--html", "bill.html").returncode == 0
    page = (gpu_site.root / "bill.html").read_text()
    assert "NVML" in page and "kWh" in page


@trusted
@pytest.mark.slow
def test_an_engine_that_is_kept_is_watched_until_it_is_let_go(gpu_site: Site, gpus: Gpus) -> None:
    gpus.describe("accounting off")
    gpu_site.environment |= {"DROPSCALE_ENGINE__KEEP_WARM_SECONDS": "600", "STUB": "DEVICE cuda:0 CONTEXT 500"}
    running = gpu_site.start()
    gpu_site.drop("a.png", b"one")
    wait_until(lambda: "the engine is kept warm" in running.log(), "it to be kept")
    (used,) = report(gpu_site)["warm_ups"]
    assert used["cost"] >= 0 and used["idle_seconds"] >= 0
    wait_until(lambda: report(gpu_site)["warm_ups"][0]["idle_seconds"] > 1, "some time to be idle")
    assert report(gpu_site)["gpu_seconds"] > 1, "what is held now is paid for already"
    assert running.stop() == 0
    query = "SELECT device, release_seconds < 1, unreleased_bytes, done FROM engine_runs"
    assert gpu_site.query(query) == [("cuda:0", 1, 0, 1)]


@pytest.mark.slow
def test_an_account_of_an_earlier_process_of_that_number_is_not_believed(gpu_site: Site, gpus: Gpus) -> None:
    gpus.describe("accounting on")
    gpu_site.environment["STUB"] = "DEVICE cuda:0 CONTEXT 500 90000"
    row = run(gpu_site)
    assert row["held_by"] == "wall" and row["held"] <= row["wall"]


def test_what_a_part_of_a_divided_gpu_keeps_is_seen(gpu_site: Site, gpus: Gpus) -> None:
    gpus.write(f"device {gpus.uuid}", "total 80000", f"part MIG-{gpus.uuid}", "total 10000", "hidden 100", "unlisted")
    gpu_site.environment |= {"CUDA_VISIBLE_DEVICES": f"MIG-{gpus.uuid}", "STUB": "DEVICE cuda:0 LEAK 700"}
    row = run(gpu_site)
    assert row["unreleased"] == 700 << 20
    assert "perhaps other programs'; held: the driver does not tell by whom" in row["log"]


def test_that_nothing_is_known_of_the_gpu_is_said_once(gpu_site: Site, gpus: Gpus) -> None:
    gpus.describe("init 18")
    running = gpu_site.start()
    for name in ("a", "b"):
        gpu_site.drop(f"{name}.png", name.encode())
        wait_until(lambda name=name: f"{name}.png" in gpu_site.names(gpu_site.archive), "the picture")
    assert running.stop() == 0
    assert running.log().count("the GPU is metered by the clock, and whether its memory comes back is not known") == 1
    assert "not known: RM has detected an NVML/RM version mismatch" in running.log()


@pytest.mark.slow
@pytest.mark.parametrize("library", ["none", "no driver"])
def test_without_the_driver_a_batch_is_as_ever(gpu_site: Site, gpus: Gpus, tmp_path: Path, library: str) -> None:
    if library == "none":
        (tmp_path / "libnvidia-ml.so.1").touch()
        gpu_site.environment["LD_LIBRARY_PATH"] = str(tmp_path)
    else:
        gpus.describe("init 9")
    row = run(gpu_site)
    assert (row["held_by"], row["energy"], row["release"], row["unreleased"]) == ("wall", None, None, None)
    assert report(gpu_site)["releases"]["measured"] == 0
    assert "not_released" not in row["log"] and not gpu_site.status()["gpu"]["alarm"]


@pytest.mark.slow
@pytest.mark.parametrize("figures", ["told", "not told"])
def test_memory_that_is_not_given_back_is_an_alarm_until_it_is(gpu_site: Site, gpus: Gpus, figures: str) -> None:
    site = gpu_site
    site.environment["STUB"] = "DEVICE cuda:0 LEAK 700"
    if figures == "not told":
        gpus.describe("unlisted")  # totals have to do
    row = run(site)
    assert row["unreleased"] == 700 << 20 and row["release"] >= 1
    assert "700 MiB are not back after an engine's end" in row["log"]
    alarm = site.status()["gpu"]["alarm"]
    assert "cuda:0: 700 MiB" in alarm
    assert alarm in site.run("status").stdout
    if figures == "told":
        assert "process " in alarm and "700 MiB" in alarm
    assert report(site)["releases"]["late"] == 1
    assert "not back within a second after 1 of 1" in site.run("report").stdout
    site.environment["STUB"] = "DEVICE cuda:0 CONTEXT 500 1500"
    gpus.describe()
    assert run(site)["unreleased"] == 0
    assert not site.status()["gpu"]["alarm"]


@trusted
@pytest.mark.slow
@pytest.mark.parametrize("size", ["4000", "-"])
def test_what_another_program_took_meanwhile_is_no_alarm(gpu_site: Site, gpus: Gpus, size: str) -> None:
    site = gpu_site
    hidden = "" if size != "-" else "hidden 4200"
    site.drop("b.png", b"SLOW 1 ")
    running = site.start()
    wait_until(lambda: "engine ready" in running.log(), "the engine to be ready")
    gpus.append(f"process 99999999 {size}")
    gpus.append(hidden)
    wait_until(lambda: "engine ended" in running.log(), "the engine's end")
    assert running.stop() == 0
    ((unreleased,),) = site.query("SELECT unreleased_bytes FROM engine_runs")
    assert unreleased == 0 and "not back" not in running.log()


@pytest.fixture
def busy_site(make_site: Callable[..., Site], gpus: Gpus, tmp_path: Path) -> Site:
    """The real engine, on a GPU that somebody else has."""
    pytest.importorskip("onnxruntime")
    engine = {**QUICK["engine"], "model": "edsr-lite-x3", "runtime": "onnx", "device": "cuda", "precision": "fp32"}
    site = make_site(**{**HASTE, "engine": engine})
    site.environment |= {**gpus.environment, "PYTHONPATH": gpus.gpu_build_of_onnxruntime(tmp_path / "path")}
    gpus.describe(f"process {os.getpid()} {FULL}", "watts 100")
    return site


def test_a_batch_waits_for_a_busy_gpu_and_goes_on_when_it_is_free(busy_site: Site, gpus: Gpus) -> None:
    site = busy_site
    running = site.start()
    site.drop("a.png", photo(1))
    waiting = wait_until(lambda: site.status()["gpu"]["waiting"], "the batch to wait")
    assert f"process {os.getpid()} " in waiting and f"{FULL} MiB" in waiting
    assert f"a batch waits: {waiting}" in site.run("status").stdout
    assert site.names(site.inbox) == {"a.png"}
    gpus.describe("watts 100")
    wait_until(lambda: "a.png" in site.names(site.archive), "the picture")
    wait_until(lambda: not site.status()["gpu"]["waiting"], "the wait to be over")
    assert running.log().count("waiting up to 60 s") == 1
    assert "cuda:0 was got after" in running.log()
    assert running.stop() == 0
    *refused, last = site.query("SELECT device, done, energy_joules FROM engine_runs ORDER BY id")
    assert refused and {device for device, _, _ in refused} == {"cpu"}, "who never got the GPU is not billed for it"
    assert last[:2] == ("cuda:0", 1) and last[2] > 0


@pytest.mark.slow
def test_when_patience_ends_the_pictures_wait_and_nothing_fails(busy_site: Site, gpus: Gpus) -> None:
    site = busy_site
    site.environment["DROPSCALE_ENGINE__GPU_WAIT_SECONDS"] = "0.5"
    site.drop("a.png", photo(1))
    done = site.once()
    assert done.returncode == 3 and "trying with less" in done.stderr
    (waiting,) = site.status()["waiting"]
    assert f"process {os.getpid()} " in waiting["why"] and site.names(site.failed) == set()
    gpus.write(f"device {gpus.uuid}", "total 16384", f"hidden {FULL}", f"device {gpus.uuid}-b", "total 16384")
    assert site.once().returncode == 0
    ((device,),) = site.query("SELECT device FROM engine_runs WHERE done = 1")
    assert device == "cuda:1", "then another one does"


def test_an_engine_that_finds_no_memory_on_the_gpu_is_billed_for_its_try(busy_site: Site, gpus: Gpus) -> None:
    """Another program takes it between the look and the load: the context was there, for seconds each time."""
    gpus.describe()
    busy_site.environment |= {"NO_MEMORY": "1", "DROPSCALE_ENGINE__GPU_WAIT_SECONDS": "0.2"}
    busy_site.drop("a.png", photo(1))
    assert busy_site.once().returncode == 3
    assert busy_site.names(busy_site.inbox) == {"a.png"}
    devices = busy_site.query("SELECT device, unreleased_bytes FROM engine_runs")
    assert set(devices) == {(None, 0)} and len(devices) > 1
    assert report(busy_site)["gpu_seconds"] > 0


@pytest.mark.slow
def test_a_batch_that_waits_for_a_gpu_stops_when_it_is_asked_to(busy_site: Site) -> None:
    running = busy_site.start()
    busy_site.drop("a.png", photo(1))
    wait_until(lambda: "waiting up to 60 s" in running.log(), "the batch to wait")
    assert running.stop(patience=20) == 0
    assert busy_site.names(busy_site.inbox) == {"a.png"}


HOLD = """
import sys, time
from sr_engine import device_lock
device_lock.take(sys.argv[1], "cuda:0")
print("held", flush=True)
time.sleep(600)
"""


def test_two_batches_of_one_machine_take_turns_on_a_gpu(busy_site: Site, gpus: Gpus) -> None:
    """The other dropscale is a process that holds the lock, as its engine does until it ends."""
    gpus.describe()
    with subprocess.Popen([sys.executable, "-c", HOLD, gpus.uuid], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None and other.stdout.readline() == "held\n"
            running = busy_site.start()
            busy_site.drop("a.png", photo(1))
            waiting = wait_until(lambda: busy_site.status()["gpu"]["waiting"], "the batch to wait")
            assert "another dropscale" in waiting and "uses cuda:0" in waiting
        finally:
            other.kill()
    wait_until(lambda: "a.png" in busy_site.names(busy_site.archive), "the picture")
    assert running.stop() == 0


def test_a_cheap_box_pays_nothing_for_all_this() -> None:
    code = """
import sys
from watcher.engine.nvidia import DeviceWatch
from watcher.sections import Engine
DeviceWatch(Engine(device="cpu")).close()
print("pynvml" in sys.modules)
DeviceWatch(Engine(device="cuda")).close()
print("pynvml" in sys.modules)
"""
    assert python(code, {}).split() == ["False", "True"]


def doctor(site: Site) -> dict[str, tuple[str, str]]:
    told = json.loads(site.run("doctor", "--json").stdout)
    return {check["name"]: (check["verdict"], check["text"]) for check in told if check["name"].startswith("gpu")}


@pytest.mark.slow
def test_doctor_tells_how_a_gpu_is_set_up(gpu_site: Site, gpus: Gpus) -> None:
    gpus.describe(f"process {os.getpid()} 4000", "persistence on", "accounting on")
    found = doctor(gpu_site)
    assert found["gpu.0"][0] == "ok" and "Stub GPU" in found["gpu.0"][1]
    assert "12184 of 16384 MiB free" in found["gpu.0"][1] and f"process {os.getpid()} " in found["gpu.0"][1]
    assert found["gpu.0 persistence"][0] == found["gpu.0 accounting"][0] == "ok"
    assert found["gpu processes"][0] == ("ok" if sees_all_processes() else "note")
    gpus.describe("accounting denied")
    found = doctor(gpu_site)
    assert "nvidia-persistenced" in found["gpu.0 persistence"][1]
    assert found["gpu.0 accounting"] == ("note", "not told (Insufficient Permissions): GPU time is taken by the clock")
    gpus.describe("accounting off")
    assert "nvidia-smi --accounting-mode=1" in doctor(gpu_site)["gpu.0 accounting"][1]
    gpus.write("init 9")
    assert list(doctor(gpu_site)) == ["gpu"] and "Driver Not Loaded" in doctor(gpu_site)["gpu"][1]


def test_doctor_says_nothing_of_gpus_that_nobody_expects(stub_site: Site, gpus: Gpus) -> None:
    if not Path("/dev/nvidiactl").exists():
        assert doctor(stub_site) == {}
