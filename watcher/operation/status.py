"""What `dropscale status` tells: a report from the ledger and from a look at the folders, without disturbing anyone."""

import contextlib
import os
import time
from datetime import UTC, datetime
from typing import Any

from watcher import instance, recent
from watcher.accounting import warm_ups
from watcher.accounting.accounts import seen_from_outside
from watcher.config import check_folders
from watcher.delivery import REASON_SUFFIX
from watcher.engine.demand import REFUSAL_NOTE
from watcher.engine.gate import governor_of
from watcher.engine.governor import Hold, Use
from watcher.engine.gpu_wait import NOTE, waiting
from watcher.engine.nvidia import ALARM_NOTE
from watcher.engine.wishes import ANSWER_NOTE, WISH_NOTE
from watcher.errors import EnvironmentFault, LedgerError
from watcher.files.filesystem import look_at
from watcher.files.ignore import IgnoreRules
from watcher.files.mounts import no_room
from watcher.files.names import display
from watcher.inbox import files_below
from watcher.ledger import FILE_NAME, Ledger
from watcher.operation import hook_troubles
from watcher.operation.health import hanging
from watcher.operation.vitals import last_beat
from watcher.queue import note as queue_note
from watcher.queue.note import QueueState
from watcher.queue.roll_call import RollCall, call_the_roll
from watcher.rows import Picture, State
from watcher.sections import Config
from watcher.wording import clock

_SHOWN = 20
_NEXT_WATCHER = " (next try: as soon as a watcher looks)"  # which forgets all pauses
_IN_WORK = (State.CLAIMED, State.PUBLISHING, State.ARCHIVING, State.QUARANTINING)


_NOTES_TOLD_ELSEWHERE = (
    hook_troubles.NOTE,
    NOTE,
    REFUSAL_NOTE,
    WISH_NOTE,
    ANSWER_NOTE,
    queue_note.NOTE,
    queue_note.ALARMS_NOTE,
    queue_note.OWNER_NOTE,
)


def collect(config: Config, *, asks_redis: bool = False) -> dict[str, Any]:
    """Everything that `status --json` prints.

    Args:
        config: whose watcher.
        asks_redis: with `executor: rq`, how many workers listen, which is not known otherwise while nothing is queued.

    Returns:
        running: whether a watcher holds the lock; watcher: what it noted of itself; problems: with the folders, and
            that it hangs.
        held: why no engine may start now, until when, and `passing`, the folder for which it may.
        budgets: how much of each is used.
        waiting, working, ignored, failed: lists of {path, why, ...}, paths below the folder in question.
        totals: done, reused and failed pictures so far.
        gpu: {waiting: who holds it while a batch waits, alarm: what an engine left there}; texts, mostly empty.
        queue: how many wait and are in work; how long the oldest has waited, in seconds, None where none waits.
        engine: `recent.engine` and `warm_ups.engine_now`; refused: why none is kept warm; next_warm: when the schedule
            loads one. last_batch: None before the first.
        hooks: those whose last event did not arrive, as `hook_troubles.Trouble` with a text, `told`.
        workers: with `executor: rq` {redis: the address, listening: how many, None where that is not known, engines:
            how many run on them, refusing: reasons, problem: why Redis was asked in vain}; else None.

    Raises:
        LedgerError: the ledger cannot be read.
        EnvironmentFault: this user may not look into the state folder.
        OSError: the inbox cannot be listed.
    """
    folders = config.folders
    rows: dict[str, Picture] = {}
    notes: dict[str, str] = {}
    totals = {"done": 0, "reused": 0, "failed": 0}
    hold: Hold | None = None
    uses: list[Use] = []
    last_batch: dict[str, Any] | None = None
    on_cpu = False
    arrivals: dict[str, float] = {}
    engine: dict[str, Any] = {"state": "off", "process": None, "why": None, "until": None}
    running = instance.is_running(folders.state)
    # nothing is moved without the ledger, and no row can say so
    stuck = f"the ledger cannot be written: {lack}" if (lack := no_room(folders.state)) else ""
    if os.path.exists(os.path.join(folders.state, FILE_NAME)):
        try:
            with contextlib.closing(Ledger(folders.state)) as ledger:
                ledger.check_values()
                rows = {row.path: row for row in ledger.open_rows()}
                notes = ledger.notes()
                engine = warm_ups.engine_now(ledger, running=running)
                counts = ledger.counts()
                governor = governor_of(config, seen_from_outside(ledger, folders.state))
                hold = governor.hold(time.time())
                uses = governor.uses(time.time())
                last_batch = recent.last_batch(ledger)
                on_cpu = recent.works_on_cpu(ledger)
                arrivals = recent.arrivals(ledger)
                totals = {
                    "done": counts.get(State.DONE, 0),
                    "reused": ledger.reused(),
                    "failed": counts.get(State.FAILED, 0),
                }
        except LedgerError:  # SQLite needs room even to read
            if not stuck:
                raise
    alarms = [notes.pop(ALARM_NOTE, ""), *queue_note.alarms(notes).values()]
    gpu = {"waiting": waiting(notes, time.time()) if running else "", "alarm": "; ".join(filter(None, alarms))}
    far = queue_note.read(notes) if running else None
    engine = engine_now(engine, recent.engine(notes, running=running), far)
    engine["refused"] = notes.get(REFUSAL_NOTE, "") if running else ""
    engine["next_warm"] = _next_warm(config) if running else None
    hooks = hook_troubles.read(notes)
    beat = last_beat(folders.state) if running else None  # None, too: `once`, or one that has just been started
    hangs = "" if beat is None else hanging(beat, notes, time.time())
    for key in _NOTES_TOLD_ELSEWHERE:
        notes.pop(key, None)
    queued, ignored = _inbox(config, rows, stuck, hold, arrivals, running=running)
    working = [_working(row, stuck, far, running=running) for row in rows.values() if _is_working(row, running=running)]
    return {
        "running": running,
        "watcher": _typed(notes),
        "problems": [*_problems(config), *filter(None, [hangs, "" if running else instance.stranger(folders.inbox)])],
        "held": None
        if hold is None
        else {"why": hold.reason, "until": _time(hold.until), "passing": config.window.urgent_folder},
        "budgets": [_budget(use, on_cpu=on_cpu) for use in uses],
        "folders": {name: display(getattr(folders, name)) for name in folders.__struct_fields__},
        "gpu": gpu,
        "waiting": queued,
        "working": working,
        "ignored": ignored,
        "failed": _failed(folders.failed),
        "totals": totals,
        "queue": {
            "waiting": len(queued),
            "working": len(working),
            "oldest_waiting_seconds": max((entry["age_seconds"] for entry in queued), default=None),
        },
        "engine": engine,
        "last_batch": last_batch,
        "workers": _workers(config, far, asks_redis=asks_redis),
        "hooks": [trouble.report() for trouble in hooks],
    }


def describe(report: dict[str, Any]) -> list[str]:
    """The same for a person, line by line."""
    notes = report["watcher"]
    lines = []
    if report["running"]:
        lines.append(f"watcher   running (process {notes.get('pid', '?')}), {notes.get('backend', 'starting')}")
        if notes.get("watching", "yes") != "yes":
            lines.append(f"          {notes['watching']}")
        if "last_reconcile" in notes:
            ago = max(time.time() - datetime.fromisoformat(notes["last_reconcile"]).timestamp(), 0)
            lines.append(f"          last looked through the whole inbox {ago:.0f} s ago")
        if notes.get("events_missed"):
            lines.append(f"          events missed: {notes['events_missed']}")
    else:
        lines.append("watcher   not running")
    if report["running"]:
        lines.append(f"engine    {_engine(report['engine'], report['workers'])}")
    lines += [f"PROBLEM   {problem}" for problem in report["problems"]]
    lines += [f"PROBLEM   {alarm}" for alarm in [report["gpu"]["alarm"]] if alarm]
    lines += [f"PROBLEM   {trouble['told']}" for trouble in report["hooks"]]
    lines += [f"gpu       a batch waits: {why}" for why in [report["gpu"]["waiting"]] if why]
    for budget in report["budgets"]:
        told = f"{budget['told']} ({100 * budget['share']:.0f} %)"
        lines.append(f"budget    {'; '.join(filter(None, [told, budget['note']]))}")
    if held := report["held"]:
        until = clock(datetime.fromisoformat(held["until"]).timestamp(), "minutes")
        passing = f", but for pictures in {held['passing']}/" if held["passing"] else ""
        lines.append(f"held      no engine starts before {until}{passing}: {held['why']}")
    if far := report["workers"]:
        lines.append(f"workers   {_listening(far)}")
        lines += [f"PROBLEM   a worker refuses: {reason}" for reason in far["refusing"]]
    for title in ("waiting", "working", "ignored", "failed"):
        lines += _section(title, report[title])
    totals = report["totals"]
    if batch := report["last_batch"]:
        lines.append(recent.describe(batch, running=report["running"]))
    lines.append(f"so far    {totals['done']} done, {totals['reused']} of them from an earlier result")
    return lines


def engine_now(by_runs: dict[str, Any], by_watcher: dict[str, Any], far: QueueState | None) -> dict[str, Any]:
    """The ledger's runs know who holds the engine, the watcher's note since when, and whether a batch's is ready.

    Args:
        by_runs: of `warm_ups.engine_now`.
        by_watcher: of `recent.engine`.
        far: what is known of engines on workers; None: nothing.
    """
    if far is not None and far.engines:
        return {**by_runs, "state": "working", "since": None}
    starts = by_runs["state"] == "working" and by_watcher["state"] == "starting"
    return {**by_runs, "state": "starting" if starts else by_runs["state"], "since": by_watcher["since"]}


def _engine(engine: dict[str, Any], far: dict[str, Any] | None) -> str:
    if far is not None:
        return f"{far['engines']} on workers" if far["engines"] else "off; workers start their own"
    why = {"keep_warm": "after a batch", "schedule": "by the schedule", "command": "as `dropscale warm` asked"}
    state = engine["state"]
    if engine["until"]:
        until = clock(datetime.fromisoformat(engine["until"]).timestamp())
        state = "warm" if state == "warm" else "starting, to be warm"
        return f"{state} until {until} {why[engine['why']]}, process {engine['process']}"
    if engine["process"]:
        return f"{state}, process {engine['process']}"
    if engine["refused"]:
        return f"{state}; not kept warm: {engine['refused']}"
    if engine["next_warm"]:
        return f"{state}; loaded at {clock(datetime.fromisoformat(engine['next_warm']).timestamp())} by the schedule"
    return str(state)


def _next_warm(config: Config) -> str | None:
    """When the schedule loads the engine next, RFC 3339."""
    if not config.warm or config.executor == "rq":
        return None
    from watcher.engine.schedule import Schedule  # noqa: PLC0415 - for who has one

    start = Schedule(config.warm).next_start(time.time())
    return None if start is None else datetime.fromtimestamp(start, UTC).isoformat(timespec="seconds")


def _workers(config: Config, far: QueueState | None, *, asks_redis: bool) -> dict[str, Any] | None:
    if config.executor != "rq":
        return None
    if asks_redis:
        roll = call_the_roll(config.queue)
    else:
        roll = RollCall(far.redis, far.workers) if far is not None else RollCall("", None)
    engines, refusing = (far.engines, list(far.refusing)) if far is not None else (0, [])
    return {**roll._asdict(), "engines": engines, "refusing": refusing}


def _listening(far: dict[str, Any]) -> str:
    if far["listening"] is None:
        return f"not known: {far['problem']}"
    if far["listening"]:
        return f"{far['listening']} at {far['redis']}"
    return f"none listens at {far['redis']}: start `dropscale worker` on a machine that has the share"


def _section(title: str, entries: list[dict[str, Any]]) -> list[str]:
    lines = [f"{title:<9} {len(entries)}"]
    lines += [f"          {entry['path']}: {entry['why']}" for entry in entries[:_SHOWN]]
    if len(entries) > _SHOWN:
        lines.append(f"          and {len(entries) - _SHOWN} more; all with --json")
    return lines


def _inbox(
    config: Config,
    rows: dict[str, Picture],
    stuck: str,
    hold: Hold | None,
    arrivals: dict[str, float],
    *,
    running: bool,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rules = IgnoreRules(config.watch.ignore)
    waiting: list[dict[str, Any]] = []
    ignored: list[dict[str, Any]] = []
    now = time.time()

    def unlisted(folder: str, error: OSError) -> None:
        ignored.append({"path": display(folder or os.curdir), "why": f"cannot be read ({error.strerror})"})

    for path in sorted(files_below(config.folders.inbox, "", rules, unlisted, recursive=config.watch.recursive)):
        full = os.path.join(config.folders.inbox, path)
        row = rows.get(path)
        reason = rules.reason(path)
        identity = look_at(full) if reason is None else None
        if reason is None and identity is None and os.path.lexists(full):
            reason = "not a regular file (a link, a pipe or the like)"
        if reason is not None:
            ignored.append({"path": display(path), "why": reason})
        elif row is None or not _is_working(row, running=running):
            held = None if config.window.is_urgent(path) else hold
            # the time of the change of its name or owner: a copy may keep the other one
            since = arrivals.get(path, identity.ctime_ns / 1e9 if identity is not None else now)
            why = _why_waiting(full, row, stuck, held, running=running)
            waiting.append({"path": display(path), **why, "age_seconds": round(max(now - since, 0), 3)})
    return waiting, ignored


def _why_waiting(full: str, row: Picture | None, stuck: str, hold: Hold | None, *, running: bool) -> dict[str, Any]:
    if not os.access(full, os.R_OK):
        return {"why": "this user may not read it"}
    if stuck:
        return {"why": stuck}
    return _why_waiting_in_turn(row, hold, running=running)


def _why_waiting_in_turn(row: Picture | None, hold: Hold | None, *, running: bool) -> dict[str, Any]:
    if row is not None and row.not_before > time.time():
        when = time.strftime("%H:%M:%S", time.localtime(row.not_before))
        next_try = f" (next try at {when})" if running else _NEXT_WATCHER
        return {"why": row.trouble + next_try, "not_before": row.not_before, "tries": row.waits}
    if hold is not None:
        return {"why": f"held until {clock(hold.until, 'minutes')}: {hold.reason}", "not_before": hold.until}
    if row is not None and row.trouble:
        return {"why": row.trouble + _NEXT_WATCHER, "tries": row.waits}
    if not running:
        return {"why": "no watcher is running: start `dropscale run` or `dropscale once`"}
    return {"why": "new: looking whether it is whole, then for a pause in the arrivals"}


def _is_working(row: Picture, *, running: bool) -> bool:
    # what a killed watcher had claimed waits like any other picture; what it was moving is neither here nor there
    return row.state in _IN_WORK and (running or row.state is not State.CLAIMED)


def _working(row: Picture, stuck: str, far: QueueState | None, *, running: bool) -> dict[str, Any]:
    why = {
        State.CLAIMED: queue_note.places(far, row.batch).get(row.id, "in the batch that is running"),
        State.PUBLISHING: "its result is being published",
        State.ARCHIVING: "its result is delivered, the original is being archived",
        State.QUARANTINING: "it is being moved to the failed ones",
    }[row.state]
    trouble = stuck or row.trouble
    why += f"; {trouble}" if trouble else ""
    why += "" if running else "; the next watcher carries on"
    return {"path": display(row.path), "state": row.state.value, "why": why}


def _typed(notes: dict[str, str]) -> dict[str, Any]:
    """The watcher's notes as JSON has them: numbers as numbers, times as RFC 3339."""
    typed: dict[str, Any] = {key: value for key, value in notes.items() if key not in recent.ENGINE_NOTES}
    for key in {"pid", "events_missed"} & notes.keys():
        typed[key] = int(notes[key])
    for key in {"started_at", "last_reconcile", "folders_read"} & notes.keys():
        typed[key] = _time(float(notes[key]))
    return typed


def _budget(use: Use, *, on_cpu: bool) -> dict[str, Any]:
    return {
        "period": use.name,
        "used": round(use.used, 4),
        "limit": use.limit,
        "unit": use.unit,
        "share": round(use.share, 4),
        "until": _time(use.until),
        "told": str(use),
        "note": "engines on a CPU, as here, are never counted" if on_cpu else "",
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _problems(config: Config) -> list[str]:
    folders = config.folders
    try:
        check_folders(folders)
    except EnvironmentFault as error:
        return [f"{error.message}; {error.remedy}"]
    lacks = {key: no_room(getattr(folders, key)) for key in ("outbox", "archive", "failed", "state")}
    return [f"folders.{key}: {getattr(folders, key)}: {lack}" for key, lack in lacks.items() if lack]


def _failed(folder: str) -> list[dict[str, Any]]:
    """The truth is the folder: people take failed pictures away without telling us."""
    entries = []
    for current, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.endswith(REASON_SUFFIX) or name.startswith(".dropscale"):
                continue
            path = os.path.join(current, name)
            entries.append({"path": display(os.path.relpath(path, folder)), "why": _reason(path + REASON_SUFFIX)})
    return entries


def _reason(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Why:"):
                    return line.removeprefix("Why:").strip()
    except OSError:
        pass
    return "no reason file beside it"
