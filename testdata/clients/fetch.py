"""Fetches a maildrop with poplib: fetch.py PORT USER PASSWORD DIRECTORY

Every message becomes a file DIRECTORY/NUMBER.eml, and a line "NUMBER OCTETS UNIQUE-ID" of the output. The text of a
message is held against LIST, STAT and TOP on the way.
"""

import pathlib
import poplib
import sys

# Mail may have longer lines than this library expects.
poplib._MAXLINE = 1 << 20


def content(lines):
    return b"".join(line + b"\r\n" for line in lines)


port, user, password, directory = sys.argv[1:]
maildrop = poplib.POP3("127.0.0.1", int(port), timeout=60)
# Get headers as stored, not as surrogates.
maildrop.utf8()
maildrop.user(user)
maildrop.pass_(password)

sizes = [tuple(map(int, line.split())) for line in maildrop.list()[1]]
names = [tuple(line.decode().split()) for line in maildrop.uidl()[1]]
assert [number for number, _ in sizes] == list(range(1, len(sizes) + 1))
assert [int(number) for number, _ in names] == list(range(1, len(sizes) + 1))
assert len({name for _, name in names}) == len(sizes)
assert maildrop.stat() == (len(sizes), sum(octets for _, octets in sizes))

for (number, octets), (_, name) in zip(sizes, names):
    _, lines, counted = maildrop.retr(number)
    text = content(lines)
    assert counted == octets == len(text), (number, counted, octets, len(text))
    header, empty_line, body = text.partition(b"\r\n\r\n")
    body_lines = body.split(b"\r\n")[:-1]
    for wanted in (0, 1, 10, 1 << 30):
        expected = header + empty_line + content(body_lines[:wanted]) if empty_line else text
        assert content(maildrop.top(number, wanted)[1]) == expected, (number, wanted)
    assert maildrop.list(number).split()[1:] == [b"%d" % number, b"%d" % octets]
    assert maildrop.uidl(number).decode().split()[1:] == [str(number), name]
    pathlib.Path(directory, f"{number}.eml").write_bytes(text)
    print(number, octets, name)
maildrop.quit()
