"""`dropscale report`: GPU time and money, over ledgers of real runs and of years."""

import csv
import io
import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from harness import Site, complaint, wait_until

MONTH = "2026-03"


def report(site: Site, *arguments: str) -> dict[str, Any]:
    done = site.run("report", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def enter_runs(site: Site, runs: list[tuple[str, str, float, int]]) -> None:
    """Engine runs as a watcher with a GPU would have entered them: device, when, seconds, pictures."""
    with closing(sqlite3.connect(site.state / "ledger.sqlite3")) as connection:
        for device, when, seconds, pictures in runs:
            begin = at(when)
            cursor = connection.execute(
                "INSERT INTO batches (started_at, finished_at, closed_by, pictures) VALUES (?, ?, 'quiet', ?)",
                (begin, begin + seconds, pictures),
            )
            connection.execute(
                "INSERT INTO engine_runs (batch, host, pid, spawned_at, held_from, ready_at, exited_at, device, model,"
                " done, spawn_seconds, load_seconds, compute_seconds, idle_seconds, exit_seconds)"
                " VALUES (?, 'box', 1, ?, ?, ?, ?, ?, 'm', ?, 0, 2, ?, 0, 0.5)",
                (cursor.lastrowid, begin, begin, begin + 2, begin + seconds, device, pictures, seconds - 2.5),
            )
            for number in range(pictures):
                connection.execute(
                    "INSERT INTO pictures (path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe, state,"
                    " arrived_at, created_at, changed_at) VALUES (?, '1', '1', 1, '1', '1', ?, 'r', 'done', ?, ?, ?)",
                    (f"{when}-{number}".encode(), f"{when}-{number}", begin - 5, begin, begin + seconds),
                )
        connection.commit()


@pytest.fixture
def billed(stub_site: Site) -> Site:
    assert stub_site.once().returncode == 0
    runs = [("cuda:0", f"{MONTH}-{day:02}T12:00:00", 30.0, 10) for day in range(1, 32)]
    enter_runs(stub_site, [*runs, ("cpu", f"{MONTH}-05T08:00:00", 100.0, 1), ("cpu", "2026-02-20T08:00:00", 9.0, 1)])
    return stub_site


def test_real_runs_are_metered_and_a_cpu_is_not_billed(stub_site: Site) -> None:
    site = stub_site
    for number in range(3):
        site.drop(f"{number}.png", b"picture %d SLOW 0.2 " % number)
    began = time.time()
    assert site.once().returncode == 0
    took = time.time() - began
    site.drop("again.png", b"picture 1 SLOW 0.2 ")
    assert site.once().returncode == 0
    told = report(site)
    assert told["pictures"] == {"done": 4, "reused": 1, "failed": 0}
    assert (told["batches"], told["engine_starts"], told["gpu_seconds"], told["cost"]) == (2, 1, 0, 0)
    assert 0.6 < told["cpu_seconds"] < took
    ((spawn, load, compute, idle, exit_, wall),) = site.query(
        "SELECT spawn_seconds, load_seconds, compute_seconds, idle_seconds, exit_seconds, exited_at - spawned_at"
        " FROM engine_runs"
    )
    assert spawn + load + compute + idle + exit_ == pytest.approx(wall)
    assert compute > 0.6 and spawn > 0 and load > 0


def test_what_a_month_cost_against_always_on(billed: Site) -> None:
    told = report(billed, "--month", MONTH)
    assert told["gpu_seconds"] == 31 * 30 and told["cpu_seconds"] == 100
    hours = (at("2026-04-01") - at("2026-03-01")) / 3600
    assert told["cost"] == pytest.approx(31 * 30 / 3600 * 0.6, abs=1e-4)
    assert told["always_on_cost"] == pytest.approx(hours * 0.6, abs=1e-4)
    assert told["saving"] > 0.999
    assert told["complete"] and told["currency"] == "CNY"
    assert [day["gpu_seconds"] for day in told["days"]] == [30] * 31
    assert told["cheapest"]["keep_warm_seconds"] == 0, "ten pictures a day are not worth an engine that waits"
    text = billed.run("report", "--month", MONTH).stdout
    assert "always on" in text and "99.9" in text and "not billed" in text and "█" in text
    assert f"period     {MONTH}-01 to {MONTH}-31\n" in text
    assert "GPU seconds a day\n" in text and f"{MONTH}-31     30.0 █" in text
    assert "window.quiet_seconds" in text and "engine.keep_warm_seconds 0:" in text


def test_before_the_ledger_begins_nothing_was_saved(billed: Site) -> None:
    told = report(billed, "--month", "2025-12")
    assert (told["cost"], told["always_on_cost"], told["saving"]) == (0, 0, None)
    text = billed.run("report", "--month", "2025-12").stdout
    assert "nothing to compare with" in text and "saved" not in text
    later = billed.run("report", "--month", "2999-01").stdout
    assert "this has not begun yet" in later
    enter_runs(billed, [("cuda:0", "2026-02-22T12:00:00", 30.0, 10)])
    text = billed.run("report", "--month", "2026-02").stdout
    assert "since 2026-02-20, when the ledger begins: 99.9" in text


def test_on_cpus_settings_are_compared_by_time_not_by_money(billed: Site) -> None:
    told = report(billed, "--month", "2026-02")
    assert (told["cpu_seconds"], told["cost"], told["always_on_cost"], told["saving"]) == (9, 0, 0, None)
    assert told["cheapest"]["cost"] == 0 and told["cheapest"]["held_seconds"] > 0
    done = billed.run("report", "--month", "2026-02", "--html", "bill.html")
    text, page = billed.run("report", "--month", "2026-02").stdout, (billed.root / "bill.html").read_text()
    assert done.returncode == 0 and "CNY" not in text + page and "always" not in text + page
    assert "CPU time and mean wait:" in text and "Least CPU time with a mean wait" in text
    assert "CPU time, mean wait" in page and "Least CPU time" in page


def test_an_engine_that_died_before_it_named_its_device_is_no_gpu_on_a_machine_without(stub_site: Site) -> None:
    stub_site.drop("a.png", b"picture")
    assert stub_site.once().returncode == 0
    with closing(sqlite3.connect(stub_site.state / "ledger.sqlite3")) as connection:
        connection.execute(
            "INSERT INTO engine_runs (host, pid, spawned_at, exited_at, model)"
            " SELECT host, 1, spawned_at - 1, spawned_at, model FROM engine_runs"
        )
        connection.execute(
            "UPDATE engine_runs SET spawned_at = spawned_at - 9, held_from = NULL, exited_at = spawned_at"
        )
        connection.commit()
    told = report(stub_site)
    assert (told["engine_starts"], told["gpu_seconds"], told["cost"]) == (2, 0, 0) and told["cpu_seconds"] > 9
    stub_site.environment |= {"DROPSCALE_BUDGET__PER_DAY": "0.001", "DROPSCALE_BUDGET__UNIT": "gpu_minutes"}
    assert report(stub_site)["budgets"][0]["used"] == 0


def test_what_warm_ups_cost_and_saved(billed: Site) -> None:
    """Two hours by the schedule, in which two batches of 10 found the engine; and one by hand that nobody used."""
    ((first, *others),) = [[run for (run,) in billed.query("SELECT id FROM engine_runs WHERE device = 'cuda:0'")]]
    columns = (
        "run, why, wanted_at, wanted_until, starts_engine, began_at, ended_at, idle_seconds, batch, spared_seconds"
    )
    begin = at(f"{MONTH}-03T08:00")
    rows: list[tuple[Any, ...]] = [
        (first, "schedule", begin, begin + 7200, 1, begin, begin + 600, 598.0, 1, 3.0, 10),
        (first, "schedule", begin, begin + 7200, 0, begin + 700, begin + 1000, 300.0, 2, 3.0, 10),
        (first, "schedule", begin, begin + 7200, 0, begin + 1100, begin + 7200, 6100.0, None, None, 0),
        (others[0], "command", begin + 9000, begin + 9600, 1, begin + 9000, begin + 9600, 600.0, None, None, 0),
    ]
    with closing(sqlite3.connect(billed.state / "ledger.sqlite3")) as connection:
        connection.executemany(f"INSERT INTO warm_ups ({columns}, pictures) VALUES ({', '.join('?' * 11)})", rows)
        connection.commit()
    command, schedule = report(billed, "--month", MONTH)["warm_ups"]
    hour = 0.6 / 3600
    assert (schedule["why"], schedule["warm_ups"], schedule["batches"], schedule["pictures"]) == ("schedule", 1, 2, 20)
    assert (schedule["idle_seconds"], schedule["wait_saved_seconds"]) == (6998, 60)
    assert schedule["cost"] == pytest.approx((6998 + 2.5) * hour, abs=1e-4), "one start of 2 s and one exit of 0.5 s"
    assert schedule["spared_cost"] == pytest.approx(2 * 2.5 * hour, abs=1e-4)
    assert (command["why"], command["warm_ups"], command["pictures"], command["spared_cost"]) == ("command", 1, 0, 0)
    text = billed.run("report", "--month", MONTH).stdout
    assert "by the schedule, once: 1.944 h idle; 2 batches found it so" in text and "cost 1.17 CNY" in text
    assert billed.run("report", "--month", MONTH, "--html", "bill.html").returncode == 0
    assert "by the schedule, once" in (billed.root / "bill.html").read_text()
    assert report(billed, "--since", f"{MONTH}-04", "--until", f"{MONTH}-05")["warm_ups"] == []


def test_a_warm_up_whose_engine_was_never_ready_cost_its_time(billed: Site) -> None:
    ((run,),) = billed.query("SELECT MIN(id) FROM engine_runs WHERE device = 'cuda:0'")
    with closing(sqlite3.connect(billed.state / "ledger.sqlite3")) as connection:
        connection.execute(
            "UPDATE engine_runs SET ready_at = NULL, device = NULL, load_seconds = 0, compute_seconds = 0, done = 0,"
            " idle_seconds = 30, exit_seconds = 0 WHERE id = ?",
            (run,),
        )
        connection.execute(
            "INSERT INTO warm_ups (run, why, wanted_at, wanted_until, starts_engine, began_at, ended_at, idle_seconds)"
            " SELECT id, 'command', spawned_at, exited_at, 1, spawned_at, exited_at, 0 FROM engine_runs WHERE id = ?",
            (run,),
        )
        connection.commit()
    (command,) = report(billed, "--month", MONTH)["warm_ups"]
    assert command["cost"] == pytest.approx(30 * 0.6 / 3600, abs=1e-4) and command["idle_seconds"] == 0


def test_the_price_is_the_users(billed: Site) -> None:
    billed.environment |= {"DROPSCALE_COST__PER_HOUR": "12", "DROPSCALE_COST__CURRENCY": "EUR"}
    told = report(billed, "--month", MONTH)
    assert (told["currency"], told["cost"]) == ("EUR", pytest.approx(31 * 30 / 3600 * 12, abs=1e-4))


def test_a_range_of_days_as_csv(billed: Site) -> None:
    done = billed.run("report", "--since", f"{MONTH}-04", "--until", f"{MONTH}-06", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["date"] for row in rows] == [f"{MONTH}-0{day}" for day in (4, 5, 6)]
    assert [float(row["gpu_seconds"]) for row in rows] == [30, 30, 30]
    assert [float(row["cpu_seconds"]) for row in rows] == [0, 100, 0]
    assert float(rows[0]["cost_cny"]) == pytest.approx(0.005)


def test_a_page_that_needs_no_network(billed: Site) -> None:
    done = billed.run("report", "--month", MONTH, "--html", "bill.html")
    assert done.returncode == 0 and done.stdout == ""
    page = (billed.root / "bill.html").read_text()
    assert page.count("<rect ") == 31 and "always on" in page and "<table>" in page
    assert "http" not in page and "<script" not in page


@pytest.mark.parametrize(
    "arguments",
    [
        ("--month", "march"),
        ("--until", "2026-03-04"),
        ("--json", "--csv"),
        ("--since", "yesterday"),
        ("--month", MONTH, "--since", f"{MONTH}-01"),
    ],
)
def test_a_period_that_is_none(billed: Site, arguments: tuple[str, ...]) -> None:
    complaint(billed.run("report", *arguments), 2)


def test_a_page_for_which_there_is_no_folder(billed: Site) -> None:
    refused = complaint(billed.run("report", "--html", "nowhere/bill.html"), 3)
    assert "nowhere/bill.html cannot be written: No such file or directory" in refused


def test_without_a_ledger_there_is_nothing_to_report(stub_site: Site) -> None:
    assert "there is no ledger" in complaint(stub_site.run("report"), 3)


def test_an_engine_whose_watcher_was_killed_is_closed_by_its_real_end(stub_site: Site) -> None:
    """Not by the next start, which may be days later."""
    site = stub_site
    site.drop("a.png", b"SLOW 2 ")
    running = site.start()
    wait_until(site.engines, "the engine")
    wait_until((site.state / "engine-seen").exists, "a sign of life")
    os.kill(running.pid, signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not site.engines(), "the engine to end with its watcher")
    ended = time.time()
    wait_until(lambda: time.time() > ended + 3, "some time to pass")
    assert site.once().returncode == 0
    ((exited_at,),) = site.query("SELECT exited_at FROM engine_runs ORDER BY id LIMIT 1")
    assert exited_at <= ended + 0.1


@pytest.mark.slow
def test_a_ledger_of_a_million_pictures_is_reported(stub_site: Site, tmp_path: Path) -> None:
    """The sums are right; how long it takes is measured by benchmarks/workload.py."""
    assert stub_site.once().returncode == 0
    count, since = 1_000_000, at("2025-01-01")
    step = 365 * 86_400 / count
    with closing(sqlite3.connect(stub_site.state / "ledger.sqlite3")) as connection:
        connection.executemany(
            "INSERT INTO pictures (path, device, inode, size, mtime_ns, ctime_ns, sha256, recipe, state, arrived_at,"
            " created_at, changed_at) VALUES (?, '1', '1', 1, '1', '1', ?, 'r', 'done', ?, ?, ?)",
            ((b"%d" % n, str(n), since + n * step, since + n * step, since + n * step + 9) for n in range(count)),
        )
        connection.commit()
    enter_runs(stub_site, [("cuda:0", f"2025-{month:02}-11T12:00:00", 60.0, 20) for month in range(1, 13)])
    count += 12 * 20
    told = report(stub_site, "--since", "2025-01-01", "--until", "2025-12-31")
    assert told["gpu_seconds"] == 720 and told["settings"]
    assert told["pictures"]["done"] == count
    (march,) = [report(stub_site, "--month", "2025-03")["pictures"]["done"]]
    assert march == pytest.approx(31 * 86_400 / step, rel=0.01)
