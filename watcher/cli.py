"""The command line: the only place that prints or exits."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import msgspec

from sr_engine import models
from sr_engine.errors import ModelError
from watcher import __version__, config, failed, instance, outside, queue_needs, rebuild
from watcher.cli_health import health_command
from watcher.cli_models import model_commands
from watcher.cli_report import report_command
from watcher.cli_warm import warm_command
from watcher.cli_web import web_command
from watcher.cli_worker import worker_command
from watcher.errors import (
    EXIT_DONE,
    EXIT_SOME_FAILED,
    AlreadyRunning,
    ConfigError,
    DropscaleError,
    EnvironmentFault,
    LedgerLost,
    NoModelError,
)
from watcher.journal import tell, warn
from watcher.keeper import EngineKeeper
from watcher.ledger import Ledger
from watcher.live import LiveProgress
from watcher.logs import begin_log
from watcher.mounted import check_mounts, note_mounts
from watcher.mounts import sync_client_hint, sync_warning
from watcher.names import display
from watcher.page import Page, check_wall
from watcher.progress import Progress
from watcher.sections import Config
from watcher.service import Ended, Service
from watcher.signals import Signals, exit_on_signals
from watcher.workshop import Outcome

_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells do


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    _open_streams()
    try:
        code = commands.main(args=arguments, prog_name="dropscale", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = _EXIT_INTERRUPTED
    except AlreadyRunning as error:
        click.echo(f"dropscale: {error.message}")
        code = error.exit_code
    except DropscaleError as error:
        _complain(error.message, error.remedy)
        code = error.exit_code
    except BrokenPipeError:
        # `dropscale status | head`: nothing more to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_DONE
    except OSError as error:
        _complain(f"{error.strerror or error}: {display(str(error.filename or ''))}", "see `dropscale doctor`")
        code = EnvironmentFault.exit_code
    sys.exit(code or EXIT_DONE)


def _open_streams() -> None:
    """Make both streams fit for whatever is written: they may be closed, and names are bytes."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # `dropscale once >&-`; the number may belong to another file by now
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the end of the process
            with contextlib.suppress(OSError):
                os.fstat(descriptor)
                continue
            os.dup2(getattr(sys, name).fileno(), descriptor)
        with contextlib.suppress(AttributeError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _complain(message: str, remedy: str) -> None:
    click.echo(f"dropscale: {message}", err=True)
    if remedy:
        click.echo(f"  What to do: {remedy}.", err=True)


def _config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        help="The config; default ./config.yaml, or $DROPSCALE_CONFIG.",
    )(command)


def _log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--log-format",
        type=click.Choice(["plain", "json"]),
        default="plain",
        help="One plain line per event (with a progress bar on a terminal), or one JSON object.",
    )(command)
    return click.option("--verbose", is_flag=True, help="Also what the engine writes to its stderr.")(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dropscale")
def commands() -> None:
    """Drop a picture into a folder, get it back three times larger; the engine runs only while there is work.

    Exit codes: 0 done, 1 some pictures failed, 2 usage or config, 3 environment (share gone, disk full, no model).
    """


@commands.command()
@click.argument("directory", required=False, default=".", metavar="[DIR]")
@_config_option
def init(directory: str, config_path: str | None) -> None:
    """Write config.yaml and create the folders; what is there already stays as it is."""
    path = config_path or os.path.join(directory, config.DEFAULT_NAME)
    os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(config.default_text())
        click.echo(f"wrote {path}")
    except FileExistsError:
        click.echo(f"{path} is there already, it stays as it is")
    folders = config.load(path, os.environ).folders
    for key in ("inbox", "outbox", "archive", "failed"):
        os.makedirs(getattr(folders, key), exist_ok=True)
    instance.prepare_state_folder(folders.state)
    ledger = Ledger(folders.state)
    note_mounts(folders, ledger)
    ledger.close()
    click.echo(f"Drop pictures into {display(folders.inbox)}, then: dropscale run")


@commands.command()
@_config_option
@_log_options
def run(config_path: str | None, log_format: str, verbose: bool) -> int:
    """Watch the inbox until stopped (SIGTERM, SIGINT); SIGHUP reads the config again."""
    progress = begin_log(log_format, verbose=verbose)
    path, settings = _load(config_path)
    if settings.web.enabled:
        check_wall(settings.web)
    signals = Signals()
    with _sole_watcher(settings) as ledger:
        model = _model(settings, _models_folder(settings))

        def renew() -> bool:
            nonlocal settings, model
            signals.reload = False
            before, settings = (settings, model), _reloaded(path, settings, ledger)
            with contextlib.suppress(DropscaleError):  # which was told already
                model = _model(settings, _models_folder(settings))
            return (settings, model) != before

        def watch(keeper: EngineKeeper) -> Ended:
            options = ["--log-format", log_format, *(["--verbose"] if verbose else [])]
            with Page(settings.web, settings.retry, path, options):
                return _watch(settings, ledger, keeper, progress, signals, renew)

        try:
            with contextlib.closing(EngineKeeper(ledger)) as keeper:
                while watch(keeper) is Ended.RELOAD:
                    pass
        except LedgerLost as error:
            if signals.stop:
                raise
            rebuild.begin_anew(error)
    tell("goodbye", "stopped")
    return EXIT_DONE


@commands.command()
@_config_option
@_log_options
def once(config_path: str | None, log_format: str, verbose: bool) -> int:
    """Look once, process the files that are whole, exit; for cron."""
    progress = begin_log(log_format, verbose=verbose)
    _, settings = _load(config_path)
    with _sole_watcher(settings) as ledger, contextlib.closing(EngineKeeper(ledger)) as keeper:
        service = _service(settings, ledger, keeper, progress)
        Signals().attach(service)
        with outside.attended(settings, ledger, service.vitals):
            outcome = service.once()
    return _exit_code(outcome)


@commands.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(config_path: str | None, as_json: bool) -> int:
    """What waits and why, what runs, what failed, and how the watcher is."""
    from watcher.status import collect, describe  # noqa: PLC0415 - keep the watcher itself small

    _, settings = _load(config_path)
    report = collect(settings)
    if as_json:
        click.echo(_indented(report))
    else:
        for line in describe(report):
            click.echo(line)
    return EXIT_DONE


@commands.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@_config_option
def retry(paths: tuple[str, ...], config_path: str | None) -> int:
    """Put failed pictures back into the inbox: all, or those named (below the failed folder, or as paths)."""
    _, settings = _load(config_path)
    folder = settings.folders.failed
    missing = 0
    for path, back in failed.put_back(settings, failed.named(paths, folder)):
        if back is None:
            _complain(f"there is no {display(os.path.join(folder, path))}", "see `dropscale status`")
            missing += 1
        else:
            click.echo(f"{display(path)} is back in the inbox as {display(back)}")
    return EXIT_SOME_FAILED if missing else EXIT_DONE


@commands.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", "output_folder", required=True, metavar="DIR", help="Where the results go.")
@click.option("--model", help="In place of engine.model.")
@click.option("--ensemble", is_flag=True, help="Average eight turned copies: a little better, eight times the work.")
@_config_option
@_log_options
def upscale(
    files: tuple[str, ...],
    output_folder: str,
    model: str | None,
    ensemble: bool,
    config_path: str | None,
    log_format: str,
    verbose: bool,
) -> int:
    """Upscale files straight into a folder: no inbox, no archive; the originals stay."""
    from watcher.straight import upscale_files  # noqa: PLC0415 - keep the watcher itself small

    progress = begin_log(log_format, verbose=verbose)
    settings = _load_if_any(config_path)
    engine = settings.engine
    if model == models.AUTO:
        model = models.default_name(engine.runtime, engine.device)
    engine = msgspec.structs.replace(engine, model=model or engine.model, ensemble=ensemble or engine.ensemble)
    settings = msgspec.structs.replace(settings, engine=engine)
    folder = _models_folder(settings)
    _model(settings, folder)
    exit_on_signals()
    some_failed = upscale_files(settings, folder, files, output_folder, progress)
    return EXIT_SOME_FAILED if some_failed else EXIT_DONE


@commands.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(config_path: str | None, as_json: bool) -> int:
    """What this machine has, what is missing, and what to do about it."""
    from watcher.doctor import Check, examine  # noqa: PLC0415 - keep the watcher itself small

    _, settings = _load(config_path)
    checks: list[Check] = []
    marks = {"ok": "ok  ", "note": "note", "bad": "BAD "}
    for check in examine(settings, _models_folder(settings)):
        checks.append(check)
        if not as_json:
            click.echo(f"{marks[check.verdict]}  {check.name:<16} {check.text}")
    if as_json:
        click.echo(_indented([_filled(check._asdict()) for check in checks]))
    return EnvironmentFault.exit_code if any(check.verdict == "bad" for check in checks) else EXIT_DONE


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _indented(report: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def _load(config_path: str | None) -> tuple[str, Config]:
    path = config_path or os.environ.get(config.ENV_CONFIG) or config.DEFAULT_NAME
    return path, config.load(path, os.environ)


def _load_if_any(config_path: str | None) -> Config:
    """The config; where none is named and none lies here, the defaults."""
    return _load_named(config_path)[1]


def _load_named(config_path: str | None) -> tuple[str, Config]:
    """The config and where it lies; where none is named and none lies here, the defaults and nothing."""
    named = config_path or os.environ.get(config.ENV_CONFIG) or os.path.exists(config.DEFAULT_NAME)
    return _load(config_path) if named else ("", config.without_file(os.environ))


commands.add_command(model_commands(_load_if_any, _config_option))
commands.add_command(health_command(lambda path: _load(path)[1], _config_option))
commands.add_command(report_command(lambda path: _load(path)[1], _config_option))
commands.add_command(warm_command(lambda path: _load(path)[1], _config_option))
commands.add_command(web_command(lambda path: _load(path)[1], _config_option))
commands.add_command(worker_command(_load_named, _config_option, _log_options))


@contextlib.contextmanager
def _sole_watcher(settings: Config) -> Iterator[Ledger]:
    """The ledger, for the one watcher of these folders, once all that it needs was seen to be there."""
    config.check_folders(settings.folders)
    queue_needs.check(settings)
    _model(settings, _models_folder(settings))
    outside.check(settings)
    lock = instance.InstanceLock(settings.folders.state)
    lock.acquire()
    try:
        with contextlib.closing(rebuild.open_ledger(settings.folders.state)) as ledger:
            check_mounts(settings.folders, ledger)
            rebuild.read_folders(ledger, settings.folders)
            instance.introduce(ledger)
            yield ledger
    finally:
        lock.release()


def _watch(
    settings: Config,
    ledger: Ledger,
    keeper: EngineKeeper,
    progress: Progress,
    signals: Signals,
    renew: Callable[[], bool],
) -> Ended:
    service = _service(settings, ledger, keeper, progress, renew)
    signals.attach(service)
    model = settings.engine.model
    ensemble = ", ensemble: eight times the work" if settings.engine.ensemble else ""
    tell(
        "model",
        "model {model}, runtime {runtime}{ensemble}",
        model=model,
        runtime=settings.engine.runtime,
        ensemble=ensemble,
    )
    if client := sync_client_hint(settings.folders.inbox):
        warn("synced", "{advice}", advice=sync_warning(client))
    with outside.attended(settings, ledger, service.vitals):
        ended = service.run()
        if ended is Ended.STOPPED:
            tell("stopped", "the watcher has stopped", level=logging.DEBUG)
    return ended


def _reloaded(path: str, old: Config, ledger: Ledger) -> Config:
    """The config as it is now; the old one, if the new is not usable."""
    try:
        new = config.load(path, os.environ)
        config.check_folders(new.folders)
        queue_needs.check(new)
        _model(new, _models_folder(new))
        if new.web.enabled:
            check_wall(new.web)
        if new.folders.state != old.folders.state:
            raise ConfigError("folders.state cannot change while the watcher runs", "start it again")
        check_mounts(new.folders, ledger)
        outside.check(new)
    except DropscaleError as error:
        warn("reload", "the config stays as it was: {problem}", problem=error.message)
        return old
    tell("reload", "read {path} again{change}", path=path, change=": nothing changed" if new == old else "")
    return new


def _service(
    settings: Config,
    ledger: Ledger,
    keeper: EngineKeeper,
    progress: Progress,
    renew: Callable[[], bool] = lambda: False,
) -> Service:
    folder = _models_folder(settings)
    live = LiveProgress(progress, settings.folders.state)
    return Service(settings, _model(settings, folder), folder, ledger, keeper, live, renew)


def _models_folder(settings: Config) -> str:
    return settings.engine.models_folder or models.own_folder()


def _model(settings: Config, folder: str) -> models.Model:
    try:
        known = models.installed(folder)
        if settings.engine.model not in known:
            if settings.engine.models_folder and not os.path.exists(os.path.join(folder, models.MANIFEST)):
                raise NoModelError(
                    f"engine.model: {settings.engine.model!r} is none of those that came along, "
                    f"and there is no {models.MANIFEST} in {folder}",
                    "mount that folder or correct engine.models_folder; `dropscale models list` shows what there is",
                )
            raise ConfigError(
                f"engine.model: {settings.engine.model!r} is not allowed; expected one of {', '.join(sorted(known))}",
                "`dropscale models list` shows what can be fetched, `dropscale models add` takes a file",
            )
        found = known[settings.engine.model]
        models.verify(found)
    except ModelError as error:
        raise NoModelError(error.message, "see `dropscale doctor`") from error
    return found.model


def _exit_code(outcome: Outcome) -> int:
    if outcome.trouble:
        return EnvironmentFault.exit_code
    return EXIT_SOME_FAILED if outcome.failed else EXIT_DONE
