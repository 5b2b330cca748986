"""`dropscale health`: whether the watcher is at work, for container checks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from watcher.errors import EXIT_DONE, EXIT_UNHEALTHY, ConfigError

if TYPE_CHECKING:
    from watcher.sections import Config


def health_command(settings: Callable[[str | None], "Config"], config_option: Callable[..., Any]) -> click.Command:
    """The command.

    Args:
        settings: reads the config that was named, or the one that lies here.
        config_option: the decorator for --config.
    """

    @click.command()
    @config_option
    def health(config_path: str | None) -> int:
        """Whether a watcher is at work and able to, in one line; for container checks.

        Answers within about two seconds, also where a share has died. Exit codes: 0 healthy, 1 not healthy, 2 wrong
        config.
        """
        from watcher.health import check  # noqa: PLC0415 - keep the watcher itself small

        found = check(lambda: settings(config_path), EXIT_UNHEALTHY)
        if found.code == ConfigError.exit_code:
            raise ConfigError(found.why, found.remedy)
        healthy = found.code == EXIT_DONE
        click.echo(f"{'healthy' if healthy else 'unhealthy'}: {found.why}")
        return EXIT_DONE if healthy else EXIT_UNHEALTHY

    return health
