"""Logs in by NTLMv2 with message integrity code and channel binding, which pyspnego makes.

Words: port of POP3, port of POP3S, user, password.
"""
import base64
import hashlib
import socket
import ssl
import sys

import spnego
from spnego.channel_bindings import GssChannelBindings

port, tls_port, user, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def connect(number):
    return socket.create_connection(("127.0.0.1", number), timeout=60)


def log_in(connection, word, bindings=None, change=lambda message: message):
    """The server's reply to the last message, and that message."""
    lines = connection.makefile("rwb")

    def ask(line):
        lines.write(line + b"\r\n")
        lines.flush()
        return lines.readline()

    assert lines.readline().startswith(b"+OK")
    client = spnego.client(
        user, word, hostname="localhost", service="pop", protocol="ntlm", channel_bindings=bindings
    )
    assert ask(b"AUTH NTLM").startswith(b"+")
    challenge = ask(base64.b64encode(client.step()))
    assert challenge.startswith(b"+ "), challenge
    message = change(client.step(base64.b64decode(challenge[2:])))
    return ask(base64.b64encode(message)), message


def bound_to(hashed):
    return GssChannelBindings(application_data=b"tls-server-end-point:" + hashed)


def flipped(at):
    def change(message):
        changed = bytearray(message)
        changed[at] ^= 1
        return bytes(changed)

    return change


reply, right = log_in(connect(port), password)
assert reply.startswith(b"+OK"), reply
for word, change in [
    (password + "x", lambda message: message),
    (password, lambda message: right),  # replayed: it answers another challenge
    (password, flipped(75)),  # in the integrity code
    (password, flipped(-20)),  # in the response or what it covers
    (password, lambda message: message[:100]),
    (password, lambda message: message[:8]),
]:
    reply, _ = log_in(connect(port), word, change=change)
    assert reply.startswith(b"-ERR"), reply

tls = context.wrap_socket(connect(tls_port))
certificate = hashlib.sha256(tls.getpeercert(True)).digest()
reply, _ = log_in(tls, password, bound_to(certificate))
assert reply.startswith(b"+OK"), reply
reply, _ = log_in(context.wrap_socket(connect(tls_port)), password, bound_to(bytes(32)))
assert reply.startswith(b"-ERR"), reply
