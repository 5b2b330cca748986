"""`dropscale health`: whether the watcher is at work, for container checks."""

import click

from watcher.commands.options import config_option, load
from watcher.errors import EXIT_DONE, EXIT_UNHEALTHY, ConfigError
from watcher.operation.health import check


@click.command()
@config_option
def health(config_path: str | None) -> int:
    """Whether a watcher is at work and able to, in one line; for container checks.

    Answers within about two seconds, also where a share has died. Exit codes: 0 healthy, 1 not healthy, 2 wrong
    config.
    """
    found = check(lambda: load(config_path), EXIT_UNHEALTHY)
    if found.code == ConfigError.exit_code:
        raise ConfigError(found.why, found.remedy)
    healthy = found.code == EXIT_DONE
    click.echo(f"{'healthy' if healthy else 'unhealthy'}: {found.why}")
    return EXIT_DONE if healthy else EXIT_UNHEALTHY
