"""What commands have in common: their options, how they find the config, how they complain."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from watcher import config

if TYPE_CHECKING:
    from watcher.sections import Config


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --config, as `config_path`."""
    return click.option(
        "--config",
        "config_path",
        metavar="FILE",
        help="The config; default ./config.yaml, or $DROPSCALE_CONFIG.",
    )(command)


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --log-format and --verbose."""
    command = click.option(
        "--log-format",
        type=click.Choice(["plain", "json"]),
        default="plain",
        help="One plain line per event (with a progress bar on a terminal), or one JSON object.",
    )(command)
    return click.option("--verbose", is_flag=True, help="Also what the engine writes to its stderr.")(command)


def path_of(config_path: str | None) -> str:
    """Where the config lies."""
    return config_path or os.environ.get(config.ENV_CONFIG) or config.DEFAULT_NAME


def load(config_path: str | None) -> "Config":
    """The config.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    return config.load(path_of(config_path), os.environ)


def leaves_model_to_machine(config_path: str | None) -> bool:
    """Whether that config does, see there."""
    return config.leaves_model_to_machine(path_of(config_path), os.environ)


def path_if_any(config_path: str | None) -> str:
    """Where the config lies; empty where none is named and none lies here."""
    named = config_path or os.environ.get(config.ENV_CONFIG) or os.path.exists(config.DEFAULT_NAME)
    return path_of(config_path) if named else ""


def load_if_any(config_path: str | None) -> "Config":
    """The config; where none is named and none lies here, the defaults.

    Raises:
        ConfigError: it is wrong, or the one that was named is not there.
    """
    return load(config_path) if path_if_any(config_path) else config.without_file(os.environ)


def complain(message: str, remedy: str) -> None:
    """Say on stderr what is wrong, and what to do next if there is something."""
    click.echo(f"dropscale: {message}", err=True)
    if remedy:
        click.echo(f"  What to do: {remedy}.", err=True)
