import datetime as dt
import ssl
import threading
import time
from functools import partial
from ipaddress import ip_address

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.errors import FetchError
from pipeline.sources.fetch import RETRIES
from pipeline.sources.receive import MIN_BYTES, REDIRECTS, Pace, Timeouts, enforce_pace
from tests.helpers.file_server import FileServer, response_head, serve


def drip_body(wfile, over, size):
    wfile.write(response_head("200 OK", Content_Length=size))
    while not over.wait(0.001):
        wfile.write(b"x")


def drip_headers(wfile, over, size):
    wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
    while not over.wait(0.001):
        wfile.write(b"x")


def stay_silent(wfile, over, size=0):
    over.wait()


@pytest.mark.slow
@pytest.mark.parametrize("answer", [drip_body, drip_headers, stay_silent])
def test_slow_server_is_abandoned(answer, fetch, server, tiny):
    start = time.monotonic()
    timeouts = Timeouts(backoff=0, window=0.3)
    with serve(FileServer(b"", answer=partial(answer, size=len(tiny.archive)))) as slow:
        with pytest.raises(FetchError, match=f"too slow: less than {MIN_BYTES:,} bytes in 0.3 s"):
            fetch(slow.url, timeouts=timeouts)
        assert fetch(slow.url, server.url, timeouts=timeouts) == tiny.archive
    assert time.monotonic() - start < 20


def test_server_with_a_byte_per_connection_is_too_slow(fetch, server, tiny):
    with serve(FileServer(tiny.archive, cuts=[1] * 100_000)) as slow:
        assert fetch(slow.url, server.url, timeouts=Timeouts(backoff=0, window=0.3)) == tiny.archive
        assert 1 < len(slow.requests) < 10_000
    start = int(server.requests[0]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert start >= len(slow.requests) - 1


def test_silent_server_is_asked_again(fetch):
    with serve(FileServer(b"", answer=stay_silent)) as silent, pytest.raises(FetchError, match="timed out"):
        fetch(silent.url, timeouts=Timeouts(read=0.1, backoff=0))
    assert len(silent.requests) == 1 + RETRIES


def test_server_that_is_fast_enough_may_take_longer_than_the_window():
    def respond():
        for _ in range(12):
            time.sleep(0.1)
            yield requests.Response(), bytes(MIN_BYTES)

    assert len(list(enforce_pace(respond(), Pace(1)))) == 12


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_abandoned_download_leaves_no_thread(seconds):
    before = threading.active_count()

    def respond():
        for _ in range(100):
            time.sleep(seconds)
            yield requests.Response(), b"x"

    received = enforce_pace(respond(), Pace(10))
    next(received)
    time.sleep(0.05)  # the thread waits for the next item, or for someone to take it
    received.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_redirect_is_followed(fetch, server, tiny):
    with serve(FileServer(b"")) as first:
        first.answer = lambda wfile, over: wfile.write(response_head("302 Found", Location=server.url))
        assert fetch(first.url) == tiny.archive


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/again", f"redirects more than {REDIRECTS} times"),
        ("ftp://127.0.0.1/x", "No connection adapters"),
        ("file:///etc/passwd", "No connection adapters"),
        ("http://[", "Invalid IPv6 URL"),
        ("http://:0/", "no host|No host|Invalid URL"),
    ],
)
def test_bad_redirect_is_named_and_mirror_skipped(location, reason, fetch, server, tiny):
    with serve(FileServer(b"")) as lost:
        lost.answer = lambda wfile, over: wfile.write(response_head("302 Found", Location=location))
        with pytest.raises(FetchError, match=reason):
            fetch(lost.url)
        assert fetch(lost.url, server.url) == tiny.archive


def test_body_of_redirect_is_not_read(fetch, server, tiny):
    def redirect(wfile, over):
        wfile.write(response_head("302 Found", Location=server.url))
        while not over.is_set():
            wfile.write(bytes(100_000))

    with serve(FileServer(b"", answer=redirect)) as endless:
        assert fetch(endless.url) == tiny.archive


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """A self-signed certificate for 127.0.0.1, trusted by requests."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, key_pem = tmp_path / "certificate.pem", tmp_path / "key.pem"
    pem.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key_pem)
    return context


def test_https_redirects_only_to_https(fetch, server, tls, tiny):
    with serve(FileServer(tiny.archive, tls=tls)) as secure, serve(FileServer(b"", tls=tls)) as first:
        first.answer = lambda wfile, over: wfile.write(response_head("302 Found", Location=server.url))
        with pytest.raises(FetchError, match=f"redirects to {server.url}, which is not https"):
            fetch(first.url)
        assert server.requests == []
        first.answer = lambda wfile, over: wfile.write(response_head("302 Found", Location=secure.url))
        assert fetch(first.url) == tiny.archive


def test_untrusted_certificate_is_named(fetch, server, tls, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with serve(FileServer(server.content, tls=tls)) as secure, pytest.raises(FetchError, match="CERTIFICATE_VERIFY"):
        fetch(secure.url)
