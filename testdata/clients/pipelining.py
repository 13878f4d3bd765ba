"""A whole session in one piece, and octet by octet: pipelining.py PORT USER PASSWORD

The mailbox has four messages. What comes back must be the same, the stamp of the greeting aside.
"""

import socket
import sys

port, user, password = sys.argv[1:]
COMMANDS = f"""CAPA
USER {user}
PASS {password}
STAT
LIST
UIDL
RETR 1
TOP 2 0
DELE 3
DELE 3
no such command
RSET
NOOP
RETR 4
QUIT
STAT
"""
OCTETS = COMMANDS.replace("\n", "\r\n").encode()


def converse(pieces):
    with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    greeting, _, rest = said.partition(b"\r\n")
    assert greeting.startswith(b"+OK POP3 service ready <"), greeting
    return rest


def replies(said):
    """The first line of each reply."""
    lines = said.split(b"\r\n")
    assert lines.pop() == b""
    # CAPA, LIST and UIDL, RETR and TOP
    of_several_lines = {0, 4, 5, 6, 7, 13}
    heads = []
    while lines:
        head = lines.pop(0)
        if len(heads) in of_several_lines:
            while lines.pop(0) != b".":
                pass
        heads.append(head)
    return heads


whole = converse([OCTETS])
heads = replies(whole)
signs = [head.split()[0].decode() for head in heads]
assert signs == ["+OK"] * 9 + ["-ERR", "-ERR"] + ["+OK"] * 4, heads
assert heads[3].startswith(b"+OK 4 "), heads
assert converse(bytes([octet]) for octet in OCTETS) == whole
