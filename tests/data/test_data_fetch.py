"""Downloads from a server on this machine: resumed after a cut, checked before they have a name,
never half there.
"""

import hashlib
import http.server
import io
import tarfile
import threading

import pytest

from privfl.core import ConfigError, DataCorrupt, DataMissing
from privfl.data import ORIGINS, Origin, Remote, fetch, present

BODY = bytes(range(256)) * 4000


class Server(http.server.BaseHTTPRequestHandler):
    """Serves ``files``; ``cut`` ends a path's answer after so many bytes, once; ``deaf`` ignores
    ranges.
    """

    def do_GET(self):
        shop = self.server
        shop.asked.append((self.path, self.headers.get("Range")))
        body = shop.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = (
            int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if "Range" in self.headers and not shop.deaf
            else 0
        )
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : shop.cut.pop(self.path, len(body))])

    def log_message(self, *_):
        pass


@pytest.fixture
def shop():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.files, server.cut, server.asked, server.deaf = {"/toy.bin": BODY}, {}, [], False
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def remote(shop, file="toy/toy.bin", paths=("/toy.bin",), body=BODY, **more):
    addresses = tuple(shop.address + path for path in paths)
    return Remote(
        file,
        addresses,
        more.pop("size", len(body)),
        more.pop("sha256", hashlib.sha256(body).hexdigest()),
        **more,
    )


def origins(*remotes):
    needs = tuple(
        member
        for remote in remotes
        for member in remote.members or (remote.file.removesuffix(".gz"),)
    )
    return {"toy": Origin("public domain", "http://127.0.0.1/", remotes, needs)}


def left(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_file_arrives_whole_under_its_name_and_progress_ends_at_its_size(shop, tmp_path):
    seen = []
    known = origins(remote(shop))
    assert not present("toy", tmp_path, known)
    assert fetch("toy", tmp_path, lambda *step: seen.append(step), known) == (
        tmp_path / "toy" / "toy.bin",
    )
    assert (tmp_path / "toy" / "toy.bin").read_bytes() == BODY
    assert left(tmp_path) == ["toy/toy.bin"]
    assert seen[-1] == ("toy/toy.bin", len(BODY), len(BODY))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert present("toy", tmp_path, known)


def test_a_cut_download_has_no_name_yet_and_goes_on_where_it_stopped(shop, tmp_path):
    shop.cut["/toy.bin"] = 300_000
    with pytest.raises(
        DataMissing, match=r"ended after 300,000 of 1,024,000 bytes.*privfl data fetch toy"
    ):
        fetch("toy", tmp_path, origins=origins(remote(shop)))
    assert left(tmp_path) == ["toy/toy.bin.part"]
    fetch("toy", tmp_path, origins=origins(remote(shop)))
    assert [asked for _, asked in shop.asked] == [None, "bytes=300000-"]
    assert (tmp_path / "toy" / "toy.bin").read_bytes() == BODY
    assert left(tmp_path) == ["toy/toy.bin"]


def test_a_server_that_ignores_ranges_begins_anew(shop, tmp_path):
    shop.cut["/toy.bin"] = 300_000
    with pytest.raises(DataMissing):
        fetch("toy", tmp_path, origins=origins(remote(shop)))
    shop.deaf = True
    fetch("toy", tmp_path, origins=origins(remote(shop)))
    assert (tmp_path / "toy" / "toy.bin").read_bytes() == BODY


def test_the_next_address_goes_on_with_what_the_first_one_gave(shop, tmp_path):
    shop.files["/mirror.bin"] = BODY
    shop.cut["/toy.bin"] = 1000
    fetch(
        "toy",
        tmp_path,
        origins=origins(remote(shop, paths=("/gone.bin", "/toy.bin", "/mirror.bin"))),
    )
    assert shop.asked == [("/gone.bin", None), ("/toy.bin", None), ("/mirror.bin", "bytes=1000-")]
    assert (tmp_path / "toy" / "toy.bin").read_bytes() == BODY


@pytest.mark.parametrize("lie", [{"sha256": "0" * 64}, {"size": len(BODY) - 1}])
def test_wrong_bytes_are_refused_and_removed(shop, tmp_path, lie):
    with pytest.raises(
        DataCorrupt, match=r"gave 1,024,000 bytes with SHA-256 .*the download was removed"
    ):
        fetch("toy", tmp_path, origins=origins(remote(shop, **lie)))
    assert left(tmp_path) == []


def test_a_part_of_something_else_is_refused_removed_and_then_fetched_afresh(shop, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.bin.part").write_bytes(b"stale" * 10)
    with pytest.raises(DataCorrupt):
        fetch("toy", tmp_path, origins=origins(remote(shop)))
    fetch("toy", tmp_path, origins=origins(remote(shop)))
    assert (tmp_path / "toy" / "toy.bin").read_bytes() == BODY


def test_a_whole_part_is_checked_and_named_without_asking_again(shop, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.bin.part").write_bytes(BODY)
    fetch("toy", tmp_path, origins=origins(remote(shop)))
    assert left(tmp_path) == ["toy/toy.bin"]
    assert shop.asked == []


def test_files_that_are_there_in_either_form_are_left_alone(shop, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.bin.gz").write_bytes(b"mine")
    assert fetch("toy", tmp_path, origins=origins(remote(shop))) == (
        tmp_path / "toy" / "toy.bin.gz",
    )
    assert shop.asked == []


def test_no_answer_is_an_error_that_names_every_address(tmp_path, shop):
    with pytest.raises(
        DataMissing, match=r"/a: HTTP Error 404.*/b: HTTP Error 404.*put the file into"
    ):
        fetch("toy", tmp_path, origins=origins(remote(shop, paths=("/a", "/b"))))
    assert left(tmp_path) == []


def test_an_address_that_is_no_web_address_is_never_opened(tmp_path, shop):
    secret = tmp_path / "secret"
    secret.write_bytes(BODY)
    local = Remote("toy/toy.bin", (secret.as_uri(),), len(BODY), hashlib.sha256(BODY).hexdigest())
    with pytest.raises(ConfigError, match="neither an https nor an http address"):
        fetch("toy", tmp_path, origins=origins(local))


def test_a_folder_that_cannot_be_made_is_said_in_words(tmp_path, shop):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataMissing, match="set PRIVFL_DATA to a folder that you can write"):
        fetch("toy", tmp_path / "file", origins=origins(remote(shop)))


def tar(**members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return packed.getvalue()


def test_of_an_archive_only_the_named_members_stay(shop, tmp_path):
    shop.files["/toy.tar.gz"] = body = tar(
        toy__one=b"1", toy__two=b"22", toy__other=b"x", evil=b"!"
    )
    known = origins(
        remote(shop, "toy/toy.tar.gz", ("/toy.tar.gz",), body, members=("toy/one", "toy/two"))
    )
    assert fetch("toy", tmp_path, origins=known) == (
        tmp_path / "toy" / "one",
        tmp_path / "toy" / "two",
    )
    assert left(tmp_path) == ["toy/one", "toy/two"]
    assert (tmp_path / "toy" / "two").read_bytes() == b"22"
    assert present("toy", tmp_path, known)


@pytest.mark.parametrize(
    "body", [tar(toy__one=b"1"), b"no archive at all"], ids=["one member missing", "no archive"]
)
def test_an_archive_without_its_members_is_refused_and_leaves_no_half_file(shop, tmp_path, body):
    shop.files["/toy.tar.gz"] = body
    known = origins(remote(shop, "toy/toy.tar.gz", ("/toy.tar.gz",), body, members=("toy/two",)))
    with pytest.raises(DataCorrupt, match="cannot be unpacked"):
        fetch("toy", tmp_path, origins=known)
    assert left(tmp_path) == []


def test_the_embedded_set_needs_no_download_and_an_unknown_one_is_named(tmp_path):
    assert fetch("digits", tmp_path) == ()
    with pytest.raises(ConfigError, match="did you mean 'mnist'"):
        fetch("mnsit", tmp_path)


@pytest.mark.parametrize("name", sorted(ORIGINS))
def test_what_is_fetched_is_what_loading_needs(name):
    fetched = {
        file.removesuffix(".gz")
        for remote in ORIGINS[name].files
        for file in remote.members or (remote.file,)
    }
    assert set(ORIGINS[name].needs) <= fetched
    for remote in ORIGINS[name].files:
        assert len(bytes.fromhex(remote.sha256)) == 32
        assert remote.addresses
        assert remote.size > 0


@pytest.mark.parametrize("name", sorted(ORIGINS.keys() - {"digits", "cifar10"}))
def test_the_files_on_this_machine_have_the_checksums_of_the_catalogue(name):
    from privfl.data import data_folder
    from privfl.data.files import locate, read

    if not present(name):
        pytest.skip(f"data set {name} is not on this machine")
    for remote in ORIGINS[name].files:
        path = locate(data_folder() / remote.file)
        if path is None:
            continue
        body = path.read_bytes() if path.name == (data_folder() / remote.file).name else read(path)
        assert (len(body), hashlib.sha256(body).hexdigest()) == (remote.size, remote.sha256)
