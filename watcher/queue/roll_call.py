"""How many workers listen to the queue, for `status`: asked once and briefly, whatever Redis does. Works without RQ."""

import queue
import threading
from typing import NamedTuple

from watcher.errors import DropscaleError
from watcher.queue.address import shown
from watcher.queue.needs import require_packages
from watcher.sections import Queue

ANSWER_SECONDS = 2.0
_STEP_SECONDS = 1.0  # for a connection, and for each answer


class RollCall(NamedTuple):
    """What came of the question.

    Attributes:
        redis: the address, without a password; empty: queue.url is none.
        listening: how many workers; None: not known.
        problem: why that is not known.
    """

    redis: str
    listening: int | None
    problem: str = ""


def call_the_roll(settings: Queue) -> RollCall:
    """Ask Redis, for no longer than about ANSWER_SECONDS."""
    try:
        require_packages()
        from watcher.queue.redis_link import connect  # noqa: PLC0415 - needs RQ

        connect(settings.url).close()  # of an address that is none nothing is shown: it may hold a password
    except DropscaleError as error:
        return RollCall("", None, f"{error.message}: {error.remedy}")
    place = shown(settings.url)
    answers: queue.SimpleQueue[RollCall] = queue.SimpleQueue()

    def ask() -> None:
        answers.put(_asked(settings, place))

    # the resolver of names knows no timeout: who asks it is left behind
    threading.Thread(target=ask, name="roll call", daemon=True).start()
    try:
        return answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        return RollCall(place, None, f"Redis at {place} did not answer within {ANSWER_SECONDS:g} s")


def _asked(settings: Queue, place: str) -> RollCall:
    from redis.exceptions import RedisError  # noqa: PLC0415 - needs RQ

    from watcher.queue.redis_link import RedisGone, check, connect, listeners  # noqa: PLC0415 - needs RQ

    try:
        with connect(settings.url, most_seconds=_STEP_SECONDS) as connection:
            check(connection, settings.url)
            return RollCall(place, len(listeners(connection, settings.name)))
    except DropscaleError as error:
        return RollCall(place, None, f"{error.message}: {error.remedy}")
    except RedisGone as error:
        return RollCall(place, None, str(error))
    except (RedisError, OSError) as error:
        return RollCall(place, None, f"Redis at {place} does not answer ({error})")
