"""The model that the config names."""

import os
from typing import TYPE_CHECKING

from sr_engine import models
from sr_engine.errors import ModelError
from watcher.errors import ConfigError, NoModelError

if TYPE_CHECKING:
    from watcher.sections import Config


def models_folder(settings: "Config") -> str:
    """Where the user's own models are."""
    return settings.engine.models_folder or models.own_folder()


def find_model(settings: "Config") -> models.Model:
    """The facts of the model that the engine is to load, its file compared with its sha256.

    Raises:
        ConfigError: no model has that name.
        NoModelError: it is not there, or not as it should be.
    """
    folder = models_folder(settings)
    try:
        known = models.installed(folder)
        if settings.engine.model not in known:
            if settings.engine.models_folder and not os.path.exists(os.path.join(folder, models.MANIFEST)):
                raise NoModelError(
                    f"engine.model: {settings.engine.model!r} is none of those that came along, "
                    f"and there is no {models.MANIFEST} in {folder}",
                    "mount that folder or correct engine.models_folder; `dropscale models list` shows what there is",
                )
            raise ConfigError(
                f"engine.model: {settings.engine.model!r} is not allowed; expected one of {', '.join(sorted(known))}",
                "`dropscale models list` shows what can be fetched, `dropscale models add` takes a file",
            )
        found = known[settings.engine.model]
        models.verify(found)
    except ModelError as error:
        raise NoModelError(error.message, "see `dropscale doctor`") from error
    return found.model
