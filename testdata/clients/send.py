"""Sends files with smtplib, each as one message: send.py smtp|lmtp PORT RECIPIENT FILE...

SMTP gets them with CRLF line ends, as the protocol asks, in the way of this library. LMTP gets the octets of the file:
a server that takes them from programs of its own machine makes the line ends right itself.
"""

import pathlib
import re
import smtplib
import sys

SENDER = "ann@example.org"


def as_it_is(connection, recipient, content):
    """DATA with the octets of the content: only the last line end is made the CRLF that must stand before the end of
    data, and only lines after a CRLF are dot-stuffed."""
    for code, reply in (connection.mail(SENDER), connection.rcpt(recipient)):
        assert code == 250, reply
    code, reply = connection.docmd("DATA")
    assert code == 354, reply
    if content:
        content = re.sub(rb"(?:\r\n|\r|\n)?\Z", b"\r\n", content, count=1)
    connection.send(re.sub(rb"(?:\A|(?<=\r\n))\.", b"..", content) + b".\r\n")
    code, reply = connection.getreply()
    assert code == 250, reply


protocol, port, recipient, *files = sys.argv[1:]
client = {"smtp": smtplib.SMTP, "lmtp": smtplib.LMTP}[protocol]
with client("127.0.0.1", int(port), local_hostname="client.example.org", timeout=60) as connection:
    connection.ehlo_or_helo_if_needed()
    assert connection.has_extn("pipelining") and connection.has_extn("size")
    for file in files:
        content = pathlib.Path(file).read_bytes()
        if protocol == "lmtp":
            as_it_is(connection, recipient, content)
        else:
            content = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
            assert connection.sendmail(SENDER, [recipient], content) == {}
