import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from pipeline.errors import FetchError
from pipeline.sources.fetch import RETRIES, fetch_archive
from pipeline.sources.receive import Timeouts
from tests.helpers.file_server import FileServer, response_head, serve

# One request and its retries, none of which brings a byte.
NO_PROGRESS = [0] * (1 + RETRIES)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def start_of_range(request):
    return int(request["Range"].removeprefix("bytes=").removesuffix("-"))


def test_archive_is_fetched_only_once(fetch, server, tiny):
    assert fetch(server.url) == tiny.archive
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 1


def test_damaged_archive_is_fetched_again(fetch, server, tiny, tmp_path):
    fetch(server.url)
    (tmp_path / "archives/tiny.tar.gz").write_bytes(b"x" * len(tiny.archive))
    assert fetch(server.url) == tiny.archive


def test_concurrent_downloads_fetch_once(server, tiny, tmp_path):
    server.pause = 0.005

    def fetch(_):
        return fetch_archive(tiny.facts().archive, [server.url], tmp_path, lambda done, total: None).read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(fetch, range(4))] == [tiny.archive] * 4
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.tar.gz"]
    assert len(server.requests) == 1


def test_progress_ends_at_size_of_archive(server, tiny, tmp_path):
    calls = []
    fetch_archive(tiny.facts().archive, [server.url], tmp_path, lambda *call: calls.append(call))
    assert calls == sorted(calls)
    assert calls[-1] == (len(tiny.archive), len(tiny.archive))


def test_broken_connection_is_resumed(fetch, server, tiny):
    server.cuts = [70_000, 70_000, 1000, 0, 1000, 30_000]
    assert fetch(server.url) == tiny.archive
    assert [request.get("If-Range") for request in server.requests] == [None, *['"v1"'] * 6]
    # At most the chunk in flight is fetched twice.
    assert server.bytes_sent <= len(tiny.archive) + 6 * 8192


def test_next_run_resumes_partial_download(fetch, server, tiny, tmp_path):
    server.cuts = [70_000, *NO_PROGRESS]
    with pytest.raises(FetchError, match="the connection broke"):
        fetch(server.url)
    num_bytes = (tmp_path / "archives/tiny.tar.gz.part").stat().st_size
    assert num_bytes > 0
    assert fetch(server.url) == tiny.archive
    assert start_of_range(server.requests[-1]) == num_bytes
    assert server.requests[-1]["If-Range"] == '"v1"'


def test_next_mirror_finishes_partial_download(fetch, server, tiny):
    with serve(FileServer(tiny.archive, cuts=[70_000, *NO_PROGRESS], etag='"elsewhere"')) as first:
        assert fetch(first.url, server.url) == tiny.archive
    assert "Range" in server.requests[0]
    assert "If-Range" not in server.requests[0]


def test_changed_file_is_fetched_from_start(fetch, server, tiny):
    server.content, server.etag, server.cuts = b"x" * len(tiny.archive), '"old"', [70_000, *NO_PROGRESS]
    with pytest.raises(FetchError):
        fetch(server.url)
    server.content, server.etag = tiny.archive, '"new"'
    assert fetch(server.url) == tiny.archive
    assert server.requests[-1]["If-Range"] == '"old"'


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_date_shows_change_without_strong_etag(tag, fetch, server, tiny):
    tags = {"ETag": tag} if tag else {}
    old, new = ({"Last-Modified": f"Tue, {day} Sep 2026 00:00:00 GMT"} for day in ("01", "08"))
    server.etag, server.headers = None, tags | old
    server.content, server.cuts = b"x" * len(tiny.archive), [70_000, *NO_PROGRESS]
    with pytest.raises(FetchError):
        fetch(server.url)
    server.content, server.headers = tiny.archive, tags | new
    num_requests = len(server.requests)
    assert fetch(server.url) == tiny.archive
    assert server.requests[-1]["If-Range"] == old["Last-Modified"]
    assert len(server.requests) == num_requests + 1


def test_part_of_changed_file_is_discarded_at_once(fetch, server, tiny, tmp_path):
    server.content, server.etag, server.cuts = b"x" * len(tiny.archive), '"old"', [70_000, *NO_PROGRESS]
    with pytest.raises(FetchError):
        fetch(server.url)
    server.content, server.etag, server.cuts = tiny.archive, '"new"', [100, *NO_PROGRESS]
    with pytest.raises(FetchError):
        fetch(server.url)
    assert (tmp_path / "archives/tiny.tar.gz.part").read_bytes() == tiny.archive[:100]


@pytest.mark.parametrize("extra", [0, 1])
def test_full_length_part_with_wrong_bytes_is_replaced(extra, fetch, server, tiny, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives/tiny.tar.gz.part").write_bytes(b"x" * (len(tiny.archive) + extra))
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 1


def test_undetected_change_is_fetched_once_more(server, tiny, tmp_path):
    server.content, server.etag, server.cuts = b"x" * len(tiny.archive), None, [70_000]

    def change(done, total):
        server.content = tiny.archive

    path = fetch_archive(tiny.facts().archive, [server.url], tmp_path, change, Timeouts(backoff=0))
    assert path.read_bytes() == tiny.archive
    assert ["Range" in request for request in server.requests] == [False, True, False]


def test_wrong_bytes_do_not_spoil_next_mirror(fetch, server, tiny):
    with serve(FileServer(b"x" * len(tiny.archive), cuts=[70_000, *NO_PROGRESS])) as wrong:
        assert fetch(wrong.url, server.url) == tiny.archive
    assert ["Range" in request for request in server.requests] == [True, False]


def test_server_without_ranges_starts_over(fetch, server, tiny):
    server.supports_range, server.etag = False, None
    server.cuts = [70_000]
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 2


def test_server_without_progress_is_abandoned(fetch, server):
    server.supports_range = False
    server.cuts = [70_000] * 9
    with pytest.raises(FetchError, match="the connection broke"):
        fetch(server.url)
    assert len(server.requests) == 2 + RETRIES


def test_early_break_without_ranges_keeps_part(fetch, server, tiny):
    with (
        serve(FileServer(tiny.archive, cuts=[200_000, *NO_PROGRESS])) as first,
        serve(FileServer(tiny.archive, cuts=[9000] * 9, supports_range=False)) as second,
    ):
        assert fetch(first.url, second.url, server.url) == tiny.archive
    assert start_of_range(server.requests[0]) > 190_000


def test_login_page_keeps_part(fetch, server, tiny):
    with (
        serve(FileServer(tiny.archive, cuts=[200_000, *NO_PROGRESS])) as first,
        serve(FileServer(b"<html>Please log in</html>", supports_range=False)) as portal,
    ):
        assert fetch(first.url, portal.url, server.url) == tiny.archive
    assert "Range" in server.requests[0]


def test_content_encoding_is_ignored(fetch, server, tiny):
    server.headers = {"Content-Encoding": "x-gzip"}
    assert fetch(server.url) == tiny.archive


def test_busy_server_is_asked_again(fetch, server, tiny):
    server.statuses = [503, 429, 500]
    assert fetch(server.url) == tiny.archive
    assert len(server.requests) == 4


def test_each_retry_waits_twice_as_long(fetch, server, tiny):
    server.statuses = [503] * RETRIES
    start = time.monotonic()
    assert fetch(server.url, timeouts=Timeouts(backoff=0.1)) == tiny.archive
    assert 0.7 <= time.monotonic() - start < 5


def test_retry_after_is_ignored(fetch, server, tiny):
    with serve(FileServer(tiny.archive, statuses=[429] * 9, headers={"Retry-After": "3600"})) as busy:
        with pytest.raises(FetchError, match="429 Too Many Requests"):
            fetch(busy.url)
        assert len(busy.requests) == 1 + RETRIES
        assert fetch(busy.url, server.url) == tiny.archive


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
def test_failing_mirror_is_named_and_skipped(fault, reason, fetch, server, tiny):
    with serve(FileServer(tiny.archive)) as bad:
        for name, value in fault.items():
            setattr(bad, name, value)
        with pytest.raises(FetchError, match=rf"{bad.url}: .*{reason}"):
            fetch(bad.url)
        bad.statuses = fault.get("statuses", []) and [404]
        assert fetch(bad.url, server.url) == tiny.archive


def test_endless_body_is_refused(fetch, server, tmp_path):
    endless = b"".join(b"%x\r\n%b\r\n" % (len(server.content), server.content) for _ in range(3))
    headers = {"Transfer-Encoding": "chunked", "Content-Length": str(len(server.content))}
    server.content, server.headers = endless, headers
    with pytest.raises(FetchError, match="the server sends more"):
        fetch(server.url)
    assert not (tmp_path / "archives/tiny.tar.gz").exists()


@pytest.mark.parametrize("part", [0, 0.5, 1])
def test_flipped_bit_is_refused_and_mirror_skipped(part, fetch, server, tiny, tmp_path):
    content = bytearray(tiny.archive)
    content[round(part * (len(content) - 1))] ^= 0x10
    with serve(FileServer(bytes(content))) as bad:
        with pytest.raises(FetchError, match=f"{bad.url}: expected SHA-256"):
            fetch(bad.url)
        assert names_in(tmp_path / "archives") == []
        assert fetch(bad.url, server.url) == tiny.archive


def test_file_with_extra_byte_is_refused(fetch, server, tiny):
    server.content += b"x"
    with pytest.raises(FetchError, match="expected Content-Length"):
        fetch(server.url)


def test_response_of_unknown_length_is_refused(fetch, server):
    server.answer = lambda wfile, over: wfile.write(b"HTTP/1.1 200 OK\r\n\r\n<html>Please log in</html>")
    with pytest.raises(FetchError, match="expected Content-Length: [0-9]+, got None"):
        fetch(server.url)


def test_password_in_url_is_neither_printed_nor_stored(fetch, server, tmp_path):
    server.cuts = [100, *NO_PROGRESS]
    with pytest.raises(FetchError) as raised:
        fetch(server.url.replace("//", "//someone:secret@"))
    assert "secret" not in str(raised.value)
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "archives").iterdir())


def test_server_text_is_printed_as_one_short_line(fetch, server):
    server.answer = lambda wfile, over: wfile.write(response_head("404 \x1b[31mred\x07" + "!" * 5000, Content_Length=0))
    with pytest.raises(FetchError) as raised:
        fetch(server.url)
    line = str(raised.value).splitlines()[-1]
    assert line.isprintable()
    assert len(line) < 500


def test_unreachable_host_is_named_with_reason(fetch):
    with pytest.raises(FetchError, match="http://127.0.0.1:9/tiny.tar.gz: .*refused"):
        fetch("http://127.0.0.1:9/tiny.tar.gz")


def test_unknown_host_is_named_with_reason(fetch):
    with pytest.raises(FetchError, match="http://nowhere.invalid/x: .*(resolve|name)"):
        fetch("http://nowhere.invalid/x")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("proxy", ["http://someone:secret@127.0.0.1:9", "127.0.0.1:9"])
def test_dead_proxy_is_named_with_reason(scheme, proxy, fetch, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    with pytest.raises(FetchError, match=f"{scheme}://example.com/x: the proxy 127.0.0.1:9 can't .*refused"):
        fetch(f"{scheme}://example.com/x")


def test_refusal_of_a_proxy_is_named(fetch, server, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("https_proxy", server.url)
    with pytest.raises(FetchError, match=rf"the proxy {urlsplit(server.url).netloc} can't be used: 501 Unsupported"):
        fetch("https://example.com/x")
