"""IDX files: read as they are, and refused in words that name file, finding and expectation."""

import gzip
import struct
from pathlib import Path

import pytest
import torch

from bigmodel.data.checks import check
from bigmodel.data.sources import idx
from bigmodel.errors import DataError
from bigmodel.registry import data
from bigmodel.spec import Image

NAMES = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "t10k-images": "t10k-images-idx3-ubyte",
    "t10k-labels": "t10k-labels-idx1-ubyte",
}


def packed(array):
    magic = 0x00000800 | array.ndim
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + bytes(array.flatten().tolist())


def contents(train=60, test=20, size=(6, 5), classes=10):
    generator = torch.Generator().manual_seed(1)
    made = {}
    for stem, samples in (("train", train), ("t10k", test)):
        made[f"{stem}-images"] = torch.randint(0, 256, (samples, *size), generator=generator)
        made[f"{stem}-labels"] = torch.arange(samples) % classes
    return made


@pytest.fixture
def root(tmp_path):
    for stem, array in contents().items():
        (tmp_path / NAMES[stem]).write_bytes(packed(array))
    return tmp_path


def built(root, name="mnist", **values):
    return data.build(data.parse({"name": name, "root": str(root), **values}))


def test_reads_images_labels_and_the_test_part(root):
    dataset = built(root)
    check(dataset)
    assert dataset.spec.input == Image(1, 6, 5)
    assert dataset.spec.sizes == {"train": 54, "val": 6, "test": 20}
    assert dataset.train.inputs.dtype == torch.uint8
    assert dataset.spec.target.names == tuple("0123456789")
    expected = contents()
    assert torch.equal(dataset.test.inputs[:, 0].long(), expected["t10k-images"])
    assert torch.equal(dataset.test.targets, expected["t10k-labels"])
    labels = {bytes(i.flatten().tolist()): n for i, n in _pairs(expected)}
    for part in (dataset.train, dataset.val):
        for image, label in zip(part.inputs, part.targets, strict=True):
            assert labels[bytes(image.flatten().tolist())] == label


def _pairs(expected):
    return zip(expected["train-images"], expected["train-labels"].tolist(), strict=True)


def test_the_test_part_changes_no_statistics(root):
    before = built(root)
    (root / NAMES["t10k-images"]).write_bytes(packed(torch.full((20, 6, 5), 255)))
    after = built(root)
    assert torch.equal(before.mean, after.mean)
    assert torch.equal(before.std, after.std)


@pytest.mark.parametrize("dot", [False, True])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("compressed", [False, True])
def test_both_spellings_gzip_or_not_whatever_the_ending(root, dot, ending, compressed):
    plain = built(root)
    for name in NAMES.values():
        content = (root / name).read_bytes()
        (root / name).unlink()
        spelling = (name.replace("-idx", ".idx") if dot else name) + ending
        (root / spelling).write_bytes(gzip.compress(content) if compressed else content)
    assert torch.equal(built(root).train.inputs, plain.train.inputs)


def test_fashion_has_words_for_classes(root):
    names = built(root, "fashion_mnist").spec.target.names
    assert (names[0], names[9]) == ("T-shirt/top", "Ankle boot")


def test_default_folders(root, tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "data").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(idx, "_DEBIAN_FASHION", tmp_path / "system")
    for name in ("mnist", "fashion_mnist"):
        with pytest.raises(DataError) as caught:
            data.build(data.parse({"name": name}))
        words = str(caught.value)
        assert str(here / "data" / name) in words
        assert "train-images-idx3-ubyte[.gz]" in words
        assert "t10k-labels-idx1-ubyte[.gz]" in words
        assert "data.root=<folder>" in words
        assert ("dataset-fashion-mnist" in words) == (name == "fashion_mnist")
        assert (str(tmp_path / "system") in words) == (name == "fashion_mnist")
    (tmp_path / "system").symlink_to(root)
    assert len(data.build(data.parse({"name": "fashion_mnist"})).test) == 20
    (here / "data" / "mnist").symlink_to(root)
    assert len(data.build(data.parse({"name": "mnist"})).test) == 20


def test_a_root_is_the_only_place_looked_at(root, tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "_DEBIAN_FASHION", root)
    with pytest.raises(DataError, match=f"not in {tmp_path / 'elsewhere'}. Expected"):
        built(tmp_path / "elsewhere", "fashion_mnist")


def edited(file, change):
    """A case: what is done to which file."""
    return lambda root: (root / NAMES[file]).write_bytes(change((root / NAMES[file]).read_bytes()))


def swapped(first, second):
    def swap(root):
        one, other = root / NAMES[first], root / NAMES[second]
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)

    return swap


DAMAGE = {
    "missing": (
        lambda root: (root / NAMES["t10k-labels"]).unlink(),
        r"of its four files, these are missing in .*: t10k-labels-idx1-ubyte\[\.gz\]",
    ),
    "empty": (
        edited("train-images", lambda _: b""),
        r"train-images-idx3-ubyte: cut short: 0 bytes in all, expected .*0x00000803 of images",
    ),
    "short header": (
        edited("train-labels", lambda content: content[:6]),
        "train-labels-idx1-ubyte: cut short within its header: 6 bytes, expected 8",
    ),
    "truncated": (
        edited("train-images", lambda content: content[:-1]),
        "images-idx3-ubyte: cut short: its header says 60×6×5 = 1,800 bytes of images, found 1,799",
    ),
    "trailing": (
        edited("t10k-labels", lambda content: content + b"\0"),
        "t10k-labels-idx1-ubyte: too long: its header says 20 bytes of labels, found more",
    ),
    "absurd header": (
        edited("train-images", lambda content: content[:4] + b"\xff" * 12 + content[16:]),
        "cut short: its header says 4294967295×4294967295×4294967295 = .* found 1,800",
    ),
    "no samples": (
        edited("train-labels", lambda content: content[:4] + bytes(4)),
        "train-labels-idx1-ubyte: its header says 0: it holds no labels",
    ),
    "another format": (
        edited("train-images", lambda content: b"\x89PNG" + content[4:]),
        "found 0x89504e47 at its start: not an IDX file of bytes, expected .*0x00000803 of images",
    ),
    "images and labels swapped": (
        swapped("train-images", "train-labels"),
        r"train-images-idx3-ubyte: found labels \(magic number 0x00000801\); are the files mixed up\?"
        ", expected .* of images",
    ),
    "labels of another part": (
        swapped("train-labels", "t10k-labels"),
        "images-idx3-ubyte holds 60 images, but .*labels-idx1-ubyte 20 labels: the files do not match",
    ),
    "label out of range": (
        edited("t10k-labels", lambda content: content[:-2] + b"\x0a\x09"),
        r"t10k-labels-idx1-ubyte: label 10 in row 18 \(counted from 0\) is out of range: 0 to 9",
    ),
    "another size": (
        edited("t10k-images", lambda _: packed(torch.zeros(20, 4, 5, dtype=torch.uint8))),
        "t10k-images-idx3-ubyte: its images are 4×5 pixels, but those of .* are 6×5",
    ),
    "gzip cut short": (
        edited("train-images", lambda content: gzip.compress(content)[:-20]),
        "train-images-idx3-ubyte: the gzip file is damaged or cut short",
    ),
    "gzip corrupt": (
        edited("train-images", lambda content: flipped(gzip.compress(content))),
        "train-images-idx3-ubyte: the gzip file is damaged or cut short",
    ),
    "gzip with a wrong checksum": (
        edited("train-images", lambda content: gzip.compress(content)[:-8] + bytes(8)),
        "train-images-idx3-ubyte: the gzip file is damaged or cut short",
    ),
    "gzip of too much": (
        edited("train-images", lambda content: gzip.compress(content + bytes(100))),
        "train-images-idx3-ubyte: too long: its header says 60×6×5",
    ),
}


def flipped(content):
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 40])
        + content[middle + 40 :]
    )


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named_with_file_found_and_expected(root, damage, words):
    damage(root)
    with pytest.raises(DataError, match=words):
        built(root)


def test_a_folder_in_place_of_a_file_counts_as_missing(root):
    (root / NAMES["train-images"]).unlink()
    (root / NAMES["train-images"]).mkdir()
    with pytest.raises(DataError, match="missing"):
        built(root)


def test_unreadable_files_are_named(root, monkeypatch):
    def refuse(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="train-images-idx3-ubyte: cannot be read: Permission denied"):
        built(root)


LINKS = {
    "absolute": lambda place, secret: place.symlink_to(secret),
    "relative": lambda place, secret: place.symlink_to(Path("..") / "elsewhere" / secret.name),
    "a link to a link": lambda place, secret: (
        (place.parent / "step").symlink_to(secret),
        place.symlink_to("step"),
    ),
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("stem", NAMES)
def test_a_link_out_of_the_folder_is_refused(tmp_path, link, stem):
    folder, place, secret = linked(tmp_path, stem)
    link(place, secret)
    words = rf"{place}: points outside its folder, to {secret}, and only files within {folder} are read"
    with pytest.raises(DataError, match=rf"{words}.* Set data\.root={secret.parent} if"):
        built(folder)


def test_links_are_fine_within_the_folder_and_to_it(tmp_path):
    folder, place, secret = linked(tmp_path, "train-images")
    (folder / "deeper").mkdir()
    secret.rename(folder / "deeper" / "kept")
    place.symlink_to(Path("deeper") / ".." / "deeper" / "kept")
    (tmp_path / "root").symlink_to("folder")
    for root in (folder, tmp_path / "root", tmp_path / "elsewhere" / ".." / "folder"):
        assert len(built(root).test) == 20


def test_a_folder_whose_name_only_begins_alike_is_another(tmp_path):
    folder, place, secret = linked(tmp_path, "train-images")
    (tmp_path / "folder-2").mkdir()
    place.symlink_to(secret.rename(tmp_path / "folder-2" / secret.name))
    with pytest.raises(DataError, match="points outside its folder"):
        built(folder)


def test_a_system_folder_may_link_as_it_likes(tmp_path, monkeypatch):
    folder, place, secret = linked(tmp_path, "train-images")
    place.symlink_to(secret)
    monkeypatch.setattr(idx, "_DEBIAN_FASHION", folder)
    monkeypatch.chdir(tmp_path)
    assert len(data.build(data.parse({"name": "fashion_mnist"})).test) == 20
    assert len(built(folder, "fashion_mnist").test) == 20
    with pytest.raises(DataError, match="points outside its folder"):
        built(folder, "mnist")


def linked(tmp_path, stem):
    """A folder with all files but one, the place of that one, and where it lies instead."""
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    for name, array in contents().items():
        (folder / NAMES[name]).write_bytes(packed(array))
    place = folder / NAMES[stem]
    return folder, place, place.rename(elsewhere / NAMES[stem])


def test_a_home_folder_is_expanded(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(built(f"~/{root.name}").test) == 20
