"""Every command of POP3 that poplib knows, on a mailbox of four messages: session.py PORT USER PASSWORD

The second connection sees what the first has left.
"""

import poplib
import sys

port, user, password = sys.argv[1:]


def connect():
    return poplib.POP3("127.0.0.1", int(port), timeout=60)


def refused(command, *arguments, saying=b""):
    try:
        command(*arguments)
    except poplib.error_proto as error:
        assert error.args[0].startswith(b"-ERR " + saying), error
    else:
        raise AssertionError(f"{command.__name__} {arguments} was accepted")


def numbers(listing):
    return [int(line.split()[0]) for line in listing[1]]


maildrop = connect()
assert maildrop.getwelcome().startswith(b"+OK POP3 service ready <")
capabilities = maildrop.capa()
for capability in ("TOP", "UIDL", "USER", "SASL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE", "UTF8", "LANG"):
    assert capability in capabilities, capability
refused(maildrop.stat)
maildrop.user(user)
refused(maildrop.pass_, "wrong " + password, saying=b"[AUTH] ")
maildrop.user(user.upper())
maildrop.pass_(password)

count, octets = maildrop.stat()
assert count == 4 and numbers(maildrop.list()) == numbers(maildrop.uidl()) == [1, 2, 3, 4]
unique_ids = [line.split()[1] for line in maildrop.uidl()[1]]
assert b"Subject: message 2" in maildrop.retr(2)[1]
header = maildrop.top(2, 0)[1]
assert b"Subject: message 2" in header and header[-1] == b"" and maildrop.top(2, 1)[1] == header + [b"Text."]

# Marked messages are hidden and cannot be named, and RSET brings them back.
of_two = int(maildrop.list(2).split()[2])
maildrop.dele(2)
assert numbers(maildrop.list()) == numbers(maildrop.uidl()) == [1, 3, 4]
assert maildrop.stat() == (3, octets - of_two)
for command in (maildrop.retr, maildrop.dele, maildrop.list, maildrop.uidl):
    refused(command, 2)
refused(maildrop.top, 2, 0)
maildrop.rset()
assert maildrop.stat() == (4, octets)
maildrop.noop()
for number in (0, -1, 5, 1 << 32, (1 << 64) + 1, "one"):
    refused(maildrop.retr, number)
    refused(maildrop.dele, number)

# One session at a time.
second = connect()
second.user(user)
refused(second.pass_, password, saying=b"[IN-USE] ")
second.close()

# Without QUIT nothing is deleted.
maildrop.dele(1)
maildrop.close()

while True:
    # The service may not have noticed yet that the connection is gone.
    maildrop = connect()
    maildrop.user(user)
    try:
        maildrop.pass_(password)
        break
    except poplib.error_proto as error:
        assert error.args[0].startswith(b"-ERR [IN-USE] "), error
        maildrop.close()
assert [line.split()[1] for line in maildrop.uidl()[1]] == unique_ids
maildrop.dele(1)
maildrop.dele(3)
maildrop.quit()

maildrop = connect()
maildrop.utf8()
maildrop.user(user)
maildrop.pass_(password)
assert [line.split()[1] for line in maildrop.uidl()[1]] == [unique_ids[1], unique_ids[3]]
assert numbers(maildrop.list()) == [1, 2]
maildrop.quit()
