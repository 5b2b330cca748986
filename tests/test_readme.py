"""Every command in README.md is run, and the two that a newcomer types are run in a fresh clone."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from harness import ROOT, Site, command, complaint, dropscale, wait_until

README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLE = ROOT / "docs" / "bee.jpg"
SETUP_SECONDS = 600

# Which test runs each command of the shell blocks. A new command in README needs a line, and a test, here.
RUN_BY = {
    "make run": "test_make_run_enlarges_a_photograph_in_a_fresh_clone",
    "make test": "test_make_test_tests_in_a_fresh_clone",
    "pip install '.[openvino]'": "test_the_plain_pip_form_works_anywhere",
    "dropscale init pictures": "test_the_plain_pip_form_works_anywhere",
    "cd pictures": "test_the_plain_pip_form_works_anywhere",
    "dropscale run": "test_the_plain_pip_form_works_anywhere",
    "pip install '.[openvino,queue]'": "test_the_line_of_a_worker_is_one_that_it_takes",
    "dropscale worker --share /mnt/pictures --url redis://queue.example.org:6379/0": (
        "test_the_line_of_a_worker_is_one_that_it_takes"
    ),
    "sudo cp deploy/dropscale.service /etc/systemd/system/": "test_the_service_file_is_one_that_systemd_takes",
    "sudo systemctl enable --now dropscale": "test_the_service_file_is_one_that_systemd_takes",
}


def shell_commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
    return [part.strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]


def cron_commands() -> list[list[str]]:
    block = re.search(r"^```cron\n(.*?)^```", README, re.M | re.S)
    assert block is not None
    return [line[line.index("dropscale") :].split() for line in block[1].splitlines() if line[0] in "*@"]


def test_each_command_of_the_shell_blocks_is_run_by_a_test() -> None:
    assert set(shell_commands()) == set(RUN_BY)
    assert set(RUN_BY.values()) <= set(globals())


def test_each_command_of_the_table_exists_with_its_options() -> None:
    table = re.findall(r"^\| `dropscale (\w+)([^`]*)`", README, re.M)
    names = "init run once status health worker retry upscale models warm report web doctor"
    assert {name for name, _ in table} == set(names.split())
    for name, rest in table:
        shown = subprocess.run([command(), name, "--help"], capture_output=True, text=True, check=True).stdout
        for option in re.findall(r"--?[a-z][a-z-]*", rest):
            assert option in shown, f"{name} has no {option}"


def test_the_python_example_runs() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", example + "\nprint(larger.shape, larger.dtype)"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "(1278, 1620, 3) uint8\n", done.stderr


def test_the_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_cron_lines_work(stub_site: Site) -> None:
    once, run = cron_commands()
    stub_site.drop("a.jpg", b"a picture")
    for line in (once, run):
        line[line.index("--config") + 1] = str(stub_site.config_path)
    subprocess.run([command(), *once[1:]], env=stub_site.environment, check=True, capture_output=True, timeout=60)
    assert "a.jpg" in stub_site.names(stub_site.archive)
    assert run[1] == "run"
    running = stub_site.start()
    assert running.stop() == 0


def test_the_service_file_is_one_that_systemd_takes(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "dropscale.service").read_text(encoding="utf-8")
    start = re.search(r"^ExecStart=(\S+) (.*)$", text, re.M)
    assert start is not None
    help_text = subprocess.run([command(), "run", "--help"], capture_output=True, text=True, check=True).stdout
    assert start[2].split()[0] == "run"
    assert all(option in help_text for option in re.findall(r"--[a-z-]+", start[2]))
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: the options were checked, the unit was not")
    unit = tmp_path / "dropscale.service"
    unit.write_text(text.replace(start[1], command()))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_line_of_a_worker_is_one_that_it_takes(tmp_path: Path) -> None:
    """The rest, with a real server, is in tests/queue."""
    install, line = (text for text in shell_commands() if "queue" in text)
    extras = re.search(r"\[(.*)\]", install)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras is not None and set(extras[1].split(",")) <= set(known)
    (tmp_path / "file").write_text("the share is not empty")
    words = line.split()[1:]
    words[words.index("--share") + 1] = str(tmp_path)
    words[words.index("--url") + 1] = f"unix://{tmp_path}/none.sock"
    done = dropscale(tmp_path, *words, "--burst")
    assert "does not answer" in complaint(done, 3)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone of what is committed."""
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "iniconfig"]
    folder = tmp_path_factory.mktemp("fresh")
    if subprocess.run(probe, cwd=folder, capture_output=True, check=False).returncode != 0:
        pytest.skip("no package registry can be reached")
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: there is nothing to clone from")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), "clone"], cwd=folder, check=True)
    return folder / "clone"


@pytest.fixture
def background(tmp_path: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Processes, each in a group of its own, that are ended after the test."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def start(processes: list["subprocess.Popen[bytes]"], words: list[str], folder: Path, log: Path) -> None:
    with log.open("wb") as output:
        processes.append(
            subprocess.Popen(
                words, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        )


def enlarge_the_sample(folder: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for the watcher, drop the sample, and check what comes back; then stop it as Ctrl-C does."""
    wait_until(
        lambda: b"watching " in log.read_bytes() or process.poll() is not None, "the watcher to watch", SETUP_SECONDS
    )
    assert process.poll() is None, log.read_text()
    shutil.copy(SAMPLE, folder / "inbox")
    wait_until((folder / "archive" / "bee.jpg").exists, "the sample to be archived", 120)
    small, large = cv2.imread(str(SAMPLE)), cv2.imread(str(folder / "outbox" / "bee.jpg"))
    assert large.shape == (small.shape[0] * 3, small.shape[1] * 3, 3)
    assert (folder / "archive" / "bee.jpg").read_bytes() == SAMPLE.read_bytes()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    assert "stopped" in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(SETUP_SECONDS)
def test_make_run_enlarges_a_photograph_in_a_fresh_clone(
    clone: Path, background: list["subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    start(background, ["make", "run", f"PYTHON={sys.executable}"], clone, tmp_path / "log")
    enlarge_the_sample(clone, background[0], tmp_path / "log")


@pytest.mark.slow
@pytest.mark.timeout(SETUP_SECONDS)
def test_make_test_tests_in_a_fresh_clone(clone: Path) -> None:
    words = ["make", "test", f"PYTHON={sys.executable}", "TESTS=tests/watcher/test_window.py tests/sr_engine"]
    done = subprocess.run(words, cwd=clone, capture_output=True, text=True, timeout=SETUP_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(SETUP_SECONDS)
def test_the_plain_pip_form_works_anywhere(
    clone: Path, background: list["subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    """`pip install .`, with the remedy that README gives for machines without libGL, away from the checkout."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "."], cwd=clone, check=True, timeout=SETUP_SECONDS)
    remedy = re.search(r"`pip (uninstall opencv[^`]*?) && pip (install [^`]*)`", README.replace("\n", " "))
    assert remedy is not None
    uninstall, install = remedy[1].split(), remedy[2].split()
    subprocess.run([*pip, *uninstall, "--yes"], check=True, timeout=SETUP_SECONDS)
    subprocess.run([*pip, *install], check=True, timeout=SETUP_SECONDS)
    dropscale = str(environment / "bin" / "dropscale")
    subprocess.run([dropscale, "init", "pictures"], cwd=tmp_path, check=True)
    folder = tmp_path / "pictures"
    start(background, [dropscale, "run"], folder, tmp_path / "log")
    enlarge_the_sample(folder, background[0], tmp_path / "log")
