"""Logs in by each way that poplib knows, and is refused with another password.

Words: port of POP3, port of POP3S, user, password.
"""
import poplib
import ssl
import sys

port, tls_port, user, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
# Ignore the self-signed certificate: this tests logins.
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def in_clear():
    return poplib.POP3("127.0.0.1", port, timeout=60)


def secured():
    server = in_clear()
    assert "STLS" in server.capa()
    server.stls(context)
    assert "STLS" not in server.capa()
    return server


def secured_from_the_start():
    return poplib.POP3_SSL("127.0.0.1", tls_port, context=context, timeout=60)


def by_password(server, word):
    server.user(user)
    server.pass_(word)


def by_digest(server, word):
    server.apop(user, word)


for connect in [in_clear, secured, secured_from_the_start]:
    for log_in in [by_password, by_digest]:
        server = connect()
        log_in(server, password)
        assert server.stat()[0] == 1
        server.quit()
        server = connect()
        try:
            log_in(server, password + "x")
        except poplib.error_proto as refusal:
            assert b"[AUTH]" in refusal.args[0], refusal
        else:
            raise AssertionError(f"{connect.__name__} {log_in.__name__}: a wrong password was taken")
        server.close()

for version in [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
    context.minimum_version = context.maximum_version = version
    server = secured_from_the_start()
    by_password(server, password)
    server.quit()
