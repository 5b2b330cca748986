"""What comes from Redis is data; who may talk to it, is asked; and no password is ever shown."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import rq
import yaml
from harness import ROOT, Site, complaint, dropscale, wait_until
from machines import QueueSite, RedisServer, children, command_line
from redis import SSLConnection
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from test_both_executors import settle
from test_queue_faults import begin
from test_queue_neighbours import change

from sr_engine import models, protocol
from watcher.config import without_file
from watcher.queue import address, redis_link
from watcher.queue.shard_work import Place, upscale_shard
from watcher.queue.shards import Deadlines, Entry, Report, Shard, content_key, digest_of
from watcher.queue.worker import HorseJob, HorseOrders, fetch_job

PASSWORD = "hunter2-and-more"


def enqueue(site: QueueSite, function: str, *arguments: object) -> rq.job.Job:
    """As somebody who can write to Redis may."""
    client = site.server.client()
    queue = rq.Queue("dropscale", connection=client, serializer=JSONSerializer)
    return queue.enqueue(function, *arguments)


@pytest.mark.parametrize("left", [{}, {"last_heartbeat": "1"}], ids=["nothing", "a heartbeat that came later"])
def test_a_job_that_redis_forgot_while_it_was_taken_is_none(server: RedisServer, left: dict[str, str]) -> None:
    job = rq.Queue("dropscale", connection=server.client(), serializer=JSONSerializer).enqueue("shard", {})
    told = HorseJob(job.id, "execution")
    if left:
        server.client().hset(Execution("execution", job.id, server.client()).key, mapping=left)
    orders = HorseOrders(os.getpid(), server.url, "dropscale", "horse", "/", "", "plain", verbose=False)
    with redis_link.connect(server.url) as connection, pytest.raises(NoSuchJobError):
        fetch_job(connection, orders, told)


def test_a_worker_runs_no_function_that_a_job_names(queue_site: QueueSite, tmp_path: Path) -> None:
    worker = queue_site.worker()
    job = enqueue(queue_site, "os.mkdir", str(tmp_path / "made by a job"))
    wait_until(lambda: job.get_status() is JobStatus.FAILED, "the job to be refused")
    assert not (tmp_path / "made by a job").exists()
    promise, _ = begin(queue_site, 1, 0.1)
    settle(promise)
    assert worker.process.poll() is None
    job.connection.close()


def test_a_worker_calls_no_callback_of_a_job(queue_site: QueueSite, tmp_path: Path) -> None:
    module = tmp_path / "intruder.py"
    module.write_text(f"def run(*_):\n    open({str(tmp_path / 'called')!r}, 'w').close()\n")
    queue_site.worker(PYTHONPATH=str(tmp_path))
    client = queue_site.server.client()
    queue = rq.Queue("dropscale", connection=client, serializer=JSONSerializer)
    callback = rq.Callback("intruder.run")
    jobs = [
        queue.enqueue("dropscale.shard", {}, on_success=callback, on_failure=callback),
        queue.enqueue("intruder.run", on_failure=callback),
    ]
    ended = (JobStatus.FAILED, JobStatus.FINISHED)
    wait_until(lambda: all(job.get_status() in ended for job in jobs), "both jobs to end")
    assert not (tmp_path / "called").exists()
    client.close()


# A shard by hand, without Redis


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    share = tmp_path / "share"
    (share / "outbox" / "staging" / "queue").mkdir(parents=True)
    (share / "inbox").mkdir()
    stub = [sys.executable, "-P", str(ROOT / "tests" / "engines" / "stub.py")]
    config = without_file({"DROPSCALE_ENGINE__COMMAND": json.dumps(stub)})
    return Place(str(share), config, "", models.installed(), "here")


def shard(*paths: str, size: int = 9, **fields: object) -> dict[str, object]:
    name = models.default_name("auto", "cpu")
    sha256 = "3b8a1f1c8ac28c0d1a14b0f2b4f2d1a3e8a4b0f3f1d9c2e4a6b8c0d2e4f60718"
    made = Shard(
        shelf="outbox/staging/queue",
        entries=tuple(Entry(path, size, sha256, content_key(sha256, path)) for path in paths),
        model=name,
        model_digest=digest_of(models.find(name).model),
        ensemble=False,
        precision="auto",
        output=protocol.Output(),
        limits=protocol.Limits(),
        deadlines=Deadlines(20, 20, 20, 5),
    )
    manifest: dict[str, object] = msgspec.to_builtins(made)
    return {**manifest, **fields}


def report_of(place: Place, manifest: object) -> Report:
    return msgspec.convert(upscale_shard(place, "e", lambda _: None, lambda: None, manifest), Report)


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "/etc/hostname",
        "inbox/../../secret",
        "inbox/./../../secret",
        "inbox//x",
        "link/secret",
        "inbox/link.png",
        "%2e%2e/secret",
        "inbox/a%00b",
        "",
    ],
)
def test_a_path_that_leaves_the_share_is_refused(place: Place, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_bytes(b"a picture")
    (Path(place.share) / "link").symlink_to(tmp_path)
    (Path(place.share) / "inbox" / "link.png").symlink_to(tmp_path / "secret")
    report = report_of(place, shard(path))
    (answer,) = report.answers
    assert isinstance(answer, protocol.Failed)
    assert answer.message == "here: its path leads out of the share"
    assert answer.fault is protocol.Fault.ENVIRONMENT
    assert report.runs == (), "no engine was started for it"


def test_a_shelf_outside_of_the_share_is_refused(place: Place, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    report = report_of(place, shard("inbox/a.png", shelf="../elsewhere"))
    assert "outside of the share" in report.refused


def test_where_the_shelf_is_gone_nobody_waits(place: Place) -> None:
    (Path(place.share) / "outbox" / "staging" / "queue").rmdir()
    report = report_of(place, shard("inbox/a.png"))
    assert report.absent and "nobody waits any more, or it is not the watcher's share" in report.refused
    assert (report.answers, report.runs) == ((), ())
    assert not (Path(place.share) / "outbox" / "staging" / "queue").exists()


def test_another_model_than_the_watchers_is_refused(place: Place) -> None:
    report = report_of(place, shard("inbox/a.png", model_digest="0" * 64))
    assert report.refused.startswith("here: the model edsr-lite-x3 is another one than the watcher's")
    assert report_of(place, shard("inbox/a.png", model="nobody")).refused.startswith(
        "here: no model is called 'nobody'"
    )


@pytest.mark.parametrize("manifest", [None, 7, {}, {"v": 1}, {**shard("a"), "v": 2}, {**shard("a"), "more": 1}])
def test_what_is_no_job_of_this_version_is_refused(place: Place, manifest: object) -> None:
    assert "another version" in report_of(place, manifest).refused


def test_a_share_that_lags_makes_the_picture_wait(place: Place) -> None:
    (Path(place.share) / "inbox" / "a.png").write_bytes(b"not all of")
    (answer,) = report_of(place, shard("inbox/a.png", size=11)).answers
    assert isinstance(answer, protocol.Failed)
    assert answer.fault is protocol.Fault.ENVIRONMENT
    assert "sees 10 bytes of it, and the watcher 11" in answer.message


def test_a_picture_that_was_rewritten_leaves_no_result(place: Place) -> None:
    (Path(place.share) / "inbox" / "a.png").write_bytes(b"a picture")  # another content than the manifest says
    report = report_of(place, shard("inbox/a.png"))
    (answer,) = report.answers
    assert isinstance(answer, protocol.Done)
    assert answer.source_sha256 != shard("x")["entries"][0]["sha256"]  # type: ignore[index]
    assert list((Path(place.share) / "outbox" / "staging" / "queue").iterdir()) == []


def test_an_engine_that_was_never_ready_on_a_cpu_is_billed_to_no_gpu(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB", "NOSTART")
    (Path(place.share) / "inbox" / "a.png").write_bytes(b"a picture")
    config = msgspec.structs.replace(place.config, engine=msgspec.structs.replace(place.config.engine, device="cpu"))
    report = report_of(place._replace(config=config), shard("inbox/a.png"))
    assert {run.device for run in report.runs} == {"cpu"}


# Other models, through the queue


def test_a_model_that_differs_reaches_the_status(queue_site: QueueSite, tmp_path: Path) -> None:
    """The worker has one of the same name of its own."""
    own = tmp_path / "own"
    own.mkdir()
    bundled = models.find("edsr-lite-x3")
    (own / bundled.model.file).write_bytes(Path(bundled.path).read_bytes())
    model = msgspec.structs.replace(bundled.model, halo=bundled.model.halo + 1)
    manifest = {"models": {"edsr-lite-x3": msgspec.to_builtins(model)}}
    (own / "models.yaml").write_bytes(msgspec.json.encode(manifest))
    queue_site.worker(DROPSCALE_ENGINE__MODELS_FOLDER=str(own))
    promise, _ = begin(queue_site, 1, 0.1)
    wait_until(lambda: "is another one than the watcher's" in str(queue_site.status()), "the reason")
    promise.check_now()


# Passwords


def test_a_password_is_asked_for_and_never_shown(make_queue_site: Callable[..., QueueSite]) -> None:
    server = RedisServer()
    server.url = server.url.replace("unix://", f"unix://:{PASSWORD}@")
    server._options = ("--requirepass", PASSWORD)
    server.start()
    try:
        site = make_queue_site()
        site.environment["DROPSCALE_QUEUE__URL"] = server.url
        worker = site.worker()
        family = [worker.pid, *children(worker.pid)]
        assert not any(PASSWORD.encode() in command_line(pid) for pid in family), "ps shows it"
        promise, watcher = begin(site, 2, 0.5)
        shown = ""
        while "a.png" not in shown and len(site.names(site.archive)) < 2:
            status = site.run("status", "--json").stdout
            assert PASSWORD not in status
            family = [worker.pid, *children(worker.pid), *site.engines()]
            assert not any(PASSWORD.encode() in command_line(pid) for pid in family), "ps shows it"
        settle(promise)
        server.kill()
        site.drop("late.png", b"a late picture")
        wait_until(lambda: "does not answer" in site.troubles(), "the reason")
        assert PASSWORD not in str(site.status()) + watcher.log() + worker.log()
    finally:
        server.close()


def test_a_wrong_password_ends_the_worker_with_a_reason(queue_site: QueueSite, server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
    done = queue_site.run("worker", "--share", str(queue_site.root))
    assert done.returncode == 3
    assert "wants another user or password" in done.stderr


@pytest.mark.parametrize(
    "url", ["http://u:hunter2@host", "hunter2", "redis://:hunter2@host:port/0", "redis://h/0?a=hunter2"]
)
def test_a_wrong_address_is_told_without_showing_it(queue_site: QueueSite, url: str) -> None:
    done = queue_site.run("worker", "--share", str(queue_site.root), "--url", url)
    assert done.returncode == 2, done.stderr
    assert "queue.url" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis..lan:6379/0",
        "{socket}?decode_responses=true",
        "{socket}?encoding=hunter2",
        "{socket}?retry=hunter2",
        "{socket}?hunter2=1",
        "redis://{address}/0?socket_keepalive_options=hunter2",
        "rediss://{address}/0?ssl_ciphers=hunter2",
    ],
)
def test_an_address_that_redis_py_stumbles_over_is_told_of(queue_site: QueueSite, url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = url.format(socket=queue_site.server.url, address=f"127.0.0.1:{listener.getsockname()[1]}")
        # redis-py leaves a socket that it cannot set up to the collector
        queue_site.environment |= {"DROPSCALE_QUEUE__URL": url, "PYTHONWARNINGS": "error,ignore::ResourceWarning"}
        queue_site.drop("a.png", b"a picture")
        for done in (queue_site.run("worker", "--share", str(queue_site.root), "--burst"), queue_site.once()):
            assert done.returncode in (2, 3), done.stderr
            assert "queue.url" in done.stderr or "Redis" in done.stderr
            assert "hunter2" not in done.stdout + done.stderr
        watcher = queue_site.start(ready=False)  # the end of the site looks for tracebacks in the log
        wait_until(lambda: watcher.process.poll() is not None or queue_site.troubles(), "the reason")


def test_a_wrong_address_at_a_reload_leaves_the_config_as_it_was(queue_site: QueueSite) -> None:
    address = {"url": queue_site.environment.pop("DROPSCALE_QUEUE__URL")}
    tree = yaml.safe_load(queue_site.config_path.read_text())
    tree["queue"] |= address
    queue_site.config_path.write_text(yaml.safe_dump(tree))
    promise, watcher = begin(queue_site, 1, 0.1)
    change(queue_site, watcher, queue={**tree["queue"], "url": "redis://host:hunter2/0"})
    wait_until(lambda: "the config stays as it was" in watcher.log() or watcher.process.poll() is not None, "an answer")
    assert watcher.process.poll() is None, watcher.log()
    assert "hunter2" not in watcher.log()
    queue_site.worker("--url", address["url"])
    settle(promise)


def test_a_worker_with_too_few_rights_says_what_to_do(queue_site: QueueSite, server: RedisServer) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "few", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-sadd")
    url = server.url.replace("unix://", f"unix://few:{PASSWORD}@")
    done = queue_site.run("worker", "--share", str(queue_site.root), "--url", url)
    assert done.returncode == 3, done.stderr
    assert "does not let this user do its work" in done.stderr and PASSWORD not in done.stderr


def test_a_share_whose_name_is_no_text_is_worked_on(queue_site: QueueSite, tmp_path: Path) -> None:
    share = tmp_path / "sh\udcffre"
    share.symlink_to(queue_site.root)
    queue_site.worker(share=share)
    promise, _ = begin(queue_site, 1, 0.1)
    settle(promise)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:6379/1?ssl_cert_reqs=none", "redis://host:6379/1"),
        ("rediss://:secret@[::1]:6379/0", "rediss://[::1]:6379/0"),
        ("unix://:secret@/run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert address.shown(url) == shown


def test_tls_is_by_the_address() -> None:
    with redis_link.connect("rediss://user:secret@host:6379/0?ssl_cert_reqs=required") as connection:
        assert issubclass(connection.connection_pool.connection_class, SSLConnection)


# Where something is missing


def test_without_rq_the_message_names_the_extra(tmp_path: Path, stub_site: Site) -> None:
    hidden = "import sys; sys.modules['rq'] = None; from watcher.cli import main; main()"
    for words in (["run", "--config", str(stub_site.config_path)], ["worker", "--share", str(stub_site.root)]):
        done = subprocess.run(
            [sys.executable, "-c", hidden, *words],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "DROPSCALE_EXECUTOR": "rq"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "pip install rq" in complaint(done, 3)


def test_folders_outside_of_the_share_are_refused(make_queue_site: Callable[..., QueueSite], tmp_path: Path) -> None:
    site = make_queue_site(queue={"share": str(tmp_path / "elsewhere")})
    done = site.once()
    assert done.returncode == 2
    assert "does not lie below queue.share" in done.stderr


def test_the_command_line_loads_no_rq() -> None:
    code = "import watcher.cli, watcher.commands.watch, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"rq", "redis"} & {name.split(".")[0] for name in done.stdout.split()}


def assert_warned(site: Site, text: str, **environment: str) -> None:
    """That a worker which is told no --url says so."""
    (site.root / "file").write_text("the share is not empty")
    running = site.start("worker", "--share", str(site.root), ready=False, **environment)
    wait_until(lambda: "trying again" in running.log() or running.process.poll() is not None, "a warning")
    assert f"{text}; trying again" in running.log()


def test_a_worker_without_redis_tells_where_the_address_is_from(make_site: Callable[..., Site], tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none.sock"
    site = make_site(queue={"url": url})
    assert_warned(site, f"; the address is queue.url of {site.config_path}")
    assert_warned(site, "; the address is that of DROPSCALE_QUEUE__URL", DROPSCALE_QUEUE__URL=url)


def test_a_worker_that_knows_no_address_is_told_how_to_name_one(site: Site) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 6379)) == 0:
            pytest.skip("a Redis listens at the default address")
    assert_warned(site, "; that is the default address: name the watcher's with --url or DROPSCALE_QUEUE__URL")


# Ends


def test_a_worker_ends_when_the_queue_is_empty(queue_site: QueueSite) -> None:
    done = queue_site.run("worker", "--share", str(queue_site.root), "--burst")
    assert done.returncode == 0, done.stderr


def test_a_worker_ends_when_it_was_idle_for_long_enough(queue_site: QueueSite) -> None:
    done = queue_site.run("worker", "--share", str(queue_site.root), "--max-idle-time", "1")
    assert done.returncode == 0, done.stderr


def test_without_redis_a_burst_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("it is not empty")
    url = f"unix://{tmp_path}/none.sock"
    done = dropscale(tmp_path, "worker", "--share", ".", "--url", url, "--burst")
    assert "does not answer" in complaint(done, 3).splitlines()[0]
