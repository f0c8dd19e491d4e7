"""TLS, client certificates, basic authentication, rate limit and their reload, on a real server."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time

import bcrypt
import pytest

from agent.base.errors import ConfigError
from agent.base.web import WebSecurity
from agent.base.web.guard import BasicAuth, RateLimiter
from agent.base.web.webconfig import load_web_config

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A CA, two server certificates and a client certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("pki")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    root = ["-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem"]
    openssl("req", "-x509", *key, *root, *usage, "-subj", "/CN=ca", "-days", "2")
    sign = ["-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "2"]
    for name, san in (("one", "IP:127.0.0.1"), ("two", "IP:127.0.0.1"), ("client", "DNS:prometheus.test")):
        mine = f"{folder}/{name}"
        openssl("req", *key, "-keyout", f"{mine}.key", "-out", f"{mine}.csr", "-subj", f"/CN={name}")
        (folder / "ext").write_text(f"subjectAltName={san}\nauthorityKeyIdentifier=keyid\n")
        openssl("x509", "-req", "-in", f"{mine}.csr", *sign, "-out", f"{mine}.pem", "-extfile", f"{folder}/ext")
    return folder


@pytest.fixture
def secured(serve, tmp_path):
    """Serve under a web configuration: `secured(text)`."""

    def start(text, **settings):
        path = tmp_path / "web.yaml"
        path.write_text(text)
        served = serve(**settings)
        served.security = WebSecurity(served.server, path)
        served.config = path
        served.loop.call_soon_threadsafe(
            lambda: setattr(served, "watching", served.loop.create_task(served.security.watch()))
        )
        return served

    return start


def tls_text(pki, name="one", more=""):
    return f"tls_server_config:\n  cert_file: {pki}/{name}.pem\n  key_file: {pki}/{name}.key\n{more}"


def ask(served, pki, path="/healthz", client=None, tls=True, headers=None):
    """Status and body over TLS, verified against the CA."""
    context = ssl.create_default_context(cafile=f"{pki}/ca.pem") if tls else None
    if client and context:
        context.load_cert_chain(f"{pki}/{client}.pem", f"{pki}/{client}.key")
    made = (
        http.client.HTTPSConnection("127.0.0.1", served.port, timeout=60, context=context)
        if tls
        else http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    )
    try:
        made.request("GET", path, headers=headers or {})
        answer = made.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        made.close()


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_tls_serves_large_answers_and_1_3_is_the_least(secured, pki):
    served = secured(tls_text(pki))
    assert ask(served, pki)[:2] == (200, b"ok\n")
    assert len(ask(served, pki, "/big")[1]) == 15_000_001
    old = ssl.create_default_context(cafile=f"{pki}/ca.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with served.connect() as sock, pytest.raises(ssl.SSLError):
        old.wrap_socket(sock, server_hostname="127.0.0.1")


def test_tls_1_2_only_when_told(secured, pki):
    suites = (
        "  min_version: TLS12\n  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]\n"
    )
    served = secured(tls_text(pki, more=suites + "  curve_preferences: [CurveP256]\n"))
    context = ssl.create_default_context(cafile=f"{pki}/ca.pem")
    with served.connect() as sock, context.wrap_socket(sock, server_hostname="127.0.0.1") as tls:
        assert tls.version() == "TLSv1.2"
        assert tls.cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("more", "speaks"),
    [
        ("cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]", {"TLSv1.2", "TLSv1.3"}),
        ("cipher_suites: [TLS_AES_128_GCM_SHA256]", {"TLSv1.3"}),  # none of 1.2 is left
        ("curve_preferences: [CurveP384, X25519]", {"TLSv1.2", "TLSv1.3"}),
    ],
)
def test_lists_as_exporter_toolkit_takes_them(secured, pki, more, speaks, version):
    served = secured(tls_text(pki, more=f"  min_version: TLS12\n  {more}\n"))
    context = ssl.create_default_context(cafile=pki / "ca.pem")
    context.minimum_version = context.maximum_version = version
    name = "TLSv1.2" if version is ssl.TLSVersion.TLSv1_2 else "TLSv1.3"
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain:
        if name in speaks:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
                assert tls.version() == name
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_suites_that_no_version_can_use_are_an_error(pki, tmp_path):
    text = tls_text(pki, more="  min_version: TLS12\n  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n")
    (tmp_path / "web.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"no suite of TLS 1\.2"):
        load_web_config(tmp_path / "web.yaml")


def test_inline_certificates(secured, pki):
    block = {name: (pki / f"one.{name}").read_text().replace("\n", "\n    ") for name in ("pem", "key")}
    served = secured(f"tls_server_config:\n  cert: |\n    {block['pem']}\n  key: |\n    {block['key']}\n")
    assert ask(served, pki)[0] == 200


def test_one_idle_client_blocks_no_handshake(secured, pki):
    served = secured(tls_text(pki))
    with served.connect():
        assert ask(served, pki)[0] == 200


def test_rubbish_instead_of_a_handshake_is_counted(secured, pki, until):
    served = secured(tls_text(pki))
    with served.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while sock.recv(1000):
            pass
    until(lambda: served.server.refused["handshake"] == 1)
    assert ask(served, pki)[0] == 200


def test_a_client_must_show_a_certificate_of_the_right_name(secured, pki):
    more = f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {pki}/ca.pem\n"
    served = secured(tls_text(pki, more=more + "  client_allowed_sans: [prometheus.test]\n"))
    assert ask(served, pki, client="client")[0] == 200
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        ask(served, pki)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        ask(served, pki, client="two")  # of the same CA, but named 127.0.0.1


def test_a_new_certificate_is_served_without_a_restart_and_a_bad_one_is_not(secured, pki, until, caplog):
    served = secured(tls_text(pki, "one"))

    def shown():
        context = ssl.create_default_context(cafile=f"{pki}/ca.pem")
        with served.connect() as sock, context.wrap_socket(sock, server_hostname="127.0.0.1") as tls:
            return dict(pair[0] for pair in tls.getpeercert()["subject"])["commonName"]

    assert shown() == "one"
    served.config.write_text(tls_text(pki, "two"))
    until(lambda: shown() == "two")
    served.config.write_text(tls_text(pki, "missing"))
    until(lambda: not served.security.good)
    assert shown() == "two"
    assert "missing.pem" in caplog.text
    served.config.write_text(tls_text(pki, "one"))
    until(lambda: shown() == "one")
    assert served.security.good


def test_passwords(secured, pki):
    served = secured(f"basic_auth_users:\n  prom: {HASH}\n")

    def status(headers=None):
        return ask(served, pki, tls=False, headers=headers)[0]

    assert status() == 401
    assert "WWW-Authenticate" in ask(served, pki, tls=False)[2]
    assert status(basic("prom", "secret")) == 200
    assert status(basic("prom", "wrong")) == 401
    assert status(basic("nobody", "secret")) == 401
    assert status(basic("prom", "secret" + "x" * 100)) == 401
    assert status(basic("prom", "sec\0ret")) == 401
    for broken in ("Basic", "Basic !!", "Basic \x8a", "Bearer x", "Basic " + base64.b64encode(b"no colon").decode()):
        assert status({"Authorization": broken}) == 401


def test_a_known_password_costs_no_hash_and_an_unknown_user_costs_one():
    dear = bcrypt.hashpw(b"secret", bcrypt.gensalt(5)).decode()
    auth = BasicAuth({"prom": dear})
    calls = []
    check = auth._check
    auth._check = lambda password, stored: calls.append(stored) or check(password, stored)

    import asyncio

    async def go():
        header = basic("prom", "secret")["Authorization"]
        assert await auth.verify(header) is True
        assert auth.knows(header)
        assert not auth.knows(basic("prom", "other")["Authorization"])
        assert await auth.verify(basic("nobody", "x")["Authorization"]) is False
        assert await auth.verify(basic("prom", "x" * 100)["Authorization"]) is False

    asyncio.run(go())
    auth.close()
    assert len(calls) == 3
    assert [stored[:7] for stored in calls] == [b"$2b$05$"] * 3, "a miss is as dear as a hit"


def test_a_storm_of_wrong_passwords_leaves_those_who_are_known_alone(secured, pki):
    dear = bcrypt.hashpw(b"secret", bcrypt.gensalt(11)).decode()
    served = secured(f"basic_auth_users:\n  prom: {dear}\n")
    assert ask(served, pki, tls=False, headers=basic("prom", "secret"))[0] == 200
    seen = []

    def storm(n):
        seen.append(ask(served, pki, tls=False, headers=basic("prom", f"wrong {n}"))[0])

    crowd = [threading.Thread(target=storm, args=(n,)) for n in range(40)]
    for each in crowd:
        each.start()
    for _ in range(5):
        assert ask(served, pki, tls=False, headers=basic("prom", "secret"))[0] == 200
    for each in crowd:
        each.join()
    assert set(seen) == {401, 503}


def test_a_changed_password_ends_the_old_one(secured, pki, until):
    served = secured(f"basic_auth_users: {{prom: '{HASH}'}}\n")
    old = basic("prom", "secret")
    assert ask(served, pki, tls=False, headers=old)[0] == 200
    new = bcrypt.hashpw(b"changed", bcrypt.gensalt(4)).decode()
    served.config.write_text(f"basic_auth_users: {{prom: '{new}'}}\n")
    until(lambda: ask(served, pki, tls=False, headers=old)[0] == 401)
    assert ask(served, pki, tls=False, headers=basic("prom", "changed"))[0] == 200


def test_the_rate_limit_answers_429(secured, pki):
    served = secured("rate_limit: {interval: 1h, burst: 3}\n")
    assert [ask(served, pki, tls=False)[0] for _ in range(5)] == [200, 200, 200, 429, 429]


def test_tokens_are_earned_and_saved_up_to_the_burst():
    now = [0.0]
    limiter = RateLimiter(2.0, 3, clock=lambda: now[0])
    assert [limiter.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 2.0
    assert [limiter.take() for _ in range(2)] == [True, False]
    now[0] = 1000.0
    assert [limiter.take() for _ in range(4)] == [True, True, True, False]


def test_headers_are_added(secured, pki):
    served = secured(
        "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Strict-Transport-Security: max-age=60\n"
    )
    headers = ask(served, pki, tls=False)[2]
    assert headers["X-Frame-Options"] == "deny"
    assert headers["Strict-Transport-Security"] == "max-age=60"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tls_server_confg: {}", r":1: tls_server_confg: unknown key; allowed: basic_auth_users"),
        ("tls_server_config: {cert_file: a}", r"needs one of key and key_file"),
        ("tls_server_config: {cert_file: a, cert: b, key: c}", r"cert or cert_file, not both"),
        ("tls_server_config:\n  cert: a\n  key: b\n  min_version: TLS10", r":4: .*TLS12"),
        ("tls_server_config: {cert: a, key: b, client_auth_type: RequireAnyClientCert}", r"NoClientCert"),
        ("tls_server_config: {cert: a, key: b, client_ca_file: c}", r"verifies nobody"),
        ("tls_server_config: {cert: a, key: b, client_auth_type: RequireAndVerifyClientCert}", r"needs client_ca"),
        ("tls_server_config: {cert: a, key: b, client_allowed_sans: [x]}", r"RequireAndVerifyClientCert"),
        ("tls_server_config: {cert: a, key: b, min_version: TLS13, max_version: TLS12}", r"min_version is above"),
        ("basic_auth_users: {prom: hunter2}", r"no bcrypt hash"),
        ("basic_auth_users: {prom: $2y$31$" + "a" * 53 + "}", r"cost must be from 4 to 15, got 31"),
        ("rate_limit: {interval: 1s}", r"burst 0 would refuse every request"),
        ("http_server_config: {headers: {X-Frame-Options: maybe}}", r"deny"),
        ('http_server_config: {headers: {Content-Security-Policy: "a\\r\\nb: c"}}', r"one line of ASCII"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_shows_no_secret(tmp_path, text, problem):
    path = tmp_path / "web.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as refused:
        load_web_config(path)
    assert "hunter2" not in str(refused.value)


def test_a_key_that_does_not_fit_or_is_encrypted_is_refused(serve, pki, tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(f"tls_server_config: {{cert_file: {pki}/one.pem, key_file: {pki}/two.key}}")
    with pytest.raises(ConfigError, match=r"two\.key"):
        WebSecurity(serve().server, path)
    openssl("ec", "-in", f"{pki}/one.key", "-aes128", "-passout", "pass:x", "-out", f"{tmp_path}/locked.key")
    path.write_text(f"tls_server_config: {{cert_file: {pki}/one.pem, key_file: locked.key}}")
    with pytest.raises(ConfigError, match=r"locked\.key"):
        WebSecurity(serve().server, path)


def test_a_file_that_hangs_does_not_stop_the_server(secured, pki, tmp_path, until):
    served = secured("rate_limit: {interval: 1ms, burst: 1000}\n")
    served.config.unlink()
    os.mkfifo(served.config)  # whoever reads it waits
    time.sleep(3)
    assert ask(served, pki, tls=False)[0] == 200
    until(lambda: _feed(served.config))


def _feed(path):
    """Let the reader go; whether there was one."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    os.write(handle, b"rate_limit: {interval: 1ms, burst: 1000}\n")
    os.close(handle)
    return True


def test_slow_handshakes_are_dropped(serve, pki, secured, until):
    served = secured(tls_text(pki), limits={"request_seconds": 0.5})
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        sock.sendall(b"\x16")
        assert sock.recv(1) == b""
    until(lambda: served.server.refused["handshake"] >= 1 or served.server.refused["deadline"] >= 1)
