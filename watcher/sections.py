"""The sections of config.yaml as types: keys, defaults, what is allowed. config.yaml says what each is for."""

import ipaddress
import os
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from sr_engine import models, protocol

_LONGEST = 1e9  # 30 years; infinity is more than the system's waits can take

Seconds = Annotated[float, Meta(ge=0, le=_LONGEST, description="a number of seconds, 0 or more")]
PositiveSeconds = Annotated[float, Meta(gt=0, le=_LONGEST, description="a number of seconds greater than 0")]
Amount = Annotated[float, Meta(ge=0, le=_LONGEST, description="a number, 0 or more")]
Quality = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]
Count = Annotated[int, Meta(ge=1, description="a whole number, 1 or more")]
Name = Annotated[str, Meta(min_length=1, pattern=r"^[^\0]*$", description="a text that is not empty")]
Text = Annotated[str, Meta(pattern=r"^[^\0]*$")]  # no path or argument can hold a zero byte
Device = Annotated[
    str,
    Meta(
        pattern=r"^(auto|cpu|gpu|npu|cuda|tensorrt|directml|coreml)(:[0-9]{1,3})?\Z",
        description="one of auto, cpu, gpu, npu, cuda, tensorrt, directml, coreml, perhaps with a number: cuda:1",
    ),
]

Hours = Annotated[
    str,
    Meta(
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z",
        description="a list of hours, such as [23:00-07:00]",
    ),
]


class Folders(msgspec.Struct, frozen=True):
    """Absolute paths once the config is read; see config.yaml for what each is for."""

    inbox: Name = "inbox"
    outbox: Name = "outbox"
    archive: Name = "archive"
    failed: Name = "failed"
    state: Name = ".dropscale"

    @property
    def engines(self) -> str:
        """What engines remember from one process to the next: compiled models, sizes of tiles."""
        return os.path.join(self.state, "engines")


class Watch(msgspec.Struct, frozen=True):
    """How the inbox is watched; see config.yaml."""

    backend: Annotated[Literal["auto", "native", "polling"], Meta(description="one of auto, native, polling")] = "auto"
    recursive: Annotated[bool, Meta(description="true or false")] = True
    settle_seconds: PositiveSeconds = 2
    rescan_seconds: PositiveSeconds = 300
    poll_seconds: PositiveSeconds = 5
    incomplete_seconds: Seconds = 30
    ignore: Annotated[tuple[str, ...], Meta(description="a list of patterns")] = ()


class WindowLimits(msgspec.Struct, frozen=True):
    """When a window closes; see config.yaml."""

    quiet_seconds: Seconds = 5
    max_seconds: Seconds = 60
    max_files: Annotated[int, Meta(ge=1, le=100_000, description="a whole number from 1 to 100000")] = 200
    max_pixels: Count = 400_000_000
    urgent_folder: Annotated[str, Meta(pattern=r"^[^\0/\\]*$", description="the name of a folder, or empty")] = "urgent"

    def is_urgent(self, path: str) -> bool:
        """Whether a path below the inbox is one of those that go first, whatever the budget."""
        return self.urgent_folder != "" and path.startswith(os.path.join(self.urgent_folder, ""))


class Engine(msgspec.Struct, frozen=True):
    """The engine process; see config.yaml."""

    model: Name = models.AUTO
    models_folder: Annotated[Text, Meta(description="a folder, or empty")] = ""
    model_mirrors: Annotated[tuple[Text, ...], Meta(description="a list of http or https addresses")] = ()
    ensemble: Annotated[bool, Meta(description="true or false")] = False
    runtime: Annotated[
        Literal["auto", "opencv", "openvino", "onnx"], Meta(description="one of auto, opencv, openvino, onnx")
    ] = "auto"
    device: Device = "auto"
    precision: Annotated[Literal["auto", "fp32", "fp16", "bf16"], Meta(description="one of auto, fp32, fp16, bf16")] = (
        "auto"
    )
    threads: Annotated[int, Meta(ge=0, le=1024, description="a whole number from 0 to 1024")] = 0
    attempts: Count = 2
    start_seconds: PositiveSeconds = 120
    gpu_wait_seconds: Seconds = 60
    deadline_seconds: PositiveSeconds = 60
    deadline_seconds_per_megapixel: Seconds = 120
    grace_seconds: Seconds = 30
    keep_warm_seconds: Seconds = 0
    command: Annotated[tuple[Text, ...], Meta(description="a list: the program and its arguments")] = ()


class Output(msgspec.Struct, frozen=True):
    """How results are written; see config.yaml."""

    format: Annotated[
        Literal["same", "jpeg", "png", "webp", "tiff", "bmp", "avif", "heic", "jpeg2000", "gif"],
        Meta(description="one of same, jpeg, png, webp, tiff, bmp, avif, heic, jpeg2000, gif"),
    ] = "same"
    jpeg_quality: Quality = 95
    webp_quality: Annotated[int, Meta(ge=1, le=101, description="a whole number from 1 to 101")] = 95
    avif_quality: Quality = 90
    png_compression: Annotated[int, Meta(ge=0, le=9, description="a whole number from 0 to 9")] = 1

    def wire(self) -> protocol.Output:
        """The same settings as the engine protocol carries them."""
        return protocol.Output(**msgspec.structs.asdict(self))


class Limits(msgspec.Struct, frozen=True):
    """What is refused from its header alone; see config.yaml."""

    megapixels: Annotated[float, Meta(gt=0, le=_LONGEST, description="a number greater than 0")] = 200
    side: Count = 60_000
    file_megabytes: Annotated[int, Meta(ge=1, le=2047, description="a whole number from 1 to 2047")] = 2047
    memory_megabytes: Annotated[int, Meta(ge=0, description="a whole number, 0 or more")] = 0
    engine_megabytes: Annotated[int, Meta(ge=0, description="a whole number, 0 or more")] = 0

    def wire(self) -> protocol.Limits:
        """The same limits as the engine protocol carries them."""
        return protocol.Limits(
            pixels=max(round(self.megapixels * 1e6), 1),
            side=self.side,
            file_bytes=self.file_megabytes << 20,
            memory_bytes=self.memory_megabytes << 20,
            engine_bytes=self.engine_megabytes << 20,
        )


class Retry(msgspec.Struct, frozen=True):
    """Waiting for the surroundings to recover; see config.yaml."""

    first_seconds: PositiveSeconds = 10
    max_seconds: PositiveSeconds = 600

    def delay_seconds(self, earlier_waits: int) -> float:
        """How long to wait after `earlier_waits` waits in a row."""
        return float(min(self.first_seconds * 2.0 ** min(earlier_waits, 30), self.max_seconds))


class Cost(msgspec.Struct, frozen=True):
    """What an hour of the device costs; see config.yaml."""

    per_hour: Amount = 0.6
    currency: Annotated[
        str, Meta(pattern=r"^[A-Z]{3}\Z", description="three capital letters, such as CNY, EUR, USD")
    ] = "CNY"
    wait_seconds: PositiveSeconds = 60


class Budget(msgspec.Struct, frozen=True):
    """When engines may start; see config.yaml."""

    unit: Annotated[Literal["money", "gpu_minutes"], Meta(description="one of money, gpu_minutes")] = "money"
    per_day: Amount = 0
    per_month: Amount = 0
    only_between: Annotated[tuple[Hours, ...], Meta(description="a list of hours, such as [23:00-07:00]")] = ()
    quiet_hours: Annotated[tuple[Hours, ...], Meta(description="a list of hours, such as [09:00-17:30]")] = ()


class Metrics(msgspec.Struct, frozen=True):
    """Figures for Prometheus; see config.yaml."""

    textfile: Annotated[Text, Meta(description="a path, or empty")] = ""
    textfile_seconds: Annotated[float, Meta(ge=1, le=_LONGEST, description="a number of seconds, 1 or more")] = 60
    port: Annotated[int, Meta(ge=0, le=65535, description="a whole number from 0 to 65535")] = 0
    address: Annotated[
        str, Meta(pattern=r"^[0-9a-fA-F.:]+\Z", description="an IP address such as 127.0.0.1, ::1 or 0.0.0.0")
    ] = "127.0.0.1"


HookEvent = Literal[
    "started", "stopped", "done", "failed", "waiting", "batch", "budget", "engine_trouble", "inbox_gone", "inbox_back"
]


class Hook(msgspec.Struct, frozen=True):
    """A command or an address to call on events; see config.yaml and docs/operation.md."""

    events: Annotated[
        tuple[HookEvent, ...],
        Meta(min_length=1, description=f"a list of some of {', '.join(get_args(HookEvent))}"),
    ] = ()
    command: Annotated[tuple[Text, ...], Meta(description="a list: the program and its arguments")] = ()
    url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^\s/?#@]+([/?#][^\s]*)?)?\Z",
            description="an http or https address, without user and password: those go into headers",
        ),
    ] = ""
    headers: Annotated[
        dict[Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+\Z")], Annotated[str, Meta(pattern=r"^[ -~]*\Z")]],
        Meta(description="names with texts, in printable ASCII"),
    ] = {}
    timeout_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="a number of seconds greater than 0, 3600 at most")
    ] = 10
    attempts: Annotated[int, Meta(ge=1, le=20, description="a whole number from 1 to 20")] = 3

    def fault(self) -> str:
        """What is wrong with it as a whole; empty if nothing is."""
        if not self.events:
            return "events is missing: on which of them it is called"
        if bool(self.command) == bool(self.url):
            return "one of command and url is needed, and only one"
        return "headers belong to a url" if self.headers and self.command else ""


class WarmTime(msgspec.Struct, frozen=True):
    """A time at which the engine is to be loaded, and for how long; see config.yaml."""

    at: Annotated[str, Meta(description="a cron expression in quotes, such as '50 8 * * 1-5'")] = ""
    for_seconds: Annotated[
        float, Meta(ge=0, le=86_400, description="a number of seconds greater than 0, 86400 at most")
    ] = 0


class Web(msgspec.Struct, frozen=True):
    """The page; see config.yaml."""

    enabled: Annotated[bool, Meta(description="true or false")] = False
    host: Annotated[str, Meta(pattern=r"^[0-9A-Za-z.:_-]+\Z", description="an address or a name of this machine")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="a whole number from 0 to 65535")] = 8333
    token: Annotated[
        str,
        Meta(
            pattern=r"^([!-~]{16,200})?\Z",
            description="16 to 200 characters without spaces, quoted if they are all digits, or empty",
        ),
    ] = ""
    upload_megabytes: Annotated[int, Meta(ge=1, le=2047, description="a whole number from 1 to 2047")] = 2047
    uploads_per_minute: Count = 600

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Queue(msgspec.Struct, frozen=True):
    """The queue of `executor: rq`; see config.yaml.

    The address is judged where it is used: a message about a wrong value here would show its password.
    """

    url: Text = "redis://127.0.0.1:6379/0"
    name: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z", description="up to 64 letters, digits, dots and dashes")
    ] = "dropscale"
    share: Annotated[Text, Meta(description="a folder, or empty")] = ""
    shard_pixels: Count = 16_000_000
    retries: Annotated[int, Meta(ge=0, le=100, description="a whole number from 0 to 100")] = 2
    worker_seconds: PositiveSeconds = 60


class Config(msgspec.Struct, frozen=True):
    """Everything a user can set."""

    executor: Annotated[Literal["local", "rq"], Meta(description="one of local, rq")] = "local"
    folders: Folders = Folders()
    watch: Watch = Watch()
    window: WindowLimits = WindowLimits()
    engine: Engine = Engine()
    output: Output = Output()
    limits: Limits = Limits()
    retry: Retry = Retry()
    budget: Budget = Budget()
    cost: Cost = Cost()
    queue: Queue = Queue()
    metrics: Metrics = Metrics()
    web: Web = Web()
    on_event: tuple[Hook, ...] = ()
    warm: tuple[WarmTime, ...] = ()
