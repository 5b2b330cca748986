"""`dropscale models`: what there is, what can be fetched, and how a file of your own gets in."""

import os
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from sr_engine import models
from sr_engine.errors import ModelError
from watcher.commands.options import config_option, load_if_any
from watcher.engine.model import models_folder
from watcher.errors import EXIT_DONE, EnvironmentFault, NoModelError
from watcher.files.names import display
from watcher.models.collection import Collection, Wanted
from watcher.sections import Config
from watcher.signals import exit_on_signals


@click.group("models")
def group() -> None:
    """The networks: list, verify, fetch one of the known ones, add a file of your own."""


@group.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@config_option
def list_(config_path: str | None, as_json: bool) -> int:
    """All models: those that are here and those that can be fetched."""
    rows = _rows(load_if_any(config_path))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    else:
        _print_table(rows)
    return EXIT_DONE


@group.command()
@config_option
def verify(config_path: str | None) -> int:
    """Compare every installed file with its sha256."""
    bad = 0
    for name, found in _installed(load_if_any(config_path)).items():
        try:
            models.verify(found)
            click.echo(f"ok    {name:<20} {found.path}")
        except ModelError as error:
            bad += 1
            click.echo(f"BAD   {name:<20} {error.message}")
    return EnvironmentFault.exit_code if bad else EXIT_DONE


@group.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@config_option
def fetch(names: tuple[str, ...], config_path: str | None) -> int:
    """Download models that others published, check them and convert them; goes on where it broke off."""
    exit_on_signals()
    collection = _collection(load_if_any(config_path))
    for name in names:
        _fetch(collection, name)
    return EXIT_DONE


@group.command()
@click.argument("file", metavar="FILE")
@click.option("--name", default="", help="What to call it; default: after the file.")
@click.option("--algorithm", help="edsr, fsrcnn, espcn, lapsrn; default: found out.")
@click.option("--scale", type=click.IntRange(2, 8), help="How much it enlarges; default: found out.")
@click.option("--color", type=click.Choice(["rgb", "bgr"]), help="Order of three channels; default: rgb.")
@click.option("--range", "value_range", type=float, help="Largest value; 1 or 255.")
@click.option("--licence", help="To be shown in the list.")
@config_option
def add(
    file: str,
    name: str,
    algorithm: str | None,
    scale: int | None,
    color: str | None,
    value_range: float | None,
    licence: str | None,
    config_path: str | None,
) -> int:
    """Take a model from disk: an ONNX network, or a .pb of OpenCV's dnn_superres."""
    exit_on_signals()
    collection = _collection(load_if_any(config_path))
    wanted = Wanted(algorithm, scale, color, value_range)
    source = display(os.path.abspath(file))
    found, notes = collection.add(file, name, wanted, {"licence": licence, "source": source})
    _tell(found, notes)
    return EXIT_DONE


def _collection(settings: Config) -> Collection:

    folder = models_folder(settings)
    if not folder:
        raise EnvironmentFault("this user has no home folder to keep models in", "set engine.models_folder")
    return Collection(folder, settings.engine.model_mirrors)


def _installed(settings: Config) -> dict[str, models.Installed]:
    try:
        return models.installed(settings.engine.models_folder)
    except ModelError as error:
        raise NoModelError(error.message, "correct that file, or delete it and add the models again") from error


def _fetch(collection: Collection, name: str) -> None:

    upstream = models.read_catalogue().get(name)
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=upstream.bytes if upstream else None)
        found, notes = collection.fetch(name, lambda have: progress.update(task, completed=have))
    _tell(found, notes)


def _tell(found: models.Installed, notes: list[str]) -> None:
    for note in notes:
        click.echo(f"  {note}")
    click.echo(f"{found.name} is installed: {found.path}")
    click.echo(f"Use it with engine.model: {found.name}")


def _rows(settings: Config) -> list[dict[str, Any]]:
    """What `list` shows; the same for programs."""
    rows: list[dict[str, Any]] = []
    installed = _installed(settings)
    for name, found in installed.items():
        model = found.model
        try:
            size = os.path.getsize(found.path)
        except OSError:
            size = None
        rows.append(
            {
                "name": name,
                "scale": model.scale,
                "bytes": size,
                "mflop_per_pixel": model.mflop or None,
                "set5_psnr": model.set5_psnr,
                "installed": size is not None,
                "used": name == settings.engine.model,
                "licence": model.licence,
                "source": model.source,
                "folder": found.folder,
            }
        )
    rows += [
        {
            "name": name,
            "scale": upstream.scale,
            "bytes": upstream.bytes,
            "mflop_per_pixel": upstream.mflop or None,
            "set5_psnr": upstream.set5_psnr,
            "installed": False,
            "used": False,
            "licence": upstream.licence,
            "source": upstream.url,
            "folder": None,
        }
        for name, upstream in models.read_catalogue().items()
        if name not in installed
    ]
    return rows


def _print_table(rows: list[dict[str, Any]]) -> None:

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title, side in (
        *(("", "left"), ("model", "left"), ("scale", "right"), ("size", "right"), ("MFLOP/pixel", "right")),
        *(("Set5 dB", "right"), ("here", "left"), ("licence", "left"), ("source", "left")),
    ):
        table.add_column(title, justify=side, no_wrap=title != "source", overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(
            "*" if row["used"] else "",
            row["name"],
            f"x{row['scale']}",
            "" if row["bytes"] is None else _size(row["bytes"]),
            "" if row["mflop_per_pixel"] is None else f"{row['mflop_per_pixel']:.3g}",
            "" if row["set5_psnr"] is None else f"{row['set5_psnr']:.2f}",
            "yes" if row["installed"] else "MISSING" if row["folder"] else "fetch",
            row["licence"],
            row["source"],
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=400)  # wider than any address: what reads a pipe wants a line for each
    console.print(table)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
