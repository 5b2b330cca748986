"""A hook as a user might write one: appends what it is told to a file. As its words say, it misbehaves.

hook_command.py FILE           write the event down
hook_command.py FILE hang      ... and hang, with a child that hangs, too; their process ids are in FILE
hook_command.py FILE fail      ... and write a lot, and end with code 3
hook_command.py FILE leave     ... and end, leaving a child behind that holds the output open; its id is in FILE
hook_command.py FILE escape    the same, with a child in a session of its own
"""

import os
import subprocess
import sys
import time

file, *word = sys.argv[1:]
told = sys.stdin.read()
assert told.endswith("\n")
child = None
if word in (["hang"], ["leave"], ["escape"]):
    child = subprocess.Popen(["sleep", "300"], start_new_session=word == ["escape"])
    told = f"{os.getpid()} {child.pid}\n"
with open(file, "a", encoding="utf-8") as output:
    output.write(told)
if word == ["hang"]:
    time.sleep(300)
if word == ["fail"]:
    print("noise " * 500_000)
    print("the last line")
    sys.exit(3)
if child is not None:
    child.returncode = 0  # it is left behind on purpose
