"""An engine without a network: a real child process that speaks the protocol and does as its pictures say.

It takes the place of `python -m sr_engine` in tests of the watcher. A "picture" is any bytes; the result is RESULT, the
picture's hash and its bytes, so that a test can tell a whole result from anything else. Words in the picture make it
misbehave:

    CRASH        abort the process              EXIT         exit with code 7
    HANG         never answer                   SELFKILL     end by SIGKILL, as the kernel's out-of-memory killer does
    GARBAGE      write nonsense to stdout       SLOW n       work for n seconds
    UNDECODABLE  report the picture as damaged  UNSUPPORTED  report it as of a kind that is not handled
    DISKFULL     report a full disk              READS n      be read for n seconds, as from a slow share

and words in the environment variable STUB make the engine itself ill:

    NEVERREADY   say nothing, ever              UNUSABLE     report a missing library
    DEAF         ignore that stdin closes       NOSTART      exit with code 9 at once
    LATE n       be ready after n seconds
"""

import hashlib
import os
import re
import signal
import sys
import threading
import time

from sr_engine import protocol

HEAD = b"RESULT "
BEGUN = time.monotonic()
STUB = os.environ.get("STUB", "")


def say(event: protocol.Event) -> None:
    os.write(1, protocol.encode(event))


def fail(picture: int | None, code: protocol.Code, message: str, fault: protocol.Fault) -> None:
    retryable = fault is protocol.Fault.ENVIRONMENT
    say(protocol.Failed(id=picture, code=code, message=message, fault=fault, retryable=retryable))


def result_of(data: bytes) -> bytes:
    return HEAD + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def misbehave(data: bytes, picture: int) -> bool:
    """Do what the picture says; whether it has been answered."""
    if b"CRASH" in data:
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
    if slow := re.search(rb"SLOW ([0-9.]+)", data):
        time.sleep(float(slow[1]))
    if b"UNDECODABLE" in data:
        fail(picture, protocol.Code.UNDECODABLE, "the picture ends too early", protocol.Fault.PICTURE)
    elif b"UNSUPPORTED" in data:
        fail(picture, protocol.Code.UNSUPPORTED, "such pictures are not handled", protocol.Fault.PICTURE)
    elif b"DISKFULL" in data:
        fail(picture, protocol.Code.UNWRITABLE, "no space left on the outbox", protocol.Fault.ENVIRONMENT)
    else:
        return False
    return True


def work(request: protocol.Upscale) -> bool:
    say(protocol.Started(id=request.id, width=0, height=0))
    source = protocol.decode_path(request.source)
    try:
        with open(source, "rb") as file:
            data = file.read()
    except OSError as error:
        fail(request.id, protocol.Code.UNREADABLE, f"cannot read: {error.strerror}", protocol.Fault.ENVIRONMENT)
        return False
    if slow := re.search(rb"READS ([0-9.]+)", data):
        time.sleep(float(slow[1]))
    say(protocol.Started(id=request.id, width=64, height=64))
    if misbehave(data, request.id):
        return False
    target = protocol.decode_path(request.target) + os.path.splitext(source)[1].lower()
    result = result_of(data)
    with open(target, "xb") as file:
        file.write(result)
        file.flush()
        os.fsync(file.fileno())
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
        )
    )
    return True


def be_ill() -> None:
    if "NOSTART" in STUB:
        os._exit(9)
    if "NEVERREADY" in STUB:
        time.sleep(3600)
    if late := re.search(r"LATE ([0-9.]+)", STUB):
        time.sleep(float(late[1]))
    if "UNUSABLE" in STUB:
        fail(None, protocol.Code.ENGINE_UNUSABLE, "libGL.so.1 is missing", protocol.Fault.ENVIRONMENT)
        os._exit(3)


def main() -> None:
    be_ill()
    say(protocol.Ready(runtime="stub", device="cpu", precision="fp32", load_seconds=time.monotonic() - BEGUN))
    requests: list[protocol.Upscale] = []
    arrived = threading.Condition()
    ended = False

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
        if "DEAF" not in STUB:
            os._exit(4)

    threading.Thread(target=listen, daemon=True).start()
    answers = []
    while True:
        with arrived:
            while not requests and not ended:
                arrived.wait()
            if not requests:
                break
            request = requests.pop(0)
        answers.append(work(request))
    say(protocol.Bye(pictures=len(answers), failed=answers.count(False), seconds=time.monotonic() - BEGUN))
    os._exit(0)


if __name__ == "__main__":
    main()
