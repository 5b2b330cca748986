"""What ends a command early: class -> exit code -> remedy.

DropscaleError
├── UsageError            2   a wrong command line
│   └── ConfigError       2   a wrong value in config.yaml or in the environment
├── EnvironmentFault      3   share gone, disk full, unwritable folder
│   ├── NoModelError      3   the model is missing or is not the file that the manifest names
│   ├── EngineUnusable    3   the engine process cannot work on this machine
│   └── LedgerError       3   the ledger cannot be read or written
│       └── LedgerLost    3   it is damaged, or its file is gone: the next start makes it anew from the folders
└── AlreadyRunning        0   another watcher holds the lock: cron overlaps are normal
"""

EXIT_DONE = 0
EXIT_SOME_FAILED = 1
EXIT_UNHEALTHY = 1  # of `dropscale health`


class DropscaleError(Exception):
    """Base of all: `message` says what happened, to which file; `remedy` what to do next."""

    exit_code = 3

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(DropscaleError):
    """The command line makes no sense."""

    exit_code = 2


class ConfigError(UsageError):
    """config.yaml, or an environment variable that overrides it, holds something that is not allowed."""


class EnvironmentFault(DropscaleError):
    """The machine stands in the way: the same command may work later, or once the remedy is applied."""

    exit_code = 3


class NoModelError(EnvironmentFault):
    """No usable weights."""


class EngineUnusable(EnvironmentFault):
    """The engine cannot upscale anything here."""


class LedgerError(EnvironmentFault):
    """The ledger cannot be read or written now."""


class LedgerLost(LedgerError):
    """The ledger is damaged, or its file is gone: waiting does not help, it has to be made anew."""


class AlreadyRunning(DropscaleError):
    """Another watcher works on the same folders."""

    exit_code = EXIT_DONE
