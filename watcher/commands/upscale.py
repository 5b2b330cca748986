"""`dropscale upscale`: files straight into a folder."""

import click
import msgspec

from sr_engine import models
from watcher.commands.options import config_option, load_if_any, log_options
from watcher.engine.model import find_model, models_folder
from watcher.errors import EXIT_DONE, EXIT_SOME_FAILED
from watcher.logs import begin_log
from watcher.signals import exit_on_signals
from watcher.straight import upscale_files


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", "output_folder", required=True, metavar="DIR", help="Where the results go.")
@click.option("--model", help="In place of engine.model.")
@click.option("--ensemble", is_flag=True, help="Average eight turned copies: a little better, eight times the work.")
@config_option
@log_options
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
    progress = begin_log(log_format, verbose=verbose)
    settings = load_if_any(config_path)
    engine = settings.engine
    if model == models.AUTO:
        model = models.default_name(engine.runtime, engine.device)
    engine = msgspec.structs.replace(engine, model=model or engine.model, ensemble=ensemble or engine.ensemble)
    settings = msgspec.structs.replace(settings, engine=engine)
    find_model(settings)
    exit_on_signals()
    some_failed = upscale_files(settings, models_folder(settings), files, output_folder, progress)
    return EXIT_SOME_FAILED if some_failed else EXIT_DONE
