"""`dropscale warm`: have the running watcher load its engine ahead of the pictures, or release it."""

import contextlib
import re
import time
import uuid

import click

from watcher import instance
from watcher.commands.options import config_option, load
from watcher.engine import wishes
from watcher.engine.wishes import Answer, Wish
from watcher.errors import EXIT_DONE, EnvironmentFault, UsageError
from watcher.ledger import Ledger
from watcher.sections import Config

_LONGEST_SECONDS = 86_400.0
_ANSWER_SECONDS = 15.0  # the watcher's loop turns every 2 s, and may be at a look through a large inbox
_POLL_SECONDS = 0.1
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@click.command()
@click.option("--for", "duration", metavar="TIME", help="How long, as 30m, 90s, 2h or seconds; 24h at most.")
@click.option("--off", is_flag=True, help="Release the engine now; the schedule's present time is over, too.")
@config_option
def warm(duration: str | None, off: bool, config_path: str | None) -> int:
    """Have the running watcher load its engine now and keep it, before the pictures come."""
    if bool(duration) == off:
        count = "only one" if off else "one"
        raise UsageError(f"{count} of --for and --off is needed", "write it as `dropscale warm --for 30m`")
    click.echo(_ask(load(config_path), 0.0 if off else seconds(duration or "")))
    return EXIT_DONE


def seconds(text: str) -> float:
    """A time as users write it.

    Raises:
        UsageError: it is none, or too short or long.
    """
    parts = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text.strip())
    found = float(parts[1]) * _UNITS[parts[2]] if parts else 0.0
    if not 1 <= found <= _LONGEST_SECONDS:
        raise UsageError(
            f"--for {text[:40]!r} is not allowed; expected one number with s, m or h, from 1s to 24h",
            "write it as 30m",
        )
    return found


def _ask(config: Config, for_seconds: float) -> str:
    if config.executor == "rq":
        raise UsageError(
            "with `executor: rq` this watcher has no engine: workers start their own", "see docs/scaling.md"
        )
    if not instance.is_running(config.folders.state):
        if elsewhere := instance.stranger(config.folders.inbox):
            raise EnvironmentFault("no watcher has this state folder", elsewhere)
        raise EnvironmentFault("no watcher is running, so there is none to keep an engine", "start `dropscale run`")
    wish = wishes.Wish(uuid.uuid4().hex, time.time(), for_seconds)
    with contextlib.closing(Ledger(config.folders.state)) as ledger:
        wishes.ask(ledger, wish)
        try:
            answer = _answer(ledger, wish)
        finally:  # also on Ctrl-C
            wishes.withdraw(ledger, wish)
        answer = answer or wishes.answer_to(ledger, wish)
    if answer is None:
        holder = instance.describe_holder(config.folders.state)
        raise EnvironmentFault(
            f"the watcher did not answer within {_ANSWER_SECONDS:g} s ({holder})",
            "see `dropscale status`; `dropscale once` keeps no engine, `dropscale run` does",
        )
    if answer.refused:
        raise EnvironmentFault(f"the watcher keeps no engine warm: {answer.text}", "see `dropscale status`")
    return answer.text


def _answer(ledger: Ledger, wish: Wish) -> Answer | None:
    until = time.monotonic() + _ANSWER_SECONDS
    while (answer := wishes.answer_to(ledger, wish)) is None and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    return answer
