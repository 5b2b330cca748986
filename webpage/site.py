"""All that the page's routes work with, put together once."""

from dataclasses import dataclass

from sr_engine import models
from sr_engine.errors import ModelError
from watcher.sections import Config
from webpage.gallery import Gallery
from webpage.now import Now
from webpage.reading import Reading
from webpage.security import Allowance, Wall, read_key
from webpage.thumbnails import Thumbnails
from webpage.uploads import Uploads

_LOGINS_PER_MINUTE = 10
_RETRIES_PER_MINUTE = 120
_USUAL_SCALE = 3


@dataclass(frozen=True)
class Site:
    """One page over one set of folders."""

    config: Config
    wall: Wall
    reading: Reading
    gallery: Gallery
    thumbnails: Thumbnails
    uploads: Uploads
    now: Now
    upload_allowance: Allowance
    login_allowance: Allowance
    retry_allowance: Allowance
    scale: int  # how many times larger results are

    @classmethod
    def of(cls, config: Config) -> "Site":
        """Put it together.

        Raises:
            LedgerError: the ledger is from a newer version.
            OSError: the state folder cannot be written.
        """
        reading = Reading(config.folders.state)
        reading.bring_up_to_date()
        key = read_key(config.folders.state)
        scale = _scale(config)
        return cls(
            config,
            Wall(key, config.web.token),
            reading,
            Gallery(reading, config.folders),
            Thumbnails(config.folders.state),
            Uploads(config, reading, key, scale),
            Now(config, reading),
            Allowance(config.web.uploads_per_minute),
            Allowance(_LOGINS_PER_MINUTE),
            Allowance(_RETRIES_PER_MINUTE),
            scale,
        )

    def close(self) -> None:
        """End streams and children."""
        self.now.close()
        self.thumbnails.close()


def _scale(config: Config) -> int:
    """Of the model; the watcher says what is wrong with it."""
    try:
        return models.installed(config.engine.models_folder)[config.engine.model].model.scale
    except (ModelError, KeyError):
        return _USUAL_SCALE
