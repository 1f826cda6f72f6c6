"""What keeps the page safe: whose files are whose, what is refused, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import zipfile
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("gradio", reason="gradio is not installed")

from served import QUEUE, UPLOAD_LIMIT, free_port

from restore.apps.demo import words
from restore.apps.demo.archives import ArchiveLimits, gather
from restore.apps.demo.desk import Desk
from restore.apps.demo.engines import models_table, ready_models
from restore.apps.demo.guard import alias_of
from restore.apps.demo.jobs import COOKIE
from restore.apps.demo.video import check_clip
from restore.cli.demo_command import demo, open_page
from restore.demo_config import AUTH_VARIABLE, DemoConfig
from restore.errors import InputError, MissingExtraError, OptionError, WorkStopped

ME, OTHER = "m" * 32, "o" * 32


class Client:
    """Speaks HTTP to the page, with a browser's cookie, and without a browser's manners."""

    def __init__(self, site: Any, browser: str) -> None:
        self.host = site.address.removeprefix("http://").rstrip("/")
        self.headers = {"Cookie": f"{COOKIE}={browser}"} if browser else {}

    def ask(self, method: str, path: str, body: Any = None, kind: str = "") -> tuple[int, str]:
        """Status and text of an answer; the path goes out as it is."""
        connection = HTTPConnection(self.host, timeout=60)
        headers = {**self.headers, "Content-Type": kind or "application/json"}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body)
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, text

    def upload(self, name: str, data: bytes) -> tuple[int, str]:
        """Send a file as a form does."""
        head = f'Content-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = b"--x\r\n" + head.encode() + data + b"\r\n--x--\r\n"
        return self.ask("POST", "/gradio_api/upload", body, "multipart/form-data; boundary=x")


@pytest.fixture
def me(site: Any) -> Client:
    return Client(site, ME)


def test_an_upload_is_its_senders_alone_and_shows_no_path(me: Client, site: Any) -> None:
    status, text = me.upload("a.txt", b"mine")
    path = json.loads(text)[0]
    assert status == 200
    assert str(site.desk.root) not in text and path.startswith(alias_of(str(site.desk.root)))
    assert me.ask("GET", f"/gradio_api/file={path}") == (200, "mine")
    assert Client(site, OTHER).ask("GET", f"/gradio_api/file={path}")[0] == 404
    assert Client(site, "").ask("GET", f"/gradio_api/file={path}")[0] == 404


def test_an_upload_above_the_limit_is_refused_in_one_line(me: Client, site: Any) -> None:
    before = set(site.desk.root.iterdir())
    status, text = me.upload("big.png", bytes(UPLOAD_LIMIT + 100_000))
    assert status == 413
    assert json.loads(text)["detail"] == "This is above the maximum allowed size of 2.0 MB."
    assert set(site.desk.root.iterdir()) == before


@pytest.mark.parametrize("sizes", [[30], [15, 15]])
def test_uploads_that_hide_their_length_are_cut_off(
    me: Client, site: Any, sizes: list[int]
) -> None:
    before = set(site.desk.root.iterdir())
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="b.png"\r\n\r\n'
    pieces = [piece for count in sizes for piece in (head, *[bytes(100_000)] * count, b"\r\n")]
    connection = HTTPConnection(me.host, timeout=60)
    headers = {**me.headers, "Content-Type": "multipart/form-data; boundary=x"}
    connection.request(
        "POST", "/gradio_api/upload", body=iter(pieces), headers=headers, encode_chunked=True
    )
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"maximum allowed size" in answer.read()
    connection.close()
    assert set(site.desk.root.iterdir()) == before


def test_a_browser_that_never_opened_the_page_sends_nothing(site: Any) -> None:
    assert Client(site, "").upload("a.txt", b"x")[0] == 403
    assert Client(site, "short").upload("a.txt", b"x")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../etc/passwd",
        "/gradio_api/file={alias}/../../etc/passwd",
        "/gradio_api/file={alias}/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file={upload}/../../../etc/passwd",
        "/gradio_api/file={upload}%2f..%2f..%2f..%2fetc%2fpasswd",
        "/gradio_api/file={upload}%00.png",
        "/gradio_api/file={root}/a.txt",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/monitoring",
        "/monitoring/summary",
        "/docs",
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/custom_component/a/client/b/c",
    ],
)
def test_no_address_leads_out_of_the_page(me: Client, site: Any, path: str) -> None:
    upload = json.loads(me.upload("a.txt", b"mine")[1])[0]
    root = str(site.desk.root)
    status, text = me.ask("GET", path.format(alias=alias_of(root), upload=upload, root=root))
    assert status in (400, 403, 404)
    assert "root:" not in text and root not in text and "Traceback" not in text


@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1:1/x.png", "../a", "{theirs}"])
@pytest.mark.parametrize("route", ["queue/join", "run/predict"])
def test_no_job_takes_a_file_that_was_not_sent_by_the_same_browser(
    me: Client, site: Any, path: str, route: str
) -> None:
    theirs = json.loads(Client(site, OTHER).upload("b.txt", b"theirs")[1])[0]
    file = {"path": path.format(theirs=theirs), "meta": {"_type": "gradio.FileData"}}
    body = {"data": [[file]], "fn_index": 0, "session_hash": "s", "event_data": None}
    status, text = me.ask("POST", f"/gradio_api/{route}", body)
    assert (status, json.loads(text)["detail"]) == (403, "There is no such file, or not any more.")


def test_the_queue_has_an_end_and_goes_on_after_it(me: Client, site: Any) -> None:
    page = json.loads(me.ask("GET", "/config")[1])
    button = next(c["id"] for c in page["components"] if c["props"].get("elem_id") == "photo-run")
    event = next(d["id"] for d in page["dependencies"] if [button, "click"] in d["targets"])
    inputs = [None, "compact-fast", 4, 0, 1, "auto"]

    def join(session: int) -> int:
        body = {"data": inputs, "fn_index": event, "session_hash": f"queue{session}"}
        return me.ask("POST", "/gradio_api/queue/join", body)[0]

    with site.desk.device:  # nothing gets its turn
        answers = [join(session) for session in range(QUEUE + 3)]
    assert answers[:QUEUE] == [200] * QUEUE and answers[-1] == 503
    end = time.monotonic() + 60
    while (status := join(99)) == 503 and time.monotonic() < end:
        time.sleep(0.2)
    assert status == 200


def test_other_methods_and_bodies_are_refused(me: Client) -> None:
    assert me.ask("POST", "/gradio_api/component_server", {})[0] == 404
    assert me.ask("POST", "/gradio_api/queue/join", b"{")[0] == 400
    assert me.ask("POST", "/gradio_api/queue/join", b"[" * 100_000)[0] == 400
    assert me.ask("POST", "/gradio_api/queue/join", bytes(2_000_000))[0] == 413


def test_nothing_may_come_from_elsewhere(site: Any) -> None:
    connection = HTTPConnection(Client(site, ME).host, timeout=60)
    connection.request("GET", "/")
    answer = connection.getresponse()
    policy = answer.headers["content-security-policy"]
    cookie = answer.headers["set-cookie"]
    connection.close()
    assert policy.startswith("default-src 'self';") and "http" not in policy
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "root").mkdir()
    return Desk(tmp_path / "root")


def test_a_pages_job_goes_with_the_page_and_an_upload_with_its_last_owner(desk: Desk) -> None:
    (desk.root / "upload").mkdir()
    for browser, session in ((ME, "1"), (OTHER, "2")):
        desk.enter(session, browser)
        desk.claim("upload", browser)
    mine, theirs = desk.job("1", ME, "photo"), desk.job("2", OTHER, "photo")
    desk.leave("1")
    assert not mine.folder.exists() and mine.stopped
    assert theirs.folder.exists() and not theirs.stopped
    assert not desk.owns("upload/a.png", ME) and desk.owns("upload/a.png", OTHER)
    desk.leave("2")
    assert list(desk.root.iterdir()) == []


def test_a_browser_with_another_page_keeps_its_uploads(desk: Desk) -> None:
    (desk.root / "upload").mkdir()
    desk.enter("1", ME)
    desk.enter("2", ME)  # as when a page is loaded again, before the old connection is noticed
    desk.claim("upload", ME)
    desk.leave("1")
    assert desk.owns("upload/a.png", ME) and (desk.root / "upload").exists()


@pytest.mark.parametrize("error", [WorkStopped, ValueError, KeyboardInterrupt])
def test_work_that_ends_badly_leaves_no_file(desk: Desk, error: type[BaseException]) -> None:
    job = desk.job("1", ME, "photo")
    with pytest.raises(error), job.work():
        (job.folder / "half").touch()
        raise error
    assert not job.folder.exists()


def test_a_page_that_is_left_during_the_work_is_cleaned_up_after_it(desk: Desk) -> None:
    job = desk.job("1", ME, "photo")
    with job.work():
        desk.leave("1")
        assert job.folder.exists()  # its files are open
        with pytest.raises(WorkStopped):
            job.tell(0.5, "half")
    assert not job.folder.exists()


def test_one_job_has_the_device_and_one_that_waits_can_be_stopped(desk: Desk) -> None:
    first, second = desk.job("1", ME, "photo"), desk.job("2", OTHER, "photo")
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(WorkStopped), desk.turn(second):
            pass
        ended.set()

    with desk.turn(first):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not ended.wait(0.2)
        desk.stop("2", "photo")
        assert ended.wait(10)
        thread.join()
    assert not desk.device.locked()


def test_what_nobody_shows_is_swept_away(desk: Desk) -> None:
    for name in ("old", "shown", "new"):
        (desk.root / name).mkdir()
    for name in ("old", "shown"):
        os.utime(desk.root / name, (1, 1))
    desk.claim("old", OTHER)
    desk.claim("shown", ME)
    desk.enter("1", ME)
    desk.sweep(seconds=60)
    assert {path.name for path in desk.root.iterdir()} == {"shown", "new"}


def zip_of(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    """An archive; `mode` is the kind of its members, as Unix numbers them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return path


def test_files_and_archives_come_into_one_folder(tmp_path: Path) -> None:
    plain = tmp_path / "b.png"
    plain.write_bytes(b"b")
    archive = zip_of(tmp_path / "a.zip", {"set/sub/a.png": b"a", "set/c.png": b"c"})
    gather([archive, plain], tmp_path / "out", limits=ArchiveLimits())
    assert (tmp_path / "out/sub/a.png").read_bytes() == b"a"
    assert (tmp_path / "out/c.png").read_bytes() == b"c"
    assert (tmp_path / "out/b.png").read_bytes() == b"b"


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("../evil.png", 0, "not a file inside it"),
        ("a/../../evil.png", 0, "not a file inside it"),
        ("/evil.png", 0, "not a file inside it"),
        ("..\\evil.png", 0, "not a file inside it"),
        ("C:\\evil.png", 0, "not a file inside it"),
        ("link.png", stat.S_IFLNK | 0o777, "not a file inside it"),
        ("big.png", 0, "unpacks to more than"),
        ("a" * 300 + ".png", 0, "cannot be unpacked"),
    ],
)
def test_a_hostile_archive_is_refused(tmp_path: Path, name: str, mode: int, reason: str) -> None:
    # A megabyte of zeros takes a kilobyte in an archive.
    data = bytes(1 << 20) if name == "big.png" else b"/etc/passwd"
    archive = zip_of(tmp_path / "a.zip", {name: data}, mode)
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=reason):
        gather([archive], tmp_path / "in/out", limits=ArchiveLimits(bytes=1 << 19))
    assert not list(tmp_path.rglob("evil.png"))
    assert sum(path.stat().st_size for path in (tmp_path / "in").rglob("*.png")) <= 1 << 19


def test_archives_with_too_many_files_twice_the_same_or_none_are_refused(tmp_path: Path) -> None:
    many = zip_of(tmp_path / "many.zip", {f"{index}.png": b"" for index in range(11)})
    with pytest.raises(InputError, match="holds 11 files, more than 10"):
        gather([many], tmp_path / "1", limits=ArchiveLimits(files=10))
    twin = zip_of(tmp_path / "twin.zip", {"a.png": b"1"})
    with pytest.raises(InputError, match=r"two files are named 'a\.png'"):
        gather([twin, twin], tmp_path / "2", limits=ArchiveLimits())
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(InputError, match="cannot be unpacked"):
        gather([broken], tmp_path / "3", limits=ArchiveLimits())


def test_paths_do_not_come_into_what_is_said() -> None:
    say = words.without_paths
    assert say("'/home/me/in/a.png' is damaged", root="") == "'a.png' is damaged"
    assert say("see https://a.org/b/c and ~/.cache/x/y.bin") == "see https://a.org/b/c and y.bin"
    assert say("half/whole, 1/2 and 3 / 4") == "half/whole, 1/2 and 3 / 4"
    assert say("/tmp/r oot/T0k/a b.png: bad", root="/tmp/r oot") == "a b.png: bad"


def test_clips_above_the_limits_are_refused(clip: Path) -> None:
    assert check_clip(clip, DemoConfig())[0].width == 64
    with pytest.raises(InputError, match=r"clip\.mp4 has frames of 64x48"):
        check_clip(clip, DemoConfig(max_frame=64 * 48 - 1))
    with pytest.raises(InputError, match="longer than the 0:02"):
        check_clip(clip, DemoConfig(max_seconds=2))


def test_models_that_run_are_offered_and_the_others_say_what_they_lack() -> None:
    assert ready_models(clips=False)[:2] == ["compact", "compact-fast"]
    table = models_table()
    assert "run `restore models pull osediff`" in table
    assert str(Path.home()) not in table


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("auth", "me", "not USER:PASSWORD"),
        ("auth", ":secret", "not USER:PASSWORD"),
        ("port", 0, "port 0 is not possible"),
        ("max_upload", "lots", "size 'lots' is not possible"),
        ("max_pixels", 0, "max pixels 0 is not possible"),
        ("queue", 0, "queue 0 is not possible"),
        ("max_seconds", 0.0, "max seconds 0 is not possible"),
        ("model", "nosuch", "model 'nosuch' is unknown"),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: Any, reason: str) -> None:
    with pytest.raises(OptionError, match=reason) as caught:
        DemoConfig(**{field: value})
    assert "secret" not in str(caught.value)


def test_a_missing_gradio_names_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("restore.cli.demo_command.importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[demo\]'"):
        open_page(DemoConfig())


def test_only_this_machine_reaches_the_page_unless_told() -> None:
    assert DemoConfig().host == "127.0.0.1"
    assert {option.name: option.default for option in demo.params}["host"] == "127.0.0.1"


def test_the_command_asks_for_the_password_and_leaves_nothing_when_it_is_stopped(
    tmp_path: Path,
) -> None:
    abandoned = tmp_path / "restore-demo-killed"
    abandoned.mkdir()
    owner = {"pid": 2**22 + 1, "host": socket.gethostname()}  # above what Linux gives out
    (abandoned / "lock").write_text(json.dumps(owner))
    port = free_port()
    environment = {**os.environ, AUTH_VARIABLE: "me:secret", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "restore", "demo", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = cast("Any", process.stderr).readline()
            assert said.startswith(f"http://127.0.0.1:{port}/")
            assert len(list(tmp_path.glob("restore-demo-*"))) == 1
            client = Client(SimpleSite(f"http://127.0.0.1:{port}/"), ME)
            assert '"auth_required":true' in client.ask("GET", "/")[1].replace(": ", ":")
            assert client.ask("GET", "/config")[0] == 401
            assert client.upload("a.txt", b"x")[0] == 401
            form = "application/x-www-form-urlencoded"
            for password, status in (("wrong", 400), ("secret", 200)):
                body = f"username=me&password={password}".encode()
                assert client.ask("POST", "/login", body, form)[0] == status
        finally:
            process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            process.wait(60)
    assert time.monotonic() - begin < 30
    assert list(tmp_path.glob("restore-demo-*")) == []


class SimpleSite:
    """An address alone."""

    def __init__(self, address: str) -> None:
        self.address = address
