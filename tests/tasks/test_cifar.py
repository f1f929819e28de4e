"""CIFAR-FS and FC100: from mosaics, from torchvision's files, downloaded; and every way in which that can fail."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from metadarts.core.errors import DataError
from metadarts.core.rng import Key
from metadarts.tasks import EpisodeSampler, nearest_class_mean, open_source
from metadarts.tasks.sources import cifar
from metadarts.tasks.sources.cifar import class_names, read_mosaic

SIZES = {"cifar-fs": (64, 16, 20), "fc100": (60, 20, 20)}


@pytest.fixture(scope="module")
def mosaics(data_dir):
    folder = data_dir / "cifar100"
    if not folder.is_dir():
        pytest.skip(f"no cifar100 in {data_dir}")
    return folder


@pytest.fixture(scope="module")
def sources(mosaics, tmp_path_factory):
    """Both splits of the real images, decoded into a cache of this file's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METADARTS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {name: open_source(name, mosaics) for name in SIZES}


@pytest.mark.parametrize("name", SIZES)
def test_counts(sources, name):
    source = sources[name]
    assert tuple(len(source.split[split]) for split in ("train", "val", "test")) == SIZES[name]
    assert source.images.shape == (60000, 3, 32, 32)
    assert {len(entry.rows) for entry in source.classes} == {600}


@pytest.mark.parametrize(("name", "field"), [("cifar-fs", "cifarfs_split_of_class"), ("fc100", "fc100_split_of_class")])
def test_the_package_splits_classes_as_the_data_say(sources, mosaics, name, field):
    facts = json.loads((mosaics / "classes.json").read_text())
    assert [entry.name for entry in sources[name].classes] == facts["class_names"] == list(class_names())
    split_of = {number: split for split, numbers in sources[name].split.items() for number in numbers}
    assert [split_of[number] for number in range(100)] == [("train", "val", "test")[code] for code in facts[field]]


def test_no_superclass_is_in_two_splits_of_fc100(sources, mosaics):
    coarse = json.loads((mosaics / "classes.json").read_text())["coarse_of_class"]
    groups = [{coarse[number] for number in numbers} for numbers in sources["fc100"].split.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 20


def test_pixels_are_those_of_the_stated_rule(sources, mosaics):
    for name, place in (("apple", "00_apple.webp"), ("worm", "99_worm.webp")):
        picture = np.asarray(Image.open(mosaics / place).convert("RGB"))
        tiles = picture.reshape(24, 32, 25, 32, 3).swapaxes(1, 2).reshape(600, 32, 32, 3)
        entry = next(entry for entry in sources["cifar-fs"].classes if entry.name == name)
        np.testing.assert_array_equal(sources["cifar-fs"].images[entry.rows], tiles.transpose(0, 3, 1, 2))


def test_both_splits_share_the_decoded_images(sources):
    files = {source.images.filename for source in sources.values()}
    assert len(files) == 1


@pytest.mark.parametrize("name", SIZES)
def test_scale_is_of_the_training_classes(sources, name):
    source = sources[name]
    rows = np.concatenate([source.classes[number].rows for number in source.split["train"]])
    some = source.images[rows[::10]] / 255.0
    np.testing.assert_allclose(source.mean, some.mean((0, 2, 3)), atol=0.01)
    np.testing.assert_allclose(source.std, some.std((0, 2, 3)), atol=0.01)
    assert sources["cifar-fs"].mean != sources["fc100"].mean


def test_digests(sources):
    assert {name: source.content_sha256 for name, source in sources.items()} == {
        "cifar-fs": "a24bfef988300aaeea259e1985c29f0d1bb976fac9d732dc40c95ec91cdbb93c",
        "fc100": "9ee190e3e7ded279dcb1fdf9b0d847b6951190ea8426c414bc073db118acbc97",
    }


@pytest.mark.parametrize("name", SIZES)
def test_nearest_class_mean(sources, name, record_property):
    batch = EpisodeSampler(sources[name], "test", 5, 1, 15).sample(Key.from_seed(1), 150)
    accuracy = nearest_class_mean(batch).mean().item()
    record_property(f"nearest class mean, {name} test, 150 episodes of 5-way 1-shot", round(accuracy, 3))
    assert 0.22 < accuracy < 0.40


def make_mosaics(folder, noise, leave_out=""):
    """Small stand-ins are not possible: a mosaic's size is fixed. All classes show the same picture."""
    folder.mkdir()
    picture = Image.fromarray(noise)
    picture.save(folder / "00_apple.webp", lossless=True, method=0)
    content = (folder / "00_apple.webp").read_bytes()
    for number, name in enumerate(class_names()):
        if name != leave_out:
            (folder / f"{number:02d}_{name}.webp").write_bytes(content)
    return folder


@pytest.fixture
def flat():
    return np.full((24 * 32, 25 * 32, 3), 90, np.uint8)


def test_read_mosaic_goes_row_by_row(tmp_path, flat):
    flat[32:64, :32] = 10  # second row, first column: image 25
    flat[:32, 32:64, 2] = 200  # first row, second column: image 1
    Image.fromarray(flat).save(tmp_path / "00_apple.webp", lossless=True)
    images = read_mosaic(tmp_path / "00_apple.webp")
    assert images.shape == (600, 3, 32, 32)
    assert np.unique(images[25]).tolist() == [10]
    assert images[1, :, 5, 5].tolist() == [90, 90, 200]
    assert np.unique(np.delete(images, [1, 25], axis=0)).tolist() == [90]


def test_incomplete_mosaics(tmp_path, flat, cache_folder):
    folder = make_mosaics(tmp_path / "cifar100", flat, leave_out="bee")
    with pytest.raises(DataError, match=r"cifar100 lacks 06_bee\.webp; expected 00_apple\.webp to 99_worm\.webp"):
        open_source("fc100", folder)
    (folder / "06_wasp.webp").write_bytes(b"")
    with pytest.raises(DataError, match=r"cifar100 lacks 06_bee\.webp"):
        open_source("fc100", folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"RIFF", r"cannot read the mosaic .*00_apple\.webp"), (None, r"expected 24 rows of 25 images .*, given 64x32")],
)
def test_damaged_mosaic_is_named(tmp_path, content, message):
    path = tmp_path / "00_apple.webp"
    Image.new("RGB", (64, 32)).save(path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_mosaic(path)


class FakeCifar:
    """torchvision's CIFAR100 as far as it is used: five training images and a test image of each class, shuffled."""

    tgz_md5 = "0" * 32

    def __init__(self, root, train):
        per_class = 5 if train else 1
        order = np.random.Generator(np.random.Philox(int(train))).permutation(100 * per_class)
        self.targets = (np.arange(100 * per_class) % 100)[order].tolist()
        self.data = np.zeros((len(order), 32, 32, 3), np.uint8)
        self.data[..., 0] = np.array(self.targets)[:, None, None]
        self.data[..., 1] = order[:, None, None] // 100
        self.data[..., 2] = 50 if train else 100
        self.classes = list(class_names())


@pytest.fixture
def fake_files(tmp_path, monkeypatch, cache_folder):
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", FakeCifar)
    monkeypatch.setattr(cifar, "IMAGES", 6)
    (tmp_path / "cifar-100-python").mkdir()
    for part in ("train", "test"):
        (tmp_path / "cifar-100-python" / part).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("inner", [False, True])
def test_torchvision_files(fake_files, inner):
    source = open_source("cifar-fs", fake_files / "cifar-100-python" if inner else fake_files)
    assert source.images.shape == (600, 3, 32, 32)
    for number, entry in enumerate(source.classes):
        images = source.images[entry.rows]
        assert np.unique(images[:, 0]).tolist() == [number]
        assert images[:, 2, 0, 0].tolist() == [50] * 5 + [100]
        assert sorted(images[:5, 1, 0, 0].tolist()) == [0, 1, 2, 3, 4]


def test_size_and_channels(fake_files):
    source = open_source("fc100", fake_files, size=20, channels=1)
    assert source.images.shape == (600, 1, 20, 20)


def test_class_of_another_size_or_name(fake_files, monkeypatch):
    monkeypatch.setattr(cifar, "IMAGES", 7)
    with pytest.raises(DataError, match="expected 7 images of apple as class 0"):
        open_source("cifar-fs", fake_files)


def test_classes_in_another_order(fake_files, monkeypatch):
    class Swapped(FakeCifar):
        def __init__(self, root, train):
            super().__init__(root, train)
            self.classes[3], self.classes[4] = self.classes[4], self.classes[3]

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", Swapped)
    with pytest.raises(DataError, match="expected 6 images of bear as class 3"):
        open_source("cifar-fs", fake_files)


@pytest.fixture
def hostile(tmp_path):
    """A folder that looks like torchvision's, whose files make ``marker`` when unpickled."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    marker = tmp_path / "marker"
    for part in ("train", "test", "meta"):
        (folder / part).write_bytes(f"cos\nmkdir\n(V{marker}\ntR.".encode())
    return marker


def test_other_files_under_torchvisions_names_are_never_unpickled(hostile, cache_folder):
    with pytest.raises(DataError, match=r"are not the published ones .*; remove that folder and put the published"):
        open_source("cifar-fs", hostile.parent)
    assert not hostile.exists()


def test_half_a_folder(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(DataError, match="are not the published ones"):
        open_source("cifar-fs", tmp_path)


def test_archive_of_another_hash(tmp_path):
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"something else")
    with pytest.raises(
        DataError, match=r"cifar-100-python\.tar\.gz is not the published archive: its MD5 is not eb9058c"
    ):
        open_source("fc100", tmp_path)
    assert not (tmp_path / "cifar-100-python").exists()


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"expected CIFAR-100 in .*, found neither .* put the published .* by hand"):
        open_source("cifar-fs", tmp_path)


def test_refused_connection(cache_folder, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", "http://127.0.0.1:9/cifar-100-python.tar.gz")
    with pytest.raises(
        DataError, match=rf"could not fetch CIFAR-100 into {cache_folder / 'cifar100'} \(.*refused.*; try again, or put"
    ):
        open_source("cifar-fs")


class OtherArchive(BaseHTTPRequestHandler):
    """Answers every request with a file that is not the published archive."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "14")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"something else")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def other_archive():
    with ThreadingHTTPServer(("127.0.0.1", 0), OtherArchive) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/cifar-100-python.tar.gz"
        server.shutdown()
        thread.join()


def test_download_of_another_hash(cache_folder, other_archive, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", other_archive)
    for _ in range(2):  # what the first try left behind does not change the second
        with pytest.raises(DataError, match=r"could not fetch CIFAR-100 .*corrupted.*put the published .* by hand"):
            open_source("cifar-fs")
