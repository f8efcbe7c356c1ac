import datetime as dt
import hashlib
import shutil
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pipeline.errors import FetchError
from pipeline.sources.fetch import RETRIES, fetch_archive
from pipeline.sources.receive import MIN_BYTES, REDIRECTS, Pace, Patience, keep_pace
from pipeline.sources.registry import DATASETS
from pipeline.stages.download import download_dataset
from shardset.errors import CorruptDataError, InputError
from shardset.shards import open_shards, verify_shards
from tests.helpers.file_server import FileServer, serve
from tests.helpers.shard_sets import read_images
from tests.soak.download import make_project, start

# What a server sends that never gets further: one request, and its retries.
NOTHING = [0] * (1 + RETRIES)
AT_ONCE = Patience(backoff=0)
NO_SERVER = "http://127.0.0.1:9/tiny.tar.gz"


def ignore_progress(done, total):
    pass


def files_in(archives_dir):
    return sorted(path.name for path in archives_dir.iterdir())


@pytest.fixture
def server(tiny):
    with serve(FileServer(tiny.archive)) as server:
        yield server


@pytest.fixture
def fetch(tiny, tmp_path):
    """Fetch the tiny archive from the URLs given and return its bytes."""

    def fetch_bytes(*urls, patience=AT_ONCE):
        path = fetch_archive(tiny.facts().archive, urls, tmp_path / "archives", ignore_progress, patience)
        assert files_in(path.parent) == ["tiny.tar.gz"]
        return path.read_bytes()

    return fetch_bytes


def test_an_archive_is_fetched_once(fetch, server, tiny):
    assert fetch(server.url) == tiny.archive
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 1


def test_progress_ends_at_the_archive_s_size(server, tiny, tmp_path):
    calls = []
    fetch_archive(tiny.facts().archive, [server.url], tmp_path, lambda *call: calls.append(call))
    assert calls == sorted(calls)
    assert calls[-1] == (len(tiny.archive), len(tiny.archive))


def test_a_broken_connection_is_resumed_where_it_broke(fetch, server, tiny):
    server.cuts = [70_000, 70_000, 1000, 0, 1000, 30_000]
    assert fetch(server.url) == tiny.archive
    assert [request.get("If-Range") for request in server.requests] == [None, *['"v1"'] * 6]
    # At most the chunk in flight is fetched twice.
    assert server.bytes_sent <= len(tiny.archive) + 6 * 8192


def test_a_later_process_resumes_what_an_earlier_one_fetched(fetch, server, tiny, tmp_path):
    server.cuts = [70_000, *NOTHING]
    with pytest.raises(FetchError, match="the connection broke"):
        fetch(server.url)
    part = (tmp_path / "archives/tiny.tar.gz.part").stat().st_size
    assert part > 0
    assert fetch(server.url) == tiny.archive
    assert server.requests[-1]["Range"] == f"bytes={part}-"
    assert server.requests[-1]["If-Range"] == '"v1"'


def test_another_mirror_finishes_what_the_first_began(fetch, server, tiny):
    with serve(FileServer(tiny.archive, cuts=[70_000, *NOTHING], etag='"elsewhere"')) as first:
        assert fetch(first.url, server.url) == tiny.archive
    assert "Range" in server.requests[0]
    assert "If-Range" not in server.requests[0]


def test_a_file_that_changed_meanwhile_is_fetched_anew(fetch, server, tiny):
    server.content, server.etag, server.cuts = b"x" * len(tiny.archive), '"old"', [70_000, *NOTHING]
    with pytest.raises(FetchError):
        fetch(server.url)
    server.content, server.etag = tiny.archive, '"new"'
    assert fetch(server.url) == tiny.archive
    assert server.requests[-1]["If-Range"] == '"old"'


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_a_date_tells_a_changed_file_where_the_tag_is_weak_or_missing(tag, fetch, server, tiny):
    tags = {"ETag": tag} if tag else {}
    old, new = ({"Last-Modified": f"Tue, {day} Sep 2026 00:00:00 GMT"} for day in ("01", "08"))
    server.etag, server.headers = None, tags | old
    server.content, server.cuts = b"x" * len(tiny.archive), [70_000, *NOTHING]
    with pytest.raises(FetchError):
        fetch(server.url)
    server.content, server.headers = tiny.archive, tags | new
    num_requests = len(server.requests)
    assert fetch(server.url) == tiny.archive
    assert server.requests[-1]["If-Range"] == old["Last-Modified"]
    assert len(server.requests) == num_requests + 1


def test_what_was_begun_of_a_changed_file_is_thrown_away_at_once(fetch, server, tiny, tmp_path):
    server.content, server.etag, server.cuts = b"x" * len(tiny.archive), '"old"', [70_000, *NOTHING]
    with pytest.raises(FetchError):
        fetch(server.url)
    server.content, server.etag, server.cuts = tiny.archive, '"new"', [100, *NOTHING]
    with pytest.raises(FetchError):
        fetch(server.url)
    assert (tmp_path / "archives/tiny.tar.gz.part").read_bytes() == tiny.archive[:100]


@pytest.mark.parametrize("extra", [0, 1])
def test_a_part_that_is_long_enough_but_wrong_is_fetched_anew(extra, fetch, server, tiny, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/tiny.tar.gz.part").write_bytes(b"x" * (len(tiny.archive) + extra))
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 1


def test_a_password_in_a_url_is_neither_shown_nor_stored(fetch, server, tmp_path):
    server.cuts = [100, *NOTHING]
    with pytest.raises(FetchError) as raised:
        fetch(server.url.replace("//", "//someone:secret@"))
    assert "secret" not in str(raised.value)
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "archives").iterdir())


def test_a_file_that_changed_unseen_between_two_connections_is_fetched_once_more(server, tiny, tmp_path):
    server.content, server.etag, server.cuts = b"x" * len(tiny.archive), None, [70_000]

    def change(done, total):
        server.content = tiny.archive

    assert fetch_archive(tiny.facts().archive, [server.url], tmp_path, change, AT_ONCE).read_bytes() == tiny.archive
    assert ["Range" in request for request in server.requests] == [False, True, False]


def test_wrong_bytes_from_one_mirror_do_not_spoil_the_next(fetch, server, tiny):
    with serve(FileServer(b"x" * len(tiny.archive), cuts=[70_000, *NOTHING])) as liar:
        assert fetch(liar.url, server.url) == tiny.archive
    assert ["Range" in request for request in server.requests] == [True, False]


def test_a_server_without_ranges_starts_anew(fetch, server, tiny):
    server.supports_range, server.etag = False, None
    server.cuts = [70_000]
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 2


def test_a_server_that_never_gets_further_is_given_up(fetch, server):
    server.supports_range = False
    server.cuts = [70_000] * 9
    with pytest.raises(FetchError, match="the connection broke"):
        fetch(server.url)
    assert len(server.requests) == 2 + RETRIES


def test_a_server_without_ranges_that_breaks_early_does_not_lose_what_was_there(fetch, server, tiny):
    with (
        serve(FileServer(tiny.archive, cuts=[200_000, *NOTHING])) as first,
        serve(FileServer(tiny.archive, cuts=[9000] * 9, supports_range=False)) as second,
    ):
        assert fetch(first.url, second.url, server.url) == tiny.archive
    assert int(server.requests[0]["Range"].removeprefix("bytes=").removesuffix("-")) > 190_000


def test_a_login_page_does_not_lose_what_was_there(fetch, server, tiny):
    with (
        serve(FileServer(tiny.archive, cuts=[200_000, *NOTHING])) as first,
        serve(FileServer(b"<html>Please log in</html>", supports_range=False)) as portal,
    ):
        assert fetch(first.url, portal.url, server.url) == tiny.archive
    assert "Range" in server.requests[0]


def test_an_archive_is_taken_as_it_is_sent_whatever_the_server_calls_it(fetch, server, tiny):
    server.headers = {"Content-Encoding": "x-gzip"}
    assert fetch(server.url) == tiny.archive


def test_a_busy_server_is_asked_again(fetch, server, tiny):
    server.statuses = [503, 429, 500]
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"statuses": [404]}, "404 Not Found"),
        ({"statuses": [403]}, "403 Forbidden"),
        ({"statuses": [503] * 4}, "503"),
        ({"content": b"<html>Please log in</html>"}, "expected Content-Length: [0-9]+, got 26"),
        ({"headers": {"Content-Length": "abc"}}, "expected Content-Length: [0-9]+, got abc"),
    ],
)
def test_a_mirror_that_fails_is_named_and_the_next_one_is_asked(fault, reason, fetch, server, tiny):
    with serve(FileServer(tiny.archive)) as bad:
        for name, value in fault.items():
            setattr(bad, name, value)
        with pytest.raises(FetchError, match=rf"{bad.url}: .*{reason}"):
            fetch(bad.url)
        bad.statuses = fault.get("statuses", []) and [404]
        assert fetch(bad.url, server.url) == tiny.archive


def test_an_endless_body_is_cut_off(fetch, server, tmp_path):
    endless = b"".join(b"%x\r\n%b\r\n" % (len(server.content), server.content) for _ in range(3))
    headers = {"Transfer-Encoding": "chunked", "Content-Length": str(len(server.content))}
    server.content, server.headers = endless, headers
    with pytest.raises(FetchError, match="the server sends more"):
        fetch(server.url)
    assert not (tmp_path / "archives/tiny.tar.gz").exists()


@pytest.mark.parametrize("part", [0, 0.5, 1])
def test_an_archive_with_one_flipped_bit_is_named_and_the_next_mirror_is_asked(part, fetch, server, tiny, tmp_path):
    content = bytearray(tiny.archive)
    content[round(part * (len(content) - 1))] ^= 0x10
    with serve(FileServer(bytes(content))) as bad:
        with pytest.raises(FetchError, match=f"{bad.url}: expected SHA-256"):
            fetch(bad.url)
        assert files_in(tmp_path / "archives") == []
        assert fetch(bad.url, server.url) == tiny.archive


def test_a_file_that_is_a_byte_longer_is_another(fetch, server, tiny):
    server.content += b"x"
    with pytest.raises(FetchError, match="expected Content-Length"):
        fetch(server.url)


def test_a_page_of_unknown_length_is_not_the_archive(fetch, server, tiny):
    server.answer = lambda wfile, over: wfile.write(b"HTTP/1.1 200 OK\r\n\r\n<html>Please log in</html>")
    with pytest.raises(FetchError, match="expected Content-Length: [0-9]+, got None"):
        fetch(server.url)


def test_a_server_that_asks_for_an_hour_is_not_waited_for(fetch, server, tiny):
    with serve(FileServer(tiny.archive, statuses=[429] * 9, headers={"Retry-After": "3600"})) as busy:
        with pytest.raises(FetchError, match="429 Too Many Requests"):
            fetch(busy.url)
        assert len(busy.requests) == 1 + RETRIES
        assert fetch(busy.url, server.url) == tiny.archive


def head(status, **headers):
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


def drip_body(wfile, over, size):
    wfile.write(head("200 OK", Content_Length=size))
    while not over.wait(0.001):
        wfile.write(b"x")


def drip_headers(wfile, over, size):
    wfile.write(b"HTTP/1.1 200 OK\r\nX-Header: ")
    while not over.wait(0.001):
        wfile.write(b"x")


def say_nothing(wfile, over, size=0):
    over.wait()


@pytest.mark.parametrize("answer", [drip_body, drip_headers, say_nothing])
def test_a_server_that_takes_for_ever_is_left_for_the_next(answer, fetch, server, tiny):
    start = time.monotonic()
    patience = Patience(backoff=0, window=0.3)
    with serve(FileServer(b"", answer=partial(answer, size=len(tiny.archive)))) as slow:
        with pytest.raises(FetchError, match=f"too slow: less than {MIN_BYTES:,} bytes in 0.3 s"):
            fetch(slow.url, patience=patience)
        assert fetch(slow.url, server.url, patience=patience) == tiny.archive
    assert time.monotonic() - start < 5


def test_a_server_that_gives_a_byte_a_connection_is_left_too(fetch, server, tiny):
    with serve(FileServer(tiny.archive, cuts=[1] * 100_000)) as slow:
        assert fetch(slow.url, server.url, patience=Patience(backoff=0, window=0.3)) == tiny.archive
        assert 1 < len(slow.requests) < 10_000
    assert int(server.requests[0]["Range"].removeprefix("bytes=").removesuffix("-")) >= len(slow.requests) - 1


def test_a_server_that_stays_silent_is_asked_again(fetch, server, tiny):
    with serve(FileServer(b"", answer=say_nothing)) as silent, pytest.raises(FetchError, match="timed out"):
        fetch(silent.url, patience=Patience(read=0.1, backoff=0))
    assert len(silent.requests) == 1 + RETRIES


@pytest.mark.parametrize("seconds", [0, 0.1])
def test_a_download_that_is_left_leaves_no_thread_behind(seconds):
    before = threading.active_count()
    received = keep_pace((time.sleep(seconds) or (None, b"x") for _ in range(100)), Pace(10))
    next(received)
    time.sleep(0.05)  # the thread waits for the next item, or for someone to take it
    received.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_redirect_is_followed(fetch, server, tiny):
    with serve(FileServer(b"")) as first:
        first.answer = lambda wfile, over: wfile.write(head("302 Found", Location=server.url))
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
def test_a_redirect_to_nowhere_is_named_and_the_next_mirror_is_asked(location, reason, fetch, server, tiny):
    with serve(FileServer(b"")) as lost:
        lost.answer = lambda wfile, over: wfile.write(head("302 Found", Location=location))
        with pytest.raises(FetchError, match=reason):
            fetch(lost.url)
        assert fetch(lost.url, server.url) == tiny.archive


def test_the_body_of_a_redirect_is_not_read(fetch, server, tiny):
    def redirect(wfile, over):
        wfile.write(head("302 Found", Location=server.url))
        while not over.is_set():
            wfile.write(bytes(100_000))

    with serve(FileServer(b"", answer=redirect)) as endless:
        assert fetch(endless.url) == tiny.archive


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """A certificate of 127.0.0.1's own, which requests is told to trust."""
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


def test_a_redirect_from_https_to_http_is_refused_and_one_to_https_followed(fetch, server, tls, tiny):
    with serve(FileServer(tiny.archive, tls=tls)) as secure, serve(FileServer(b"", tls=tls)) as first:
        first.answer = lambda wfile, over: wfile.write(head("302 Found", Location=server.url))
        with pytest.raises(FetchError, match=f"redirects to {server.url}, which is not https"):
            fetch(first.url)
        assert server.requests == []
        first.answer = lambda wfile, over: wfile.write(head("302 Found", Location=secure.url))
        assert fetch(first.url) == tiny.archive


def test_a_certificate_that_is_not_trusted_is_named(fetch, server, tls, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with serve(FileServer(server.content, tls=tls)) as secure, pytest.raises(FetchError, match="CERTIFICATE_VERIFY"):
        fetch(secure.url)


def test_what_a_server_says_is_shown_in_one_line_that_a_terminal_can_print(fetch, server):
    server.answer = lambda wfile, over: wfile.write(head("404 \x1b[31mred\x07" + "!" * 5000, Content_Length=0))
    with pytest.raises(FetchError) as caught:
        fetch(server.url)
    line = str(caught.value).splitlines()[-1]
    assert line.isprintable()
    assert len(line) < 500


def test_a_host_without_an_address_is_named(fetch):
    with pytest.raises(FetchError, match="http://nowhere.invalid/x: .*(resolve|name)"):
        fetch("http://nowhere.invalid/x")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="mounts a file system as Linux does")
def test_a_disk_that_is_full_is_named_and_no_other_mirror_is_asked(server, tiny, tmp_path):
    env = make_project(tmp_path, server.url, f"{server.url}?mirror")
    (tmp_path / "data").mkdir()
    mount = 'mount -t tmpfs -o size=100k tmpfs data || exit 99; "$@"; code=$?; ls data/archives; exit $code'
    process = start(tmp_path, env, "unshare", "--mount", "--map-root-user", "bash", "-c", mount, "bash")
    stdout, stderr = process.communicate()
    if process.returncode == 99 or "unshare" in stderr:
        pytest.skip(f"may not mount a file system: {stderr}")
    assert process.returncode == 1
    assert stderr == "Error: data/archives/tiny.tar.gz.part: can't be written: No space left on device\n"
    assert stdout == "tiny.tar.gz.part\ntiny.tar.gz.part.json\n"
    assert len(server.requests) == 1


def test_a_second_download_into_the_same_folder_waits_and_fetches_nothing(fetch, server, tiny):
    server.pause = 0.005
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(fetch, server.url) for _ in range(4)]
        assert all(future.result() == tiny.archive for future in futures)
    assert len(server.requests) == 1


def test_a_damaged_archive_from_before_is_fetched_again(fetch, server, tiny, tmp_path):
    fetch(server.url)
    (tmp_path / "archives/tiny.tar.gz").write_bytes(b"x" * len(tiny.archive))
    assert fetch(server.url) == tiny.archive


@pytest.fixture
def download(tiny, tmp_path, monkeypatch):
    """Run the stage on the tiny dataset, whose published archive is at `urls`."""
    tiny.install_reader(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*urls, source=None):
        monkeypatch.setitem(DATASETS, "tiny", tiny.facts(*urls))
        download_dataset("tiny", tmp_path / "raw", tmp_path / "archives", source, ignore_progress)
        return verify_shards(tmp_path / "raw")

    return run


def assert_holds(shards, tiny):
    for split, (images, labels) in (("train", tiny.train), ("test", tiny.test)):
        assert read_images(shards, split).tobytes() == images.tobytes()
        assert shards.labels(split).tobytes() == labels.tobytes()
    assert shards.manifest.classes[0] == "airplane"
    assert shards.manifest.normalization is None


def test_every_kind_of_source_gives_the_same_shard_set(download, server, tiny, tmp_path):
    archive_path = tmp_path / "a copy.tar.gz"
    archive_path.write_bytes(tiny.archive)
    folder = tiny.write_files(tmp_path / "folder")
    manifests = []
    for source in (
        None,
        server.url,
        str(archive_path),
        archive_path.as_uri(),
        str(folder),
        folder.as_uri(),
        str(folder / "cifar-10-batches-py"),
    ):
        shutil.rmtree(tmp_path / "archives", ignore_errors=True)
        shards = download(server.url, source=source)
        assert_holds(shards, tiny)
        manifests.append((tmp_path / "raw/manifest.json").read_bytes())
    assert len(set(manifests)) == 1
    assert len(server.requests) == 2


def test_a_second_run_unpacks_the_archive_and_fetches_nothing(download, server, tiny, tmp_path):
    download(server.url)
    shutil.rmtree(tmp_path / "raw")
    assert_holds(download(server.url), tiny)
    assert len(server.requests) == 1
    assert files_in(tmp_path / "archives") == ["tiny.tar.gz"]


def test_a_host_that_can_not_be_reached_is_named_with_the_reason(fetch):
    with pytest.raises(FetchError, match=f"{NO_SERVER}: .*refused"):
        fetch(NO_SERVER)


def test_when_nothing_gives_the_archive_the_message_says_what_was_tried_and_the_ways_out(download, server, tmp_path):
    server.statuses = [404, 403]
    with pytest.raises(FetchError) as caught:
        download(server.url, f"{server.url}?mirror")
    message = str(caught.value)
    assert f"{server.url}: 404 Not Found" in message
    assert f"{server.url}?mirror: 403 Forbidden" in message
    for way_out in ("another mirror", "a local file", "make demo"):
        assert way_out in message
    assert not (tmp_path / "raw").exists()


def test_a_source_that_is_not_the_published_one_is_refused_and_nothing_is_unpacked(download, tiny, tmp_path):
    wrong = tmp_path / "wrong.tar.gz"
    wrong.write_bytes(b"x" * len(tiny.archive))
    with pytest.raises(InputError, match="expected SHA-256"):
        download(source=str(wrong))
    wrong.write_bytes(b"x")
    with pytest.raises(InputError, match="expected [0-9,]+ bytes, got 1"):
        download(source=str(wrong))
    with pytest.raises(InputError, match="no such file or folder"):
        download(source=str(tmp_path / "absent.tar.gz"))
    for source in ("https://[bad/x", "file://[::1/x", "~nosuchuser/x", "s3://bucket/x"):
        with pytest.raises(InputError, match="^source "):
            download(source=source)
    assert not (tmp_path / "raw").exists()
    assert not (tmp_path / "archives").exists()


def test_a_folder_with_a_wrong_or_missing_file_is_refused_by_name_before_it_is_unpickled(download, tiny, tmp_path):
    folder = tiny.write_files(tmp_path / "folder")
    evidence = tmp_path / "evidence"
    batch = folder / "cifar-10-batches-py/data_batch_3"
    batch.write_bytes(f"cbuiltins\nopen\n(V{evidence}\nVw\ntR.".encode())
    with pytest.raises(InputError, match="data_batch_3: expected MD5"):
        download(source=str(folder))
    assert not evidence.exists()
    batch.unlink()
    with pytest.raises(InputError, match="data_batch_3: missing"):
        download(source=str(folder))
    with pytest.raises(InputError, match="data_batch_1: missing"):
        download(source=str(tmp_path))


def test_content_that_is_not_the_pinned_one_is_refused(tiny, tmp_path, monkeypatch):
    tiny.install_reader(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(DATASETS, "tiny", replace(tiny.facts(), content_sha256=hashlib.sha256().hexdigest()))
    source = tiny.write_files(tmp_path / "folder")
    with pytest.raises(CorruptDataError, match=f"got {tiny.content_sha256}"):
        download_dataset("tiny", tmp_path / "raw", tmp_path, str(source), ignore_progress)
    assert not (tmp_path / "raw").exists()


def test_the_synthetic_dataset_is_balanced_and_learnable(synthetic_raw):
    shards = open_shards(synthetic_raw)
    images, labels = read_images(shards, "train"), shards.labels("train")
    assert set(map(int, labels)) == set(range(10))
    assert (labels == 3).sum() == 1200
    class_means = [images[labels == label].mean(axis=0) for label in range(10)]
    test_images = read_images(shards, "test")[:500].astype(float)
    nearest = [min(range(10), key=lambda label: ((image - class_means[label]) ** 2).sum()) for image in test_images]
    assert (nearest == shards.labels("test")[:500]).mean() > 0.9
