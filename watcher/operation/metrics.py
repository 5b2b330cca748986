"""Figures for Prometheus: over HTTP, or as a file for node_exporter.

Sums come from the ledger at the moment they are asked for, so they survive restarts. Names and units follow
https://prometheus.io/docs/practices/naming/.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from watcher import __version__
from watcher.accounting.bill import Price, is_billed
from watcher.errors import ConfigError
from watcher.operation.vitals import Vitals
from watcher.schema import connect_to_read
from watcher.sections import Config, Metrics

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import Collector

    from watcher.operation import exposition
except ImportError:
    CollectorRegistry = None  # type: ignore[assignment, misc]
    Collector = object  # type: ignore[assignment, misc]

_PHASES = ("spawn", "load", "compute", "idle", "exit")  # in the order of _ENGINES
_PATIENCE_SECONDS = 2.0
_SAME_TIME_SECONDS = 2.0  # the coarsest that file systems tell times

_PICTURES = (
    "SELECT CASE WHEN state = 'done' THEN CASE WHEN reused THEN 'reused' ELSE 'delivered' END ELSE 'failed' END, n"
    " FROM (SELECT state, reused, COUNT(*) AS n FROM pictures WHERE state IN ('done', 'failed') GROUP BY 1, 2)"
    # a counter must not go back when a failed picture is tried again
    " UNION ALL SELECT 'failed', COUNT(*) FROM pictures WHERE state = 'withdrawn' AND reason = 'put back by retry'"
)
_WAITING_SINCE = "SELECT MIN(COALESCE(arrived_at, created_at)) FROM pictures WHERE state = 'waiting'"
_BATCHES = "SELECT COUNT(*) FROM batches WHERE finished_at IS NOT NULL"
_ENGINES = (
    "SELECT COALESCE(device, ''), COUNT(*), SUM(exit_code IS NOT 0),"
    " SUM(MAX(exited_at - COALESCE(held_from, spawned_at), 0)), SUM(energy_joules),"
    " SUM(spawn_seconds), SUM(load_seconds), SUM(compute_seconds), SUM(idle_seconds),"
    " SUM(exit_seconds)"
    " FROM engine_runs WHERE exited_at IS NOT NULL GROUP BY 1"
)


def require() -> None:
    """See that the library is there.

    Raises:
        ConfigError: it is not.
    """
    if CollectorRegistry is None:
        raise ConfigError(
            "metrics: the library prometheus-client is not installed",
            "install it (`pip install prometheus-client`), or set metrics.port to 0 and metrics.textfile to nothing",
        )


def check_move(old: Metrics, new: Metrics) -> None:
    """See that the port of another config can be had: a watcher at work must not end for want of it.

    Raises:
        EnvironmentFault: it cannot.
    """
    if new.port and (new.port, new.address) != (old.port, old.address):
        exposition.check_port(new.address, new.port)


@contextlib.contextmanager
def serving(config: Config, ledger_path: str, vitals: Vitals) -> Iterator[None]:
    """Offer the figures as the config says.

    Raises:
        ConfigError: the library is missing.
        EnvironmentFault: the port cannot be had.
    """
    require()
    metrics = config.metrics
    registry = CollectorRegistry()
    registry.register(_Figures(ledger_path, Price(config.cost.per_hour, config.cost.currency), vitals))
    with contextlib.ExitStack() as stack:
        if metrics.port:
            stack.enter_context(exposition.served(metrics.address, metrics.port, registry))
        if metrics.textfile:
            stack.enter_context(exposition.written(metrics.textfile, metrics.textfile_seconds, registry))
        try:
            yield
        finally:
            vitals.watching, vitals.engine = False, "off"  # for the last file


class _Sums(NamedTuple):
    """What the ledger knows: pictures by result, the first arrival of those that wait, batches, rows of _ENGINES."""

    pictures: dict[str, int]
    waiting_since: float | None
    batches: int
    engines: list[tuple[Any, ...]]

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> "_Sums":
        """Read them.

        Raises:
            sqlite3.Error: they cannot be read.
        """
        pictures = dict.fromkeys(("delivered", "reused", "failed"), 0)
        for result, count in connection.execute(_PICTURES):
            pictures[result] += count
        (since,) = connection.execute(_WAITING_SINCE).fetchone()
        (batches,) = connection.execute(_BATCHES).fetchone()
        return cls(pictures, since, batches, connection.execute(_ENGINES).fetchall())


class _Figures(Collector):
    """Collects everything at the time of a scrape, on any thread."""

    def __init__(self, ledger_path: str, price: Price, vitals: Vitals) -> None:
        self._path = ledger_path
        self._price = price
        self._vitals = vitals
        self._read: tuple[tuple[tuple[float, int], ...], _Sums] | None = None

    def collect(self) -> Iterator["Metric"]:
        """All figures; those of the ledger only if it can be read."""
        vitals = self._vitals
        yield InfoMetricFamily("dropscale_build", "The program.", value={"version": __version__})
        yield _gauge("watching", "1 while the inbox is there and watched.", vitals.watching)
        yield _gauge("engine_running", "1 while there is an engine process.", vitals.engine != "off")
        yield _gauge("waiting_pictures", "Pictures in the inbox that no batch has taken yet.", vitals.waiting)
        missed = "Pictures since the start that a scan found and no event had announced."
        yield CounterMetricFamily("dropscale_events_missed", missed, value=vitals.events_missed)
        when = "When the whole inbox was looked through last, Unix time; 0: not yet."
        yield _gauge("last_reconcile_timestamp_seconds", when, vitals.last_reconcile)
        hooks = CounterMetricFamily(
            "dropscale_hook_events", "Since the start: events of hooks by their end.", labels=["hook", "result"]
        )
        for (hook, result), count in vitals.hook_events.items():
            hooks.add_metric([hook.partition(" ")[0], result], count)
        yield hooks
        sums = self._sums()
        yield _gauge("ledger_readable", "1 if the ledger could be read for this.", sums is not None)
        if sums is not None:
            yield from self._families(sums)

    def _sums(self) -> "_Sums | None":
        """Those of the ledger, read again only if it has changed: a million rows take half a second."""
        now, stamp = time.time(), self._stamp()
        if self._read is not None and self._read[0] == stamp:
            return self._read[1]
        try:
            with contextlib.closing(connect_to_read(self._path, _PATIENCE_SECONDS)) as connection:
                sums = _Sums.of(connection)
        except sqlite3.Error:
            return None
        # of what was written a moment ago, more may follow under the same time
        is_old = all(moment < now - _SAME_TIME_SECONDS for moment, _ in stamp)
        self._read = (stamp, sums) if is_old else None
        return sums

    def _stamp(self) -> tuple[tuple[float, int], ...]:
        """Time and size of the ledger's files: each change of it changes one of them."""
        found = []
        for path in (self._path, self._path + "-wal"):
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found.append((status.st_mtime, status.st_size))
        return tuple(found)

    def _families(self, sums: "_Sums") -> Iterator["Metric"]:
        pictures = CounterMetricFamily("dropscale_pictures", "Pictures that came to an end.", labels=["result"])
        for result, count in sums.pictures.items():
            pictures.add_metric([result], count)
        yield pictures
        times = [moment for moment in (sums.waiting_since, self._vitals.waiting_since) if moment is not None]
        age = max(time.time() - min(times), 0) if times else 0
        yield _gauge("oldest_waiting_seconds", "How long the oldest of the waiting pictures has waited.", age)
        yield CounterMetricFamily("dropscale_batches", "Windows that were worked through.", value=sums.batches)
        yield from self._engines(sums.engines)

    def _engines(self, rows: list[tuple[Any, ...]]) -> Iterator["Metric"]:
        runs = CounterMetricFamily("dropscale_engine_runs", "Engine processes that have ended.", labels=["device"])
        bad = CounterMetricFamily(
            "dropscale_engine_runs_failed", "Those that did not end with code 0.", labels=["device"]
        )
        held = CounterMetricFamily(
            "dropscale_engine_held_seconds", "How long ended engines held their device.", labels=["device"]
        )
        phases = CounterMetricFamily(
            "dropscale_engine_seconds", "What ended engines spent their time on.", labels=["device", "phase"]
        )
        energy = CounterMetricFamily(
            "dropscale_engine_energy_joules", "What devices took meanwhile, where it was measured.", labels=["device"]
        )
        cost = 0.0
        for device, count, failed, held_seconds, joules, *seconds in rows:
            name = [device or "unknown"]
            runs.add_metric(name, count)
            bad.add_metric(name, failed)
            held.add_metric(name, held_seconds)
            if joules is not None:
                energy.add_metric(name, joules)
            for phase, spent in zip(_PHASES, seconds, strict=True):
                phases.add_metric([*name, phase], spent or 0.0)
            cost += self._price.of(held_seconds) if is_billed(device) else 0.0
        yield from (runs, bad, held, phases, energy)
        money = CounterMetricFamily("dropscale_cost", "Held seconds at cost.per_hour.", labels=["currency"])
        money.add_metric([self._price.currency], cost)
        yield money


def _gauge(name: str, text: str, value: float) -> "Metric":
    return GaugeMetricFamily(f"dropscale_{name}", text, value=float(value))
