"""What comes in: folders, archives, labels, downloads, the drawn sample and the split."""

from __future__ import annotations

import functools
import http.server
import io
import os
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from assignment5 import data
from assignment5.synthetic import draw_flowers
from common.cli import InputError
from tests.assignment5.helpers import png


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for number, mode in enumerate(("RGB", "L", "RGBA", "P", "1")):
        (tmp_path / f"{mode}.png").write_bytes(png(mode=mode, seed=number))
    images = data.read(tmp_path, 16)
    assert images.pixels.shape == (5, 16, 16, 3)
    assert images.provenance["modes"] == {"RGB": 1, "L": 1, "RGBA": 1, "P": 1, "1": 1}
    assert images.labels is None
    grey = images.pixels[images.names.index("L.png")]
    assert (grey[..., 0] == grey[..., 2]).all()
    Image.new("RGBA", (20, 20), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (data.read_image((tmp_path / "clear.png").read_bytes(), "x", 16)[0] == 255).all()


def test_the_centre_square_is_cut_and_reduced(tmp_path):
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, 16:48] = 200
    stream = io.BytesIO()
    Image.fromarray(wide).save(stream, "PNG")
    assert (data.read_image(stream.getvalue(), "x", 16)[0] == 200).all()


def test_numbered_flowers_get_their_names():
    def flowers(*names):
        return data.Images("flowers", np.zeros((1, 8, 8, 3)), None, [], {}, class_names=names)

    assert data.with_names(flowers("1", "54", "102")).class_names == (
        "pink primrose",
        "sunflower",
        "blackberry lily",
    )
    for names in ((), ("0", "1"), ("1", "103"), ("1", "rose")):
        assert data.with_names(flowers(*names)).class_names == names
    assert len(set(data.NAMES.read_text(encoding="utf-8").splitlines())) == 102


def test_folders_and_labels(tmp_path):
    for kind in ("daisy", "rose"):
        (tmp_path / kind).mkdir()
        for number in range(2):
            seed = number + (9 if kind == "rose" else 0)
            (tmp_path / kind / f"{number}.png").write_bytes(png(seed=seed))
    images = data.read(tmp_path, 16)
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.class_names == ("daisy", "rose")
    parts = data.split_of(images, 0).of(images)
    assert len(parts.labels) == len(parts.train) == 3
    (tmp_path / "labels.csv").write_text("file,label\n0.png,7\n1.png,9\n")
    assert data.read(tmp_path, 16).labels.tolist() == [0, 1, 0, 1]
    (tmp_path / "labels.csv").write_text("file,label\n0.png,7\n")
    with pytest.raises(InputError, match=r"no label for daisy/1.png"):
        data.read(tmp_path, 16)
    (tmp_path / "labels.csv").write_text("name,label\n0.png,7\n")
    with pytest.raises(InputError, match="columns file, label"):
        data.read(tmp_path, 16)


def test_duplicates_are_left_out_and_a_tar_reads_as_its_folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        (images / f"{name}.png").write_bytes(png(seed=seed))
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as archive:
        archive.add(images, "images")
    folder = data.read(images, 16)
    tar = data.read(tmp_path / "images.tar.gz", 16)
    assert folder.names == ["a.png", "b.png"]
    assert folder.provenance["duplicates_left_out"] == 1
    assert np.array_equal(folder.pixels, tar.pixels)


def tar_with(path, name, kind=tarfile.REGTYPE):
    """A tar with one member, which may be a link out of it."""
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(name)
        content = png()
        member.size = len(content) if kind == tarfile.REGTYPE else 0
        member.type = kind
        member.linkname = "/etc/passwd"
        archive.addfile(member, io.BytesIO(content))
    return path


def test_bad_images_and_archives_are_one_line(tmp_path):
    empty, tiny, broken = (tmp_path / name for name in ("empty", "tiny", "broken"))
    for folder in (empty, tiny, broken):
        folder.mkdir()
    (empty / "readme.txt").write_text("no image")
    (tiny / "t.png").write_bytes(png(8))
    (broken / "b.jpg").write_bytes(png()[:60])
    for folder, words in (
        (empty, "holds no image"),
        (tiny, r"t.png has 17 x 8 pixels; at least 16"),
        (broken, r"b.jpg cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            data.read(folder, 16)
    for name in ("../out.png", "/abs.png"):
        with pytest.raises(InputError, match="points out of the archive"):
            data.read(tar_with(tmp_path / "bad.tar", name), 16)
    with pytest.raises(InputError, match="points out of the archive"):
        data.read(tar_with(tmp_path / "link.tar", "link.png", tarfile.SYMTYPE), 16)
    (tmp_path / "cut.tar").write_bytes(tar_with(tmp_path / "whole.tar", "a.png").read_bytes()[:700])
    with pytest.raises(InputError, match=r"cut.tar"):
        data.read(tmp_path / "cut.tar", 16)
    with pytest.raises(InputError, match="does not exist"):
        data.load("folder", tmp_path / "nowhere", 16)
    with pytest.raises(InputError, match="--data"):
        data.load("folder", None, 16)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broken_download_is_refused_and_not_kept(tmp_path, monkeypatch):
    served = tmp_path / "served"
    served.mkdir()
    for name in data.CHECKSUMS:
        (served / name).write_bytes(b"not the archive")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("ADL_DATA_DIR", str(tmp_path / "data"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(InputError, match="checksum"):
            data.download(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    with pytest.raises(InputError, match="cannot be fetched"):
        data.download("http://127.0.0.1:9/")
    assert not [file for file in (tmp_path / "data").rglob("*") if file.is_file()]


def test_drawn_flowers_depend_on_seed_and_number_alone():
    few, kinds = draw_flowers(12, 16, 0)
    assert np.array_equal(draw_flowers(5, 16, 0)[0], few[:5])
    assert kinds.tolist() == [*range(10), 0, 1]
    assert not np.array_equal(draw_flowers(5, 16, 1)[0], few[:5])


def test_the_split_is_disjoint_and_whole():
    parts = data.split(101, 0)
    assert sorted([*parts.train, *parts.validation, *parts.test]) == list(range(101))
    assert (len(parts.train), len(parts.validation)) == (80, 10)
    assert not np.array_equal(data.split(101, 1).train, parts.train)


@pytest.mark.realdata
@pytest.mark.skipif(not os.environ.get("ADL_DATA_DIR"), reason="ADL_DATA_DIR names no data folder")
def test_the_real_flowers():
    images = data.load("flowers", None, 32)
    assert len(images) == 7182
    assert len(np.unique(images.labels)) == 102
    assert 60 < images.pixels.mean() < 160
