"""Has neomutt, which wants a terminal, open a maildrop and leave it.

Words: configuration file, URL of the maildrop.
"""
import os
import pty
import sys

process, terminal = pty.fork()
if process == 0:
    os.environ["TERM"] = "xterm"
    os.execvp("neomutt", ["neomutt", "-n", "-F", sys.argv[1], "-f", sys.argv[2], "-e", "push '<quit>'"])
shown = b""
while True:
    try:
        octets = os.read(terminal, 65536)
    except OSError:
        break
    if not octets:
        break
    shown += octets
print(shown.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
