"""What can go wrong in the engine, and whose fault it is.

EngineError
├── PictureError        the picture's own fault: reported as `failed`, the batch goes on
├── EnvironmentFault    not the picture's fault: disk full, share gone, memory exhausted; worth another try
│   └── DeviceBusy      others hold the device: nothing can be upscaled now; the process exits
└── UnusableEngine      nothing can be upscaled here: missing library, model or device; the process exits
    └── ModelError      unknown, missing or corrupt model
"""

from sr_engine.protocol import Code


class EngineError(Exception):
    """Base of all; `message` is one sentence for a person."""

    code: Code

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class PictureError(EngineError):
    """This picture cannot be upscaled, whatever the machine."""


class EnvironmentFault(EngineError):
    """The machine stood in the way; the same picture may succeed later."""


class DeviceBusy(EnvironmentFault):
    """Others hold the device; the message says who, and how much.

    Attributes:
        was_on_it: whether this process made a context there before it noticed.
    """

    def __init__(self, message: str, *, was_on_it: bool = False) -> None:
        super().__init__(Code.DEVICE_BUSY, message)
        self.was_on_it = was_on_it


class UnusableEngine(EngineError):
    """The engine cannot work on this machine as it is."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.ENGINE_UNUSABLE, message)


class ModelError(UnusableEngine):
    """The model is not in the manifest, its file is missing, or it is not the file that the manifest names."""
