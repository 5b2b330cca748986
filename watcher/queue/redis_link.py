"""The connection to Redis and the queue on it. Imported only where they are used: RQ takes 20 MB."""

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from redis import Redis, SSLConnection
from redis.backoff import AbstractBackoff, ExponentialBackoff, NoBackoff
from redis.exceptions import (
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry
from rq import Queue
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import get_version
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from watcher.errors import ConfigError, EnvironmentFault
from watcher.journal import tell, warn
from watcher.queue import redis_troubles
from watcher.queue.address import shown
from watcher.queue.shards import FUNCTION

SERIALIZER = JSONSerializer
_CONNECT_SECONDS, _ANSWER_SECONDS = 5.0, 10.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 10.0
_TRIES = 5  # of the watcher, 3 s in all: longer, and the pictures wait with that reason
_FOR_EVER = -1
_TOLD_TRIES = 5  # of a worker: then its log says why nothing happens
_REFUSAL_TOLD_SECONDS = 60.0
_REFUSED_PAUSE_SECONDS = 0.2  # RQ repeats some transactions by itself, and at once
# What it says while its memory or disk is full, or another one took over as master; none of it is the command's fault.
_REFUSALS = ("MISCONF", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "BUSY ", "TRYAGAIN", "UNBLOCKED")
_MOST_BYTES = 64 << 20  # of a job, unpacked: of ours each picture has a few hundred
_OLDEST = (6, 2, 0)  # BLMOVE: with an older one a job is lost whose worker dies as it takes it


_BAD_OPTION = (TypeError, AttributeError, LookupError)  # what redis-py says of one
_SEE = "see redis.Redis.from_url"


class RedisGone(Exception):
    """Redis does not answer, or not as it should; the text is for a person."""


class Patience(Retry):
    """Tries again with a server that is there and refuses to write, too: RQ's worker would quit over that."""

    def __init__(self, backoff: AbstractBackoff, retries: int, place: str = "") -> None:
        """As redis-py's.

        Args:
            backoff: as there.
            retries: as there.
            place: the address as it may be shown; empty: nothing is logged.
        """
        super().__init__(backoff, retries)
        self._place = place
        self._failures = 0
        self._refusal_told_at = float("-inf")

    def call_with_retry(self, do: Callable[[], Any], *others: Any, **named: Any) -> Any:
        """As redis-py's."""
        return super().call_with_retry(lambda: self._try(do), *others, **named)

    def _try(self, do: Callable[[], Any]) -> Any:
        try:
            value = do()
        except (ConnectionError, TimeoutError, OSError) as error:
            self._note(error)
            raise
        except ResponseError as error:
            if not isinstance(error, OutOfMemoryError | ReadOnlyError) and not str(error).startswith(_REFUSALS):
                raise
            self._note_refusal(error)
            time.sleep(_REFUSED_PAUSE_SECONDS)
            raise ConnectionError(f"it refuses: {error}") from error
        if self._failures >= _TOLD_TRIES and self._place:
            tell("redis_back", "Redis at {redis} is back", redis=self._place)
        self._failures = 0
        return value

    def _note_refusal(self, error: Exception) -> None:
        """Between refusals it does answer what only reads."""
        if self._place and time.monotonic() >= self._refusal_told_at + _REFUSAL_TOLD_SECONDS:
            self._refusal_told_at = time.monotonic()
            text = "Redis at {redis} refuses to write ({error}); trying again"
            warn("no_redis", text, redis=self._place, error=str(error))

    def _note(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == _TOLD_TRIES and self._place:
            text = "Redis at {redis} does not do what it should ({error}); trying again"
            warn("no_redis", text, redis=self._place, error=str(error))


class ShardJob(Job):
    """A job that can do one thing only.

    RQ calls whatever function a job names, and its callbacks and addresses, too. Whoever can write to Redis could run
    any program on the workers.

    Attributes:
        handler: what is done; a worker sets it.
    """

    handler: Callable[[Any], Any] | None = None

    def restore(self, raw_data: Any) -> Any:
        """As RQ's; what would fill the memory when it is unpacked is not.

        Raises:
            ValueError: it is larger than any job of ours.
        """
        data = raw_data.get(b"data", b"")
        with contextlib.suppress(zlib.error):  # it may come as it is
            data = zlib.decompressobj().decompress(data, _MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MiB")
        return super().restore(raw_data)

    @property
    def func(self) -> Callable[[Any], Any] | None:
        """The one thing; None for anything else that a job may name."""
        return self.handler if self.is_ours else None

    @property
    def is_ours(self) -> bool:
        """Whether it asks for the one thing, with one manifest."""
        try:
            return self.func_name == FUNCTION and self.instance is None and len(self.args) == 1 and not self.kwargs
        except (DeserializationError, TypeError):
            return False

    @property
    def success_callback(self) -> None:
        """None."""

    @property
    def failure_callback(self) -> None:
        """None."""

    @property
    def stopped_callback(self) -> None:
        """None."""

    def send_webhooks(self, *_: Any, **__: Any) -> None:
        """None."""


class _TlsConnection(SSLConnection):
    """Redis-py waits as long for a handshake as for an answer."""

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        sock.settimeout(self.socket_connect_timeout)
        wrapped = super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        wrapped.settimeout(self.socket_timeout)
        return wrapped


def connect(url: str, *, for_ever: bool = False, most_seconds: float | None = None) -> Redis:
    """A connection, which is made when it is first used.

    Args:
        url: redis://, rediss:// (TLS) or unix://, with user and password if need be.
        for_ever: try again until Redis is back, as a worker has to: a job must not die with its queue.
        most_seconds: try once, and wait no longer for a connection, nor for an answer; None: patiently.

    Raises:
        ConfigError: it is no such address, or has an option that redis-py cannot use. The message does not show it, for
            it may hold a password.
    """
    retry = Patience(ExponentialBackoff(cap=1.0, base=_FIRST_PAUSE_SECONDS), _TRIES)
    try:
        if for_ever:
            backoff = ExponentialBackoff(cap=_LONGEST_PAUSE_SECONDS, base=_FIRST_PAUSE_SECONDS)
            retry = Patience(backoff, _FOR_EVER, shown(url))
        elif most_seconds is not None:
            retry = Patience(NoBackoff(), 0)
        scheme = urlsplit(url).scheme
        if scheme not in ("redis", "rediss", "unix"):
            raise ValueError
        options: dict[str, Any] = {"socket_timeout": most_seconds or _ANSWER_SECONDS}
        if scheme != "unix":
            options |= {"socket_connect_timeout": most_seconds or _CONNECT_SECONDS, "socket_keepalive": True}
        if scheme == "rediss":
            options["connection_class"] = _TlsConnection
        connection = Redis.from_url(url, retry=retry, **options)
        _try_out(connection)
        return connection
    except _BAD_OPTION:
        raise ConfigError("queue.url has an option that cannot be used", _SEE) from None
    except ValueError:
        raise ConfigError(
            "queue.url is not the address of a Redis server",
            "expected redis://HOST:6379/0, rediss://USER:PASSWORD@HOST:6379/0 or unix:///run/redis.sock",
        ) from None


def _try_out(connection: Redis) -> None:
    """See, without connecting, what the address asks for: redis-py finds out about it when it connects.

    Raises:
        TypeError, AttributeError, LookupError: an option is none, or cannot have this value.
        ValueError: the host is none.
    """
    pool = connection.connection_pool
    link = pool.connection_class(**pool.connection_kwargs)
    if link.encoder.decode_responses:
        raise TypeError("all that is read here is bytes")
    link.encoder.encode("")
    str(getattr(link, "host", "")).encode("idna")


def check(connection: Redis, url: str) -> None:
    """See that it answers, and is new enough.

    Raises:
        ConfigError: the address has an option that redis-py cannot use.
        RedisGone: it does not answer.
        EnvironmentFault: it is too old, takes another password, or shows a wrong certificate: to wait does not help.
    """
    try:
        if urlsplit(url).scheme == "rediss":
            _shake_hands(connection)
        connection.info("server")  # RQ takes a refusal of this for an old version
        version = get_version(connection)
    except _BAD_OPTION:  # what follows a question mark becomes an argument
        raise ConfigError("queue.url has an option that cannot be used", _SEE) from None
    except (RedisError, OSError) as error:
        if (fault := redis_troubles.fault(error, url, shown(url))) is not None:
            raise fault from None
        hint = redis_troubles.hint(error, url)
        raise RedisGone(f"Redis at {shown(url)} does not answer ({error}){hint}") from error
    if version < _OLDEST:
        text = ".".join(map(str, version))
        raise EnvironmentFault(f"Redis at {shown(url)} is {text}: too old", "install Redis 6.2, Valkey 7.2 or newer")


def _shake_hands(connection: Redis) -> None:
    """One try: what does not speak TLS keeps silent, however often it is asked.

    Raises:
        TimeoutError: it did.
    """
    silence: TimeoutError | None = None
    with without_patience(connection):
        try:
            connection.ping()
        except TimeoutError as error:
            silence = error
    if silence is not None and redis_troubles.is_of_handshake(silence):
        raise silence


def queue(connection: Redis, name: str) -> Queue:
    """The queue of jobs."""
    return Queue(name, connection=connection, serializer=SERIALIZER, job_class=ShardJob)


def listed(connection: Redis, key: str) -> list[bytes]:
    """What a list of RQ's holds, whatever it is."""
    return [name for name in connection.lrange(key, 0, -1) if isinstance(name, bytes)]


def listeners(connection: Redis, name: str) -> frozenset[bytes]:
    """Keys of the workers that listen to a queue: one that was lost is in the list for a while."""
    keys = [key for key in connection.smembers(WORKERS_BY_QUEUE_KEY % name) if isinstance(key, bytes)]
    with connection.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.exists(key)
        return frozenset(key for key, there in zip(keys, pipeline.execute(), strict=True) if there)


@contextlib.contextmanager
def without_patience(connection: Redis) -> Iterator[None]:
    """One try, and no word if it fails: for what is good to do and not worth a wait."""
    before = connection.get_retry()
    connection.set_retry(Retry(NoBackoff(), 0))
    try:
        with contextlib.suppress(RedisError, OSError):
            yield
    finally:
        if before is not None:
            connection.set_retry(before)


@contextlib.contextmanager
def faults_told(url: str) -> Iterator[None]:
    """What Redis refuses is told as `check` does.

    Raises:
        RedisGone: it does not answer, or not as it should.
        EnvironmentFault: it refuses what no waiting heals.
    """
    try:
        yield
    except RedisError as error:
        if (fault := redis_troubles.fault(error, url, shown(url))) is not None:
            raise fault from None
        raise RedisGone(f"Redis at {shown(url)} does not answer ({error})") from error
