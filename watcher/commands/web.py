"""`dropscale web`: the page."""

import click
import msgspec

from watcher.commands.options import config_option, load
from watcher.errors import EnvironmentFault
from watcher.logs import begin_log
from watcher.operation.page import check_wall


@click.command()
@click.option("--host", help="In place of web.host.")
@click.option("--port", type=click.IntRange(0, 65535), help="In place of web.port; 0: any that is free.")
@click.option("--log-format", type=click.Choice(["plain", "json"]), default="plain", help="As of `run`.")
@click.option("--verbose", is_flag=True, help="Also each request.")
@click.option("--until-stdin-closes", is_flag=True, hidden=True)
@config_option
def web(
    host: str | None,
    port: int | None,
    log_format: str,
    verbose: bool,
    until_stdin_closes: bool,
    config_path: str | None,
) -> int:
    """Show the page: drop, watch, compare, see the bill. Beside `run`, or inside of it with web.enabled."""
    begin_log(log_format, verbose=verbose)
    config = load(config_path)
    chosen = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    config = msgspec.structs.replace(config, web=msgspec.structs.replace(config.web, **chosen))
    check_wall(config.web)
    try:
        from webpage import server  # noqa: PLC0415 - keep the watcher itself small
    except ModuleNotFoundError as error:
        raise EnvironmentFault(
            f"the page needs {error.name}, which is not installed", "install it: `pip install flask waitress`"
        ) from None
    return server.serve(config, until_stdin_closes=until_stdin_closes)
