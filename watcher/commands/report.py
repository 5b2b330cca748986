"""`dropscale report`: GPU time and money of a period."""

import csv
import os
import sys
import time
from datetime import datetime, timedelta
from typing import Any

import click
import msgspec

from watcher.accounting import report as reports
from watcher.accounting import report_pages
from watcher.accounting.accounts import seen_from_outside
from watcher.accounting.bill import Period, Price, month
from watcher.commands.options import config_option, load
from watcher.engine.gate import governor_of
from watcher.errors import EXIT_DONE, EnvironmentFault, UsageError
from watcher.files.names import display
from watcher.ledger import FILE_NAME, Ledger
from watcher.sections import Config


@click.command()
@click.option("--month", "month_", metavar="YYYY-MM", default="", help="Which month; default: this one.")
@click.option("--since", metavar="YYYY-MM-DD", help="From this day on, in place of a month.")
@click.option("--until", metavar="YYYY-MM-DD", help="With --since: to this day and with it; default: today.")
@click.option("--wait", "wait_seconds", type=click.FloatRange(min=0), help="In place of cost.wait_seconds.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--csv", "as_csv", is_flag=True, help="A line a day.")
@click.option("--html", "html_path", metavar="FILE", help="Write a page that needs no network.")
@config_option
def report(
    month_: str,
    since: str | None,
    until: str | None,
    wait_seconds: float | None,
    as_json: bool,
    as_csv: bool,
    html_path: str | None,
    config_path: str | None,
) -> int:
    """GPU time and money against always-on, and what other settings would have cost."""
    if as_json and as_csv:
        raise UsageError("--json and --csv both want the output", "ask for one, then for the other")
    told = _collect(load(config_path), _period(month_, since, until), wait_seconds)
    tree = reports.as_json(told)
    if html_path:
        _write(html_path, report_pages.page(tree))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(tree), indent=2).decode())
    elif as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(reports.as_csv(told))
    elif not html_path:
        for line in report_pages.lines(tree):
            click.echo(line)
    return EXIT_DONE


def _period(month_: str, since: str | None, until: str | None) -> Period:
    now = time.time()
    if not since and not until:
        try:
            return month(month_, now)
        except ValueError:
            raise UsageError(f"{month_!r} is no month", "write it as 2026-11") from None
    if month_ or not since:
        raise UsageError("--until belongs to --since, and both stand in place of --month")
    try:
        begin = datetime.strptime(since, "%Y-%m-%d")
        end = datetime.strptime(until, "%Y-%m-%d") if until else datetime.fromtimestamp(now)
    except ValueError as error:
        raise UsageError(f"this is no day: {error}", "write it as 2026-11-23") from None
    last = datetime(end.year, end.month, end.day) + timedelta(days=1)
    if last <= begin:
        raise UsageError(f"{until or 'today'} is before {since}")
    return Period(begin.timestamp(), last.timestamp(), now)


def _collect(config: Config, period: Period, wait_seconds: float | None) -> Any:
    path = os.path.join(config.folders.state, FILE_NAME)
    if not os.path.exists(path):
        raise EnvironmentFault(
            f"there is no ledger {display(path)}", "it comes with the first `dropscale run` or `once`"
        )
    ledger = Ledger(config.folders.state)
    ledger.check_values()
    accounts = seen_from_outside(ledger, config.folders.state)
    wanted = reports.Settings(
        price=Price(config.cost.per_hour, config.cost.currency),
        max_seconds=config.window.max_seconds,
        max_files=config.window.max_files,
        wait_seconds=config.cost.wait_seconds if wait_seconds is None else wait_seconds,
        governor=governor_of(config, accounts),
    )
    try:
        return reports.collect(accounts, period, wanted)
    finally:
        ledger.close()


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise EnvironmentFault(
            f"--html: {display(path)} cannot be written: {error.strerror}", "name a file in a folder of yours"
        ) from error
    click.echo(f"wrote {display(path)}", err=True)
