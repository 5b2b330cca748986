"""Commands around the folders: set them up, see how they are, put failed pictures back, look for what is missing."""

import os
import shlex
from typing import Any

import click
import msgspec

from watcher import config, failed, instance
from watcher.commands.options import complain, config_option, leaves_model_to_machine, load
from watcher.engine.model import models_folder
from watcher.errors import EXIT_DONE, EXIT_SOME_FAILED, EnvironmentFault, UsageError
from watcher.files.mounted import note_mounts
from watcher.files.names import display
from watcher.ledger import Ledger
from watcher.operation.doctor import Check, examine
from watcher.operation.status import collect, describe


@click.command()
@click.argument("directory", required=False, default=".", metavar="[DIR]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As folders.state=/var/lib/dropscale.")
@config_option
def init(directory: str, settings: tuple[str, ...], config_path: str | None) -> None:
    """Write config.yaml and create the folders; what is there already stays as it is."""
    path = config_path or os.path.join(directory, config.DEFAULT_NAME)
    text = config.default_text(_by_key(settings))
    config.check_text(text, path)
    try:
        os.makedirs(os.path.dirname(path) or os.curdir, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{display(directory)} is no folder", "name another one") from None
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
        click.echo(f"wrote {path}")
        if edited := config.edits_of_default():
            click.echo(f"it has your settings from {config.default_path()}, not the defaults, in: {', '.join(edited)}")
    except FileExistsError:
        if settings:
            raise UsageError(f"{path} is there already, it stays as it is", "set these keys there") from None
        click.echo(f"{path} is there already, it stays as it is")
    folders = config.load(path, os.environ).folders
    for key in ("inbox", "outbox", "archive", "failed"):
        os.makedirs(getattr(folders, key), exist_ok=True)
    instance.prepare_state_folder(folders.state)
    ledger = Ledger(folders.state)
    note_mounts(folders, ledger)
    ledger.close()
    named = "" if os.path.normpath(path) == config.DEFAULT_NAME else f" --config {shlex.quote(display(path))}"
    click.echo(f"Drop pictures into {display(folders.inbox)}, then: dropscale run{named}")


def _by_key(settings: tuple[str, ...]) -> dict[str, str]:
    """What `--set` was given, by key."""
    parts = [setting.partition("=") for setting in settings]
    for key, equals, value in parts:
        if not equals or "\n" in value:
            raise UsageError(
                f"--set {key}: KEY=VALUE is needed, on one line", "as `--set folders.state=/var/lib/dropscale`"
            )
    return {key: value for key, _, value in parts}


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(config_path: str | None, as_json: bool) -> int:
    """What waits and why, what runs, what failed, and how the watcher is."""
    settings = load(config_path)
    report = collect(settings, asks_redis=True)
    if as_json:
        click.echo(_indented(report))
    else:
        for line in describe(report):
            click.echo(line)
    return EXIT_DONE


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@config_option
def retry(paths: tuple[str, ...], config_path: str | None) -> int:
    """Put failed pictures back into the inbox: all, or those named (below the failed folder, or as paths)."""
    settings = load(config_path)
    folder = settings.folders.failed
    missing = back_again = 0
    for path, back in failed.put_back(settings, failed.named(paths, folder)):
        if back is None:
            complain(f"there is no {display(os.path.join(folder, path))}", "see `dropscale status`")
            missing += 1
        else:
            click.echo(f"{display(path)} is back in the inbox as {display(back)}")
            back_again += 1
    if not missing and not back_again:
        click.echo(f"There is nothing to put back in {display(folder)}")
    return EXIT_SOME_FAILED if missing else EXIT_DONE


@click.command()
@config_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(config_path: str | None, as_json: bool) -> int:
    """What this machine has, what is missing, and what to do about it."""
    settings = load(config_path)
    checks: list[Check] = []
    marks = {"ok": "ok  ", "note": "note", "bad": "BAD "}
    chose_model = leaves_model_to_machine(config_path)
    for check in examine(settings, models_folder(settings), chose_model=chose_model):
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
