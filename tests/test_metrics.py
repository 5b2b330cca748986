"""Metrics: scraped over HTTP and read from the textfile, with Prometheus' own parser, of real watchers."""

import contextlib
import http.client
import json
import re
import signal
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import HASTY_STUB, ROOT, Site, complaint, wait_until
from prometheus_client.parser import text_string_to_metric_families

from watcher import __version__

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Values:
    """Value by name and labels."""
    found: Values = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation, f"{family.name} says nothing of itself"
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def of(values: Values, name: str, **labels: str) -> float:
    return values[f"dropscale_{name}", tuple(sorted(labels.items()))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def measured(make_site: Callable[..., Site]) -> tuple[Site, Callable[[], Values]]:
    """A site that serves metrics, and how to ask for them."""
    port = free_port()
    site = make_site(**HASTY_STUB, metrics={"port": port})

    def scrape() -> Values:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            return parsed(answer.read().decode())

    return site, scrape


def test_a_scrape_tells_what_the_ledger_knows_and_survives_a_restart(
    measured: tuple[Site, Callable[[], Values]],
) -> None:
    site, scrape = measured
    running = site.start()
    values = scrape()
    assert of(values, "build_info", version=__version__) == 1
    assert of(values, "watching") == of(values, "ledger_readable") == 1
    assert of(values, "waiting_pictures") == of(values, "oldest_waiting_seconds") == of(values, "engine_running") == 0
    assert of(values, "pictures_total", result="delivered") == 0

    site.drop("a.png", b"SLOW 1 a picture")
    wait_until(lambda: of(scrape(), "engine_running") == 1, "the engine")
    wait_until(lambda: of(scrape(), "engine_running") == 0, "the end of the engine")
    site.drop("again.png", b"SLOW 1 a picture")
    site.drop("bad.png", b"UNSUPPORTED")
    wait_until(lambda: of(scrape(), "pictures_total", result="failed") == 1, "the failed one")
    wait_until(lambda: of(scrape(), "pictures_total", result="reused") == 1, "the reused one")
    assert running.stop() == 0

    running = site.start()
    values = scrape()
    for result in ("delivered", "reused", "failed"):
        assert of(values, "pictures_total", result=result) == 1
    (device,) = {dict(labels)["device"] for name, labels in values if name == "dropscale_engine_runs_total"}
    phases = sum(value for (name, _), value in values.items() if name == "dropscale_engine_seconds_total")
    assert phases > 1
    assert of(values, "engine_held_seconds_total", device=device) <= phases
    assert of(values, "engine_runs_total", device=device) == 2
    assert of(values, "engine_runs_failed_total", device=device) == 0
    assert of(values, "batches_total") >= 2
    assert abs(of(values, "last_reconcile_timestamp_seconds") - site.config_path.stat().st_ctime) < 600
    assert running.stop() == 0


def test_an_engine_that_is_kept_is_counted_over_a_reload_and_not_after_the_end(make_site: Callable[..., Site]) -> None:
    stub = {**HASTY_STUB, "engine": {**HASTY_STUB["engine"], "keep_warm_seconds": 300}}
    metrics = {"textfile": "out.prom", "textfile_seconds": 1}
    site = make_site(**stub, metrics=metrics)
    path = site.root / "out.prom"

    def told(watching: int, engine: int) -> bool:
        values = parsed(path.read_text())
        return (of(values, "watching"), of(values, "engine_running")) == (watching, engine)

    running = site.start()
    site.drop("a.png", b"a picture")
    wait_until(lambda: site.status()["engine"]["state"] == "warm", "the engine to be kept")
    wait_until(lambda: told(1, 1), "the file to say so")
    site.configure(**stub, metrics=metrics, cost={"per_hour": 2})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: running.log().count("watching ") == 2, "the new config")
    before = path.stat().st_mtime_ns
    wait_until(lambda: path.stat().st_mtime_ns != before and told(1, 1), "the file to say it still", 10)
    assert site.status()["engine"]["state"] == "warm"
    assert running.stop() == 0
    assert told(0, 0)


def test_cost_is_that_of_the_report(make_site: Callable[..., Site]) -> None:
    """Devices that are no CPU cost `cost.per_hour` for each hour that they were held."""
    site = make_site(**HASTY_STUB, metrics={"textfile": "out.prom"}, cost={"per_hour": 3600, "currency": "EUR"})
    site.drop("a.png", b"a picture")
    assert site.once().returncode == 0
    site.execute("UPDATE engine_runs SET device = 'cuda:0', held_from = exited_at - 7")
    assert site.once().returncode == 0
    values = parsed((site.root / "out.prom").read_text())
    assert of(values, "cost_total", currency="EUR") == pytest.approx(7, abs=0.01)
    assert of(values, "engine_held_seconds_total", device="cuda:0") == pytest.approx(7, abs=0.01)


def test_a_failed_picture_that_is_tried_again_does_not_set_the_counter_back(make_site: Callable[..., Site]) -> None:
    site = make_site(**HASTY_STUB, metrics={"textfile": "out.prom"})
    site.drop("bad.png", b"UNSUPPORTED")
    assert site.once().returncode == 1
    assert site.run("retry").returncode == 0
    (site.inbox / "bad.png").unlink()
    assert site.once().returncode == 0
    assert of(parsed((site.root / "out.prom").read_text()), "pictures_total", result="failed") == 1


def test_pictures_that_wait_are_counted_with_the_age_of_the_oldest(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(
        **{**HASTY_STUB, "retry": {"first_seconds": 300, "max_seconds": 300}},
        metrics={"textfile": "out.prom", "textfile_seconds": 1},
    )
    running = site.start()
    site.drop("a.png", b"DISKFULL")
    wait_until(lambda: "waiting until" in running.log(), "the picture to wait")
    path = site.root / "out.prom"
    values = wait_until(
        lambda: of(now := parsed(path.read_text()), "waiting_pictures") == 1 and now, "the file to tell"
    )
    assert of(values, "oldest_waiting_seconds") > 0
    assert running.stop() == 0


def test_the_textfile_is_whole_whenever_it_is_read_and_says_when_nobody_watches(make_site: Callable[..., Site]) -> None:
    site = make_site(**HASTY_STUB, metrics={"textfile": "sub/out.prom", "textfile_seconds": 1})
    folder = site.root / "sub"
    folder.mkdir()
    running = site.start()
    path = folder / "out.prom"
    inodes = set()

    def written_again() -> bool:
        assert of(parsed(path.read_text()), "watching") == 1
        inodes.add(path.stat().st_ino)
        return len(inodes) > 1

    wait_until(path.exists, "the file")
    wait_until(lambda: of(parsed(path.read_text()), "watching") == 1, "the watcher to watch")
    wait_until(written_again, "it to be replaced by another, not written over")
    assert running.stop() == 0
    assert of(parsed(path.read_text()), "watching") == 0
    assert [entry.name for entry in folder.iterdir()] == ["out.prom"]


def test_a_textfile_that_cannot_be_written_is_told_and_ends_nothing(make_site: Callable[..., Site]) -> None:
    site = make_site(**HASTY_STUB, metrics={"textfile": "none/out.prom", "textfile_seconds": 1})
    running = site.start()
    wait_until(lambda: "metrics.textfile: cannot write" in running.log(), "the log to say it")
    site.drop("a.png", b"a picture")
    wait_until(lambda: "a.png" in site.names(site.archive), "the picture")
    assert running.stop() == 0
    told = f"metrics.textfile: cannot write {site.root}/none/out.prom: No such file or directory"
    (line,) = [line for line in running.log().splitlines() if "metrics.textfile: " in line]
    assert f"{told}: create the folder {site.root}/none, or correct metrics.textfile" in line
    checks = {check["name"]: check for check in json.loads(site.run("doctor", "--json").stdout)}
    assert checks["metrics.textfile"]["verdict"] == "note"
    assert f"create the folder {site.root}/none" in checks["metrics.textfile"]["text"]


def test_who_asks_for_nothing_keeps_nobody_waiting(measured: tuple[Site, Callable[[], Values]]) -> None:
    site, scrape = measured
    running = site.start()
    scrape()
    port = int(re.findall(r"http://127.0.0.1:(\d+)", running.log())[0])
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)) as second:
        second.sendall(b"GET /metrics HTTP/1.0\r\n")
        assert of(scrape(), "watching") == 1
        assert running.stop() == 0


def test_clients_that_are_too_many_are_sent_away(
    measured: tuple[Site, Callable[[], Values]],
) -> None:
    site, scrape = measured
    running = site.start()
    port = int(re.findall(r"http://127.0.0.1:(\d+)", running.log())[0])
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        wait_until(lambda: len(list(Path(f"/proc/{running.pid}/task").iterdir())) > 20, "some to be attended to")
        assert len(list(Path(f"/proc/{running.pid}/task").iterdir())) < 60

    def answered() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return of(scrape(), "watching") == 1
        return False

    wait_until(answered, "room for others")
    assert running.stop() == 0


@pytest.mark.slow
def test_a_client_that_asks_byte_by_byte_is_sent_away(measured: tuple[Site, Callable[[], Values]]) -> None:
    site, scrape = measured
    running = site.start()
    port = int(re.findall(r"http://127.0.0.1:(\d+)", running.log())[0])
    with socket.create_connection(("127.0.0.1", port)) as client:

        def refused() -> bool:
            try:
                client.sendall(b"G")
            except OSError:
                return True
            return False

        with contextlib.ExitStack() as stack:  # and so are those that ask for nothing
            for _ in range(200):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            wait_until(refused, "it to be sent away")
    assert of(scrape(), "watching") == 1
    assert running.stop() == 0


def test_a_port_that_is_taken_is_told(make_site: Callable[..., Site]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        site = make_site(**HASTY_STUB, metrics={"port": port})
        done = site.run("run")
    assert done.returncode == 3
    assert f"metrics.port: cannot listen on port {port} of 127.0.0.1: Address already in use" in done.stderr


def test_a_reload_to_a_port_that_is_taken_leaves_everything_as_it_was(
    measured: tuple[Site, Callable[[], Values]],
) -> None:
    site, scrape = measured
    running = site.start()
    own = int(re.findall(r"http://127.0.0.1:(\d+)", running.log())[0])
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        site.configure(**HASTY_STUB, metrics={"port": taken})
        running.process.send_signal(signal.SIGHUP)
        told = f"the config stays as it was: metrics.port: cannot listen on port {taken}"
        wait_until(lambda: told in running.log() or running.process.poll() is not None, "the refusal")
    assert of(scrape(), "watching") == 1
    site.configure(**HASTY_STUB, metrics={"port": own, "textfile": "out.prom"})
    running.process.send_signal(signal.SIGHUP)
    wait_until((site.root / "out.prom").exists, "the config that keeps the port to be taken up")
    wait_until(lambda: of(scrape(), "watching") == 1, "it to be watched again")
    assert running.stop() == 0


def test_without_the_library_the_start_says_what_to_install(make_site: Callable[..., Site], tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "prometheus_client"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not installed')")
    site = make_site(**HASTY_STUB, metrics={"port": free_port()})
    site.environment["PYTHONPATH"] = str(hidden.parent)
    assert "pip install prometheus-client" in complaint(site.run("run"), 2)
    site.configure(**HASTY_STUB)
    assert site.once().returncode == 0, "who does not ask for metrics needs no library"


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"port": 70000}, "metrics.port: 70000 is not allowed; expected a whole number from 0 to 65535"),
        ({"address": "localhost"}, "metrics.address: 'localhost' is not allowed; expected an IP address"),
        ({"textfile_seconds": 0}, "metrics.textfile_seconds"),
    ],
)
def test_wrong_settings_are_refused(make_site: Callable[..., Site], metrics: dict[str, Any], expected: str) -> None:
    assert expected in complaint(make_site(metrics=metrics).once(), 2)


def test_hooks_that_fail_are_counted(make_site: Callable[..., Site]) -> None:
    hooks = [
        {"events": ["done", "batch"], "command": ["true"]},
        {"events": ["done"], "command": ["false"], "attempts": 1},
    ]
    site = make_site(**HASTY_STUB, metrics={"textfile": "out.prom"}, on_event=hooks)
    site.drop("a.png", b"a picture")
    assert site.once().returncode == 0
    values = parsed((site.root / "out.prom").read_text())
    found = {
        (hook, result): of(values, "hook_events_total", hook=f"on_event.{hook}", result=result)
        for hook in (0, 1)
        for result in ("delivered", "failed", "dropped")
    }
    assert {key: count for key, count in found.items() if count} == {(0, "delivered"): 2, (1, "failed"): 1}


def test_the_page_lists_each_metric_and_no_other(make_site: Callable[..., Site]) -> None:
    hooks = [{"events": ["done"], "command": ["true"]}]
    site = make_site(**HASTY_STUB, metrics={"textfile": "out.prom"}, on_event=hooks)
    site.drop("a.png", b"a picture")
    assert site.once().returncode == 0
    site.execute("UPDATE engine_runs SET energy_joules = 1")
    assert site.once().returncode == 0
    there = {name for name, _ in parsed((site.root / "out.prom").read_text())}
    page = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8").split("## Metrics")[1].split("Alarms")[0]
    assert set(re.findall(r"`(dropscale_\w+)", page)) == there
