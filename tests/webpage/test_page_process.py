"""The page as a process: beside the watcher or inside of it, at rest, at its end, and where Flask is missing."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import HASTY_STUB, ROOT, STUB_ENGINE, Running, Site, complaint, photo, wait_until
from visits import ADDRESS, Page, Visitor, fill

MOST_BYTES = 80e6


@pytest.fixture
def inside(make_site: Callable[..., Site]) -> Site:
    """A site whose watcher shows the page."""
    return make_site(engine={"command": STUB_ENGINE}, web={"enabled": True, "port": 0})


def page_of(running: Running) -> Visitor:
    found = wait_until(lambda: ADDRESS.findall(running.log()), "the page")
    return Visitor(int(found[-1][1]))


def pages_of(running: Running) -> list[int]:
    children = Path(f"/proc/{running.pid}/task").glob("*/children")
    pids = [int(child) for path in children for child in path.read_text().split()]
    return [pid for pid in pids if b"webpage" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_the_watcher_shows_the_page_and_takes_it_along_when_it_stops(inside: Site) -> None:
    running = inside.start()
    visitor = page_of(running)
    answer = visitor.upload("a.png", photo(1))
    wait_until(lambda: visitor.fate(answer)["state"] == "done", "the result")
    (pid,) = pages_of(running)
    assert running.stop() == 0
    assert not is_alive(pid)


@linux
def test_the_page_dies_with_a_watcher_that_is_killed(inside: Site) -> None:
    running = inside.start()
    page_of(running)
    (pid,) = pages_of(running)
    running.kill()
    wait_until(lambda: not is_alive(pid), "the page to end")


@linux
def test_a_page_that_is_killed_stops_nothing_and_comes_again(inside: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    running = inside.start()
    page_of(running)
    (pid,) = pages_of(running)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "the page ended with code -9" in running.log(), "the watcher to notice")
    inside.drop("a.png", b"a picture")
    wait_until(lambda: inside.names(inside.archive) == {"a.png"}, "a picture meanwhile")
    assert wait_until(lambda: len(ADDRESS.findall(running.log())) == 2, "the page to come again", 40)
    assert page_of(running).get("/").status == 200
    assert running.stop() == 0


def test_a_new_config_has_a_new_page(inside: Site) -> None:
    running = inside.start()
    before = page_of(running)
    assert before.get("/").status == 200
    inside.configure(engine={"command": STUB_ENGINE}, web={"enabled": True, "port": 0, "token": "x" * 20})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(ADDRESS.findall(running.log())) == 2, "the new page")
    assert page_of(running).get("/").status == 302
    inside.configure(engine={"command": STUB_ENGINE})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: running.log().count("watching ") == 3, "the watching without a page")
    assert running.stop() == 0


def test_an_address_that_is_taken_is_told(page: Page) -> None:
    said = complaint_of(page.site, "--port", str(page.port))
    assert "the page cannot listen at 127.0.0.1" in said
    assert "Address already in use" in said


def complaint_of(site: Site, *arguments: str) -> str:
    return complaint(site.run("web", *arguments), 3)


def test_folders_that_are_missing_are_told(stub_site: Site) -> None:
    stub_site.outbox.rmdir()
    assert "outbox" in complaint_of(stub_site, "--port", "0")


def test_a_ledger_that_is_none_is_told_before_there_is_a_page(stub_site: Site) -> None:
    stub_site.state.mkdir()
    (stub_site.state / "ledger.sqlite3").write_bytes(b"garbage" * 100)
    assert "ledger.sqlite3" in complaint_of(stub_site, "--port", "0")


def test_without_flask_it_says_what_to_install(stub_site: Site, tmp_path: Path) -> None:
    """A Python that has everything but Flask: a module in its place that is missing its own."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['flask'] = None\n")
    done = subprocess.run(
        [sys.executable, "-c", "from watcher.cli import main; main()", "web", "--config", str(stub_site.config_path)],
        check=False,
        env={**stub_site.environment, "PYTHONPATH": f"{blocked}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "pip install flask waitress" in complaint(done, 3)
    assert "flask" in done.stderr


def test_heic_is_offered_only_where_it_can_be_read(make_site: Callable[..., Site], tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_bytes(mode="RGB", size=(64, 48), data=bytes(64 * 48 * 3)).save(buffer)
    site = make_site()
    with_it = Page(site).visitor()
    assert "HEIC" in with_it.get("/").text and ".heic" in with_it.get("/").text
    assert with_it.upload("phone.heic", buffer.getvalue()).status == 201
    assert "pillow-heif" not in site.run("doctor").stdout

    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text("import sys\nsys.modules['pillow_heif'] = None\n")
    site.environment["PYTHONPATH"] = str(blocked)
    lack = f"HEIC pictures need one more package: {sys.executable} -m pip install pillow-heif"
    without = Page(site).visitor()
    assert "HEIC" not in without.get("/").text and ".heic" not in without.get("/").text
    refused = without.upload("another.heic", buffer.getvalue())
    assert (refused.status, refused.json["error"]["code"], refused.json["error"]["message"]) == (
        422,
        "missing_package",
        lack,
    )
    checks = {check["name"]: check for check in json.loads(site.run("doctor", "--json").stdout)}
    assert (checks["heic"]["verdict"], checks["heic"]["text"]) == ("note", lack)


@pytest.mark.parametrize("library", ["flask", "waitress"])
def test_a_page_that_cannot_be_had_is_told_once_and_ends_the_start(
    make_site: Callable[..., Site], tmp_path: Path, library: str
) -> None:
    """As metrics do; a page that is started again and again tells it for ever, and shows nothing."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(f"import sys\nsys.modules['{library}'] = None\n")
    site = make_site(**HASTY_STUB, web={"enabled": True, "port": 0})
    site.environment["PYTHONPATH"] = str(blocked)
    message = complaint(site.run("run"), 2)
    assert f"web.enabled: the library {library} is not installed" in message
    assert "install it (`pip install flask waitress`), or set web.enabled to false" in message
    checks = {check["name"]: check for check in json.loads(site.run("doctor", "--json").stdout)}
    assert checks["web"]["verdict"] == "bad" and library in checks["web"]["text"]
    site.configure(**HASTY_STUB)
    running = site.start()
    site.configure(**HASTY_STUB, web={"enabled": True, "port": 0})
    running.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the config stays as it was: web.enabled: the library" in running.log(), "the refusal")
    assert running.stop() == 0


@linux
def test_watcher_and_page_at_rest_fit_into_eighty_megabytes(inside: Site) -> None:
    fill(inside, done=10_000)
    running = inside.start()
    visitor = page_of(running)
    for path in ("/", "/gallery", "/bill", "/api/v1/status", "/api/v1/report", "/thumbnails/1"):
        assert visitor.get(path).status in (200, 302)
    assert visitor.upload("a.png", photo(1)).status == 201
    wait_until(lambda: "engine ended" in running.log(), "the batch to end")

    def together() -> float:
        pids = [running.pid, *pages_of(running)]
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        assert len(texts) == 2
        return sum(int(text.split("VmRSS:")[1].split()[0]) * 1024 for text in texts)

    assert wait_until(lambda: together() < MOST_BYTES, "the memory to be returned", 20), together()


def test_ctrl_c_ends_it_without_a_word(page: Page) -> None:
    assert page.running.stop(signal.SIGINT) == 0
    assert page.running.log().count("\n") == 1
