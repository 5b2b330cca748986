"""`dropscale run` and `dropscale once`: the one watcher of these folders, for as long as it is wanted."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import click

from sr_engine.models import Model
from watcher import config, instance, rebuild
from watcher.commands.options import config_option, load, log_options, path_of
from watcher.engine.keeper import EngineKeeper
from watcher.engine.model import find_model, models_folder
from watcher.errors import EXIT_DONE, EXIT_SOME_FAILED, ConfigError, DropscaleError, EnvironmentFault, LedgerLost
from watcher.files.mounted import check_mounts
from watcher.files.mounts import sync_client_hint, sync_warning
from watcher.journal import tell, warn
from watcher.ledger import Ledger
from watcher.logs import begin_log
from watcher.operation import outside, page
from watcher.operation.live import LiveProgress
from watcher.progress import Progress
from watcher.queue import needs as queue_needs
from watcher.sections import Config
from watcher.service import Ended, Service
from watcher.signals import Signals
from watcher.workshop import Outcome


@click.command()
@config_option
@log_options
def run(config_path: str | None, log_format: str, verbose: bool) -> int:
    """Watch the inbox until stopped (SIGTERM, SIGINT); SIGHUP reads the config again."""
    progress = begin_log(log_format, verbose=verbose)
    path, settings = path_of(config_path), load(config_path)
    page.check(settings.web)
    signals = Signals()
    with _sole_watcher(path, settings) as (ledger, model, claim):

        def renew() -> bool:
            nonlocal settings, model
            signals.reload = False
            before, settings = (settings, model), _reloaded(path, settings, ledger, claim)
            with contextlib.suppress(DropscaleError):  # which was told already
                model = find_model(settings)
            return (settings, model) != before

        def watch(keeper: EngineKeeper, attendance: outside.Attendance) -> Ended:
            options = ["--log-format", log_format, *(["--verbose"] if verbose else [])]
            with page.Page(settings.web, settings.retry, path, options):
                service = _service(settings, model, ledger, keeper, progress, renew)
                return _watch(settings, service, attendance, signals)

        try:
            # hooks hear of the engine's end, and what waits for them does not keep its device held
            attendance = outside.Attendance(ledger)
            with contextlib.closing(attendance), contextlib.closing(EngineKeeper(ledger)) as keeper:
                while watch(keeper, attendance) is Ended.RELOAD:
                    pass
        except LedgerLost as error:
            if signals.stop:
                raise
            rebuild.begin_anew(error)
    tell("goodbye", "stopped")
    return EXIT_DONE


@click.command()
@config_option
@log_options
def once(config_path: str | None, log_format: str, verbose: bool) -> int:
    """Look once, process the files that are whole, exit; for cron."""
    progress = begin_log(log_format, verbose=verbose)
    path, settings = path_of(config_path), load(config_path)
    with (
        _sole_watcher(path, settings) as (ledger, model, _),
        contextlib.closing(outside.Attendance(ledger)) as attendance,
    ):
        signals, keeper = Signals(), EngineKeeper(ledger)
        service = _service(settings, model, ledger, keeper, progress)
        signals.attach(service)
        with attendance.to(settings, service.vitals):
            with contextlib.closing(keeper):  # before the hooks are waited for
                outcome = service.once()
            attendance.drain(lambda: signals.stop)
    return _exit_code(outcome)


@contextlib.contextmanager
def _sole_watcher(path: str, settings: Config) -> Iterator[tuple[Ledger, Model, instance.InboxClaim]]:
    """The one watcher of these folders: ledger, model and claim, once all that it needs was seen to be there."""
    config.check_folders(settings.folders)
    queue_needs.check(settings, chose_model=config.leaves_model_to_machine(path, os.environ))
    model = find_model(settings)
    outside.check(settings)
    lock, claim = instance.InstanceLock(settings.folders.state), instance.InboxClaim()
    lock.acquire()
    try:
        claim.take(settings.folders.inbox)
        with contextlib.closing(rebuild.open_ledger(settings.folders.state)) as ledger:
            check_mounts(settings.folders, ledger)
            rebuild.read_folders(ledger, settings.folders)
            instance.introduce(ledger)
            yield ledger, model, claim
    finally:
        claim.release()
        lock.release()


def _watch(settings: Config, service: Service, attendance: outside.Attendance, signals: Signals) -> Ended:
    signals.attach(service)
    ensemble = ", ensemble: eight times the work" if settings.engine.ensemble else ""
    tell(
        "model",
        "model {model}, runtime {runtime}{ensemble}",
        model=settings.engine.model,
        runtime=settings.engine.runtime,
        ensemble=ensemble,
    )
    if client := sync_client_hint(settings.folders.inbox):
        warn("synced", "{advice}", advice=sync_warning(client))
    with attendance.to(settings, service.vitals):
        ended = service.run()
        if ended is Ended.STOPPED:
            tell("stopped", "the watcher has stopped", level=logging.DEBUG)
    return ended


def _reloaded(path: str, old: Config, ledger: Ledger, claim: instance.InboxClaim) -> Config:
    """The config as it is now; the old one, if the new is not usable."""
    try:
        new = config.load(path, os.environ)
        config.check_folders(new.folders)
        queue_needs.check(new, chose_model=config.leaves_model_to_machine(path, os.environ))
        find_model(new)
        page.check(new.web)
        if new.folders.state != old.folders.state:
            raise ConfigError("folders.state cannot change while the watcher runs", "start it again")
        check_mounts(new.folders, ledger)
        outside.check(new, old)
        claim.take(new.folders.inbox)
    except DropscaleError as error:
        warn("reload", "the config stays as it was: {problem}", problem=error.message)
        return old
    tell("reload", "read {path} again{change}", path=path, change=": nothing changed" if new == old else "")
    return new


def _service(
    settings: Config,
    model: Model,
    ledger: Ledger,
    keeper: EngineKeeper,
    progress: Progress,
    renew: Callable[[], bool] = lambda: False,
) -> Service:
    live = LiveProgress(progress, settings.folders.state)
    return Service(settings, model, models_folder(settings), ledger, keeper, live, renew)


def _exit_code(outcome: Outcome) -> int:
    if outcome.trouble:
        return EnvironmentFault.exit_code
    return EXIT_SOME_FAILED if outcome.failed else EXIT_DONE
