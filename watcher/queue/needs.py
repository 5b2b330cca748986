"""What `executor: rq` needs, looked for before anything is started; light, for it is asked without RQ, too."""

import importlib.util
import os

from watcher.errors import ConfigError, EnvironmentFault
from watcher.journal import warn
from watcher.sections import Config


def require_packages() -> None:
    """See that RQ is installed.

    Raises:
        EnvironmentFault: it is not.
    """
    for name in ("rq", "redis"):
        if importlib.util.find_spec(name) is None:
            raise EnvironmentFault(f"the package {name} is not installed", "install it: `pip install rq`")


def check(config: Config, *, chose_model: bool = False) -> None:
    """See that a watcher with this config can use the queue, if it is to.

    Args:
        config: of the watcher.
        chose_model: whether it leaves the model to this machine.

    Raises:
        EnvironmentFault: RQ is not installed.
        ConfigError: inbox and outbox do not lie on the share, or queue.url is no address.
    """
    if config.executor != "rq":
        return
    require_packages()
    from watcher.queue.redis_link import connect  # noqa: PLC0415 - needs RQ

    connect(config.queue.url).close()
    share = share_of(config)
    for key in ("inbox", "outbox"):
        folder = getattr(config.folders, key)
        if os.path.commonpath((share, folder)) != share:
            raise ConfigError(
                f"folders.{key}: {folder} does not lie below queue.share: {share}",
                "workers find pictures and results below their own mount of the share",
            )
    if share == os.path.dirname(share) and not config.queue.share:
        raise ConfigError(
            "inbox and outbox have no folder in common that workers could mount",
            "put them on one share and name it with queue.share",
        )
    if chose_model:
        warn("auto_model", "{advice}", advice=chosen_model(config.engine.model))
    if config.engine.keep_warm_seconds or config.warm:
        text = "engine.keep_warm_seconds and warm count for nothing with executor: rq, workers start their own engines"
        warn("not_warm", text)


def chosen_model(name: str) -> str:
    """That it was chosen, and what to do."""
    chosen = f"{name} was chosen by this machine, not by the workers"
    return f"engine.model is auto: {chosen}; set engine.model: {name}, or another"


def share_of(config: Config) -> str:
    """The root of the share on this machine, absolute."""
    if config.queue.share:
        return os.path.realpath(config.queue.share)
    return os.path.commonpath((os.path.dirname(config.folders.inbox), os.path.dirname(config.folders.outbox)))
