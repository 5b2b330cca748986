"""An engine without a network: a real child process that speaks the protocol and does as its pictures say.

It takes the place of `python -m sr_engine` in tests of the watcher. A "picture" is any bytes; the result is RESULT, the
picture's hash and its bytes, so that a test can tell a whole result from anything else. Words in the picture make it
misbehave:

    CRASH        abort the process              EXIT         exit with code 7
    HANG         never answer                   SELFKILL     end by SIGKILL, as the kernel's out-of-memory killer does
    GARBAGE      write nonsense to stdout       SLOW n       work for n seconds
    UNDECODABLE  report the picture as damaged  UNSUPPORTED  report it as of a kind that is not handled
    HOSTMEMORY   report that memory was short
    DISKFULL     report a full disk              READS n      be read for n seconds, as from a slow share
    TILES n      do n tiles in 0.2 s each       CHATTER      tell of the same tile for ever
    NOTED        be done with a note            LADDER n     make n engines ask for a fresh one

and words in the environment variable STUB make the engine itself ill, or another one:

    NEVERREADY   say nothing, ever              UNUSABLE     report a missing library
    DEAF         ignore that stdin closes       NOSTART      exit with code 9 at once
    LATE n       be ready after n seconds       TERSE        tell nothing of its start
    ALWAYSCRASH  abort the process over any picture
    NAMED        stage results under names that can be told before
    MORTAL       end, with code 9 and without a word, when asked again after it was at rest
    TOGETHER n   work on n pictures at a time: begin that many before the first one is finished
    DEVICE d     say that it runs on that device, as "DEVICE cuda:0"
    CONTEXT n m  have a context of n MiB, for m ms of its life, in the file that NVML_STUB names (tests/gpu/nvml_stub.c)
    COUNT f      append a byte to that file
    LEAK n       leave n MiB there for ever
"""

import hashlib
import os
import re
import signal
import sys
import threading
import time

import msgspec

from sr_engine import protocol

HEAD = b"RESULT "
BEGUN, BEGUN_AT = time.monotonic(), time.time()
STUB = os.environ.get("STUB", "")
TOGETHER = int(found[1]) if (found := re.search(r"TOGETHER ([0-9]+)", STUB)) else 1


def say(event: protocol.Event) -> None:
    os.write(1, protocol.encode(event))


def fail(picture: int, code: protocol.Code, message: str, fault: protocol.Fault) -> None:
    retryable = fault is protocol.Fault.ENVIRONMENT
    say(protocol.Failed(id=picture, code=code, message=message, fault=fault, retryable=retryable))


def result_of(data: bytes) -> bytes:
    return HEAD + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def misbehave(data: bytes, picture: int) -> bool:
    """Do what the picture says; whether it has been answered."""
    if b"CRASH" in data or "ALWAYSCRASH" in STUB:
        os.abort()
    if b"EXIT" in data:
        sys.stderr.write("I was told to exit\n")
        sys.stderr.flush()
        os._exit(7)
    if b"HANG" in data:
        time.sleep(3600)
    if b"SELFKILL" in data:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"GARBAGE" in data:
        os.write(1, b"\xff\xfe not JSON at all\n")
        time.sleep(3600)
    if ladder := re.search(rb"LADDER ([0-9]+)", data):
        climb(int(ladder[1]))
    take_time(data, picture)
    if b"UNDECODABLE" in data:
        fail(picture, protocol.Code.UNDECODABLE, "the picture ends too early", protocol.Fault.PICTURE)
    elif b"UNSUPPORTED" in data:
        fail(picture, protocol.Code.UNSUPPORTED, "such pictures are not handled", protocol.Fault.PICTURE)
    elif b"HOSTMEMORY" in data:
        fail(picture, protocol.Code.OUT_OF_MEMORY, "there is no memory left", protocol.Fault.PICTURE)
    elif b"DISKFULL" in data:
        fail(picture, protocol.Code.UNWRITABLE, "no space left on the outbox", protocol.Fault.ENVIRONMENT)
    else:
        return False
    return True


def take_time(data: bytes, picture: int) -> None:
    if slow := re.search(rb"SLOW ([0-9.]+)", data):
        print("slow work begins", file=sys.stderr, flush=True)  # to be seen in the log of --verbose
        time.sleep(float(slow[1]))
    if tiles := re.search(rb"TILES ([0-9]+)", data):
        for number in range(int(tiles[1])):
            time.sleep(0.2)
            say(protocol.Progress(id=picture, done=number + 1, total=int(tiles[1])))
    while b"CHATTER" in data:
        time.sleep(0.05)
        say(protocol.Progress(id=picture, done=1, total=2))


def climb(steps: int) -> None:
    """Ask for a fresh engine unless so many have: each leaves a byte in the cache folder."""
    folder = sys.argv[sys.argv.index("--cache-folder") + 1]
    with open(os.path.join(folder, "steps"), "ab") as file:
        if file.tell() >= steps:
            return
        file.write(b".")
    message = "no memory for tiles of this size"
    fault = protocol.Fault.ENVIRONMENT
    say(protocol.Failed(id=None, code=protocol.Code.OUT_OF_MEMORY, message=message, fault=fault, retryable=True))
    os._exit(3)


def begin(request: protocol.Upscale) -> bytes | None:
    """The picture, unless it has been answered."""
    say(protocol.Started(id=request.id, width=0, height=0))
    source = protocol.decode_path(request.source)
    try:
        with open(source, "rb") as file:
            data = file.read()
    except OSError as error:
        fail(request.id, protocol.Code.UNREADABLE, f"cannot read: {error.strerror}", protocol.Fault.ENVIRONMENT)
        return None
    if slow := re.search(rb"READS ([0-9.]+)", data):
        time.sleep(float(slow[1]))
    say(protocol.Started(id=request.id, width=64, height=64))
    return data


def store(result: bytes, target: str) -> None:
    """Whole and synced, or nothing of it."""
    with open(target, "wb" if "NAMED" in STUB else "xb") as file:  # a killed engine may have left something there
        try:
            file.write(result)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.unlink(target)
            raise


def finish(request: protocol.Upscale, data: bytes) -> bool:
    """Whether there is a result."""
    if misbehave(data, request.id):
        return False
    extension = os.path.splitext(protocol.decode_path(request.source))[1].lower()
    target = protocol.decode_path(request.target) + extension
    if "NAMED" in STUB:
        target = os.path.join(os.path.dirname(target), f"{request.id}-result{extension}")
    result = result_of(data)
    try:
        store(result, target)
    except OSError as error:
        message = f"the result cannot be staged: {error.strerror}"
        fail(request.id, protocol.Code.UNWRITABLE, message, protocol.Fault.ENVIRONMENT)
        return False
    say(protocol.Progress(id=request.id, done=1, total=1))
    say(
        protocol.Done(
            id=request.id,
            target=protocol.encode_path(target),
            source_sha256=hashlib.sha256(data).hexdigest(),
            result_sha256=hashlib.sha256(result).hexdigest(),
            result_bytes=len(result),
            width=192,
            height=192,
            decode_seconds=0.0,
            upscale_seconds=0.0,
            encode_seconds=0.0,
            peak_memory_bytes=1,
            note="a stub cannot do better" if b"NOTED" in data else "",
        )
    )
    return True


def be_ill() -> None:
    if told := re.search(r"COUNT (\S+)", STUB):
        with open(told[1], "ab") as file:
            file.write(b".")
    if "NOSTART" in STUB:
        os._exit(9)
    if "NEVERREADY" in STUB:
        time.sleep(3600)
    if late := re.search(r"LATE ([0-9.]+)", STUB):
        time.sleep(float(late[1]))
    if "UNUSABLE" in STUB:
        message, fault = "libGL.so.1 is missing", protocol.Fault.ENVIRONMENT
        say(protocol.Failed(id=None, code=protocol.Code.ENGINE_UNUSABLE, message=message, fault=fault, retryable=False))
        os._exit(3)


def ready() -> protocol.Ready:
    seconds = time.monotonic() - BEGUN
    device = told[1] if (told := re.search(r"DEVICE ([a-z0-9:]+)", STUB)) else "cpu"
    terse = protocol.Ready(runtime="stub", device=device, precision="fp32", load_seconds=seconds)
    if "TERSE" in STUB:
        return terse
    phases = {"imports": 0.75 * seconds, "pretence": 0.25 * seconds}
    return msgspec.structs.replace(terse, reason="there is no other", started_at=BEGUN_AT, phases=phases)


def take_memory() -> None:
    for word, kind in (("CONTEXT", "living"), ("LEAK", "process")):
        if told := re.search(word + r" ([0-9]+(?: [0-9]+)?)", STUB):
            with open(os.environ["NVML_STUB"], "a", encoding="ascii") as file:
                file.write(f"{kind} {os.getpid()} {told[1]}\n")


def main() -> None:
    be_ill()
    take_memory()
    say(ready())
    requests: list[protocol.Upscale] = []
    arrived = threading.Condition()
    ended = False
    bye_said = threading.Event()

    def listen() -> None:
        nonlocal ended
        for line in sys.stdin.buffer:
            message = protocol.decode_request(line)
            with arrived:
                if isinstance(message, protocol.End):
                    ended = True
                else:
                    requests.append(message)
                arrived.notify()
        if "DEAF" not in STUB and not bye_said.is_set():
            os._exit(4)

    threading.Thread(target=listen, daemon=True).start()
    answers: list[bool] = []
    in_work: list[tuple[protocol.Upscale, bytes]] = []
    while True:
        with arrived:
            if "MORTAL" in STUB and answers and not in_work and not requests:
                while not requests and not ended:
                    arrived.wait()
                if requests:
                    os._exit(9)
            while len(in_work) + len(requests) < TOGETHER and not ended:
                arrived.wait()
            new = requests[: TOGETHER - len(in_work)]
            del requests[: len(new)]
        for request in new:
            data = begin(request)
            if data is None:
                answers.append(False)
            else:
                in_work.append((request, data))
        if in_work:
            answers.append(finish(*in_work.pop(0)))
        elif not new:
            break
    bye_said.set()
    say(protocol.Bye(pictures=len(answers), failed=answers.count(False), seconds=time.monotonic() - BEGUN))
    os._exit(0)


if __name__ == "__main__":
    main()
