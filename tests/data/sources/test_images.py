"""Pictures of any size and kind: read once, framed alike, kept in a cache, refused in words."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from bigmodel.data.base import ImageConfig
from bigmodel.data.checks import check
from bigmodel.data.files import decode_cache as cache
from bigmodel.data.files.decode_cache import UnreadableFileError
from bigmodel.data.fingerprint import fingerprint
from bigmodel.data.media.images import ResizeSettings, checked_image_sizes, decode
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.data.sources.images import ImagesConfig, images
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import validate
from bigmodel.spec import Classes, Image, Values


@pytest.fixture
def photos(tmp_path):
    """20 pictures: cats are reddish, dogs bluish, in sizes and formats that differ."""
    noise = np.random.default_rng(1)
    for kind, channel in (("cat", 0), ("dog", 2)):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for n in range(10):
            pixels = noise.integers(0, 100, (30 + n, 40, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            ending = ("png", "jpg", "webp", "bmp")[n % 4]
            Picture.fromarray(pixels).save(tmp_path / "photos" / kind / f"{n}.{ending}")
    return tmp_path / "photos"


def built(path, **values):
    values = {"name": "images", "path": str(path), "size": 8, "cache": None, **values}
    return images(validate(ImagesConfig, values, "data"))


def settings(**values):
    return ResizeSettings(
        **{
            "height": 4,
            "width": 4,
            "channels": 3,
            "fit": "crop",
            "background": "white",
            **values,
        }
    )


def read(path, **values):
    form = settings(**values)
    row = torch.zeros(form.channels, form.height, form.width, dtype=torch.uint8)
    with checked_image_sizes():
        decode(path, row, form)
    return row


def test_reads_pictures_with_their_labels(photos):
    dataset = built(photos)
    check(dataset)
    assert isinstance(ImagesConfig(name="images"), ImageConfig)  # so that batches augment
    assert dataset.spec.input == Image(3, 8, 8)
    assert dataset.spec.target.names == ("cat", "dog")
    assert dataset.spec.target.counts == (8, 8)
    assert dataset.spec.sizes == {"train": 16, "val": 4}
    for part in (dataset.train, dataset.val):
        assert part.inputs.dtype == torch.uint8
        redder = part.inputs[:, 0].float().mean((1, 2)) > part.inputs[:, 2].float().mean((1, 2))
        assert torch.equal(redder, part.targets == 0)
    level = dataset.train.inputs.float() / 255
    torch.testing.assert_close(dataset.mean.flatten(), level.mean((0, 2, 3)))
    [(label, text)] = dataset.header_rows
    assert label == "Pictures"
    assert text == (
        "20 JPEG/PNG/BMP/WEBP, 40×30 to 40×39, scaled and cropped to 8×8 in colours; cat 10, dog 10"
    )


def test_a_reader_sees_what_training_saw(photos, tmp_path):
    dataset = built(photos, size=[6, 9], fit="pad")
    reader = from_plain(json.loads(json.dumps(to_plain(dataset.reader))))
    found = reader.read(photos, with_targets=True)
    assert found.columns["file"][:2] == ["cat/0.png", "cat/1.jpg"]
    known = {bytes(row.flatten().tolist()): int(n) for row, n in _rows(found.part)}
    assert len(known) == 20
    for part in (dataset.train, dataset.val):
        for row, label in _rows(part):
            assert known[bytes(row.flatten().tolist())] == label
    single = reader.read(photos / "dog" / "0.png", with_targets=True)
    assert single.part.targets.tolist() == [1]
    assert torch.equal(single.part.inputs[0], found.part.inputs[10])
    (tmp_path / "new").mkdir()
    (photos / "dog" / "0.png").rename(tmp_path / "new" / "x.png")
    assert torch.equal(reader.read(tmp_path / "new", with_targets=False).part.inputs, single.part.inputs)
    with pytest.raises(DataError, match="are in no class folder"):
        reader.read(tmp_path / "new", with_targets=True)


def _rows(part):
    return zip(part.inputs, part.targets, strict=True)


def test_values_to_predict_come_from_a_list(photos):
    rows = [
        f"{path.relative_to(photos)},{n + 0.5}" for n, path in enumerate(sorted(photos.rglob("*.*")))
    ]
    (photos / "list.csv").write_text("\n".join(["file,age", *rows]), encoding="utf-8")
    dataset = built(photos / "list.csv", label="age")
    check(dataset)
    assert isinstance(dataset.spec.target, Values)
    assert dataset.spec.target.names == ("age",)
    found = dataset.reader.read(photos / "list.csv", with_targets=True)
    own = found.part.targets * dataset.spec.target.std[0] + dataset.spec.target.mean[0]
    torch.testing.assert_close(own[:, 0], torch.arange(20) + 0.5)


def grey(*rows):
    return Picture.fromarray(np.array(rows, dtype=np.uint8))


MODES = {
    "palette": (lambda: Picture.new("RGB", (4, 4), (255, 0, 0)).convert("P"), (255, 0, 0)),
    "grey": (lambda: Picture.new("L", (4, 4), 77), (77, 77, 77)),
    "bilevel": (lambda: Picture.new("1", (4, 4), 1), (255, 255, 255)),
    "transparent": (lambda: Picture.new("RGBA", (4, 4), (0, 0, 0, 0)), (255, 255, 255)),
    "half": (lambda: Picture.new("RGBA", (4, 4), (255, 0, 0, 128)), (255, 127, 127)),
    "grey and clear": (lambda: Picture.new("LA", (4, 4), (0, 0)), (255, 255, 255)),
    "16 bits": (
        lambda: Picture.fromarray(np.full((4, 4), 257 * 100, dtype=np.uint16)),
        (100, 100, 100),
    ),
}


@pytest.mark.parametrize(("make", "colour"), MODES.values(), ids=MODES)
def test_modes(tmp_path, make, colour):
    make().save(tmp_path / "x.png")
    assert read(tmp_path / "x.png").float().mean((1, 2)).tolist() == pytest.approx(colour, abs=1)
    level = read(tmp_path / "x.png", channels=1).float().mean()
    assert level == pytest.approx(np.dot(colour, (0.299, 0.587, 0.114)), abs=1.5)


def test_a_transparent_palette_and_a_black_background(tmp_path):
    picture = Picture.new("P", (4, 4), 0)
    picture.putpalette([10, 20, 30])
    picture.save(tmp_path / "x.png", transparency=0)
    assert read(tmp_path / "x.png").unique().tolist() == [255]
    assert read(tmp_path / "x.png", background="black").unique().tolist() == [0]


def test_cmyk(tmp_path):
    Picture.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=100)
    red, green, blue = read(tmp_path / "x.jpg").float().mean((1, 2)).tolist()
    assert red > 250
    assert max(green, blue) < 5


def test_real_pixels_have_no_white(tmp_path):
    Picture.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableFileError, match="mode F"):
        read(tmp_path / "x.tif")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_orientation_is_followed(tmp_path, ending):
    picture = Picture.new("L", (8, 4))
    picture.paste(255, (0, 0, 4, 4))  # the left half is white
    exif = Picture.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    picture.save(tmp_path / f"x.{ending}", exif=exif, quality=100)
    row = read(tmp_path / f"x.{ending}", height=8, width=4, channels=1)[0]
    assert row[:3].min() > 250
    assert row[5:].max() < 5


def test_fits(tmp_path):
    picture = Picture.new("L", (8, 4), 100)
    picture.paste(200, (0, 0, 2, 4))
    picture.save(tmp_path / "x.png")
    crop = read(tmp_path / "x.png", channels=1)[0]
    assert crop.unique().tolist() == [100]
    stretched = read(tmp_path / "x.png", channels=1, fit="stretch")[0]
    assert (stretched[:, 0] > 150).all()
    padded = read(tmp_path / "x.png", channels=1, fit="pad")[0]
    assert padded[0].tolist() == padded[3].tolist() == [0] * 4
    assert (padded[1:3] >= 100).all()


def test_a_large_photograph_is_averaged_not_sampled(tmp_path):
    pixels = np.zeros((1200, 1600), dtype=np.uint8)
    pixels[::2] = 255
    for ending in ("jpg", "png"):
        Picture.fromarray(pixels).save(tmp_path / f"x.{ending}")
        row = read(tmp_path / f"x.{ending}", channels=1, height=30, width=40).float()
        assert (row - 127.5).abs().max() < 4


def test_channels_are_those_of_training(tmp_path):
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for n in range(5):
            Picture.new("L", (4, 4), 40 * n).save(tmp_path / kind / f"{n}.png")
    assert built(tmp_path).spec.input == Image(1, 8, 8)
    assert built(tmp_path, channels=3).spec.input == Image(3, 8, 8)
    Picture.new("RGB", (4, 4)).save(tmp_path / "a" / "9.png")
    for n in range(10, 14):
        Picture.new("RGB", (4, 4)).save(tmp_path / "a" / f"{n}.png")
    assert built(tmp_path).spec.input == Image(3, 8, 8)


def broken(photos, count=3):
    for n in range(count):
        path = photos / "cat" / f"broken{n}.jpg"
        content = (photos / "cat" / "1.jpg").read_bytes()
        path.write_bytes((content[: len(content) // 2], b"", b"no picture at all")[n % 3])


def test_unreadable_pictures_are_named_or_left_out(photos, tmp_path):
    broken(photos)
    with pytest.raises(DataError) as caught:
        built(photos)
    words = str(caught.value)
    assert "3 of 23 pictures cannot be read" in words
    for reason in ("runcated", "the file is empty", "it is not an image"):
        assert reason in words
    assert words.endswith("set data.max_bad=3 to skip them.")
    dataset = built(photos, max_bad=3, cache=str(tmp_path / "cache"))
    check(dataset)
    assert sum(dataset.spec.sizes.values()) == 20
    assert dataset.left_out == {"pictures that cannot be read": 3}
    again = built(photos, max_bad=3, cache=str(tmp_path / "cache"))
    assert torch.equal(again.train.inputs, dataset.train.inputs)
    assert torch.equal(again.train.targets, dataset.train.targets)
    assert again.left_out == dataset.left_out
    redder = again.train.inputs[:, 0].float().mean((1, 2)) > again.train.inputs[:, 2].float().mean(
        (1, 2)
    )
    assert torch.equal(redder, again.train.targets == 0)
    with pytest.raises(DataError, match="3 of 23 pictures"):
        built(photos, cache=str(tmp_path / "cache"))
    with pytest.raises(DataError, match="cannot be read"):
        dataset.reader.read(photos, with_targets=False)
    found = dataset.reader.read(photos, with_targets=True, max_bad=3)
    assert len(found.part) == len(found.columns["file"]) == 20
    assert found.left_out == {"pictures that cannot be read": 3}


@pytest.mark.parametrize("whole", ["0.png", "1.jpg", "2.webp", "3.bmp"])
def test_pictures_cut_in_half_are_left_out_in_training_and_after_it(photos, whole):
    content = (photos / "dog" / whole).read_bytes()
    (photos / "dog" / f"half {whole}").write_bytes(content[: len(content) // 2])
    named = f"1 of 21 pictures cannot be read.*half {whole}"
    with pytest.raises(DataError, match=named):
        built(photos)
    dataset = built(photos, max_bad=1)
    assert dataset.left_out == {"pictures that cannot be read": 1}
    with pytest.raises(DataError, match=named):
        dataset.reader.read(photos, with_targets=True)
    found = dataset.reader.read(photos, with_targets=True, max_bad=1)
    assert found.left_out == {"pictures that cannot be read": 1}
    assert not any(str(name).endswith(f"half {whole}") for name in found.columns["file"])


def test_files_stay_as_they_are(photos):
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    broken(photos)
    built(photos, max_bad=3)
    assert before == {path: path.read_bytes() for path in before}


def test_bombs_are_refused(photos, monkeypatch):
    monkeypatch.setattr(Picture, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match="would unpack to an enormous size"):
        built(photos)
    monkeypatch.setattr(Picture, "MAX_IMAGE_PIXELS", 1000)  # more than that, less than twice
    assert len(built(photos).train) == 16


def test_only_formats_that_are_named_are_opened(photos):
    (photos / "cat" / "evil.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(DataError, match="it is not an image"):
        built(photos)


def entries(folder):
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def test_a_cache_spares_the_second_reading(photos, tmp_path, monkeypatch):
    kept = tmp_path / "cache"
    first = built(photos, cache=str(kept))
    assert torch.equal(first.train.inputs, built(photos).train.inputs)
    [entry] = entries(kept)

    def never(*_):
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(cache, "_decode_all", never)
        second = built(photos, cache=str(kept))
        assert torch.equal(first.train.inputs, second.train.inputs)
        assert second.header_rows == first.header_rows
        assert not any(label == "Cache" for label, _ in second.header_rows)
        second.train.inputs.zero_()  # a mapped file stays as it is
        assert torch.equal(built(photos, cache=str(kept)).train.inputs, first.train.inputs)
        os.utime(photos / "cat" / "0.png", (1, 1))
        moved = photos.rename(tmp_path / "moved")
        assert torch.equal(built(moved, cache=str(kept)).train.inputs, first.train.inputs)
    built(moved, cache=str(kept), size=9)
    assert len(entries(kept)) == 2
    assert entry in entries(kept)
    assert len(list(kept.iterdir())) == 2  # nothing half done is left


def swapped(path, content):
    """A file replaced by other content of the same size, name and time."""
    before = path.stat()
    assert before.st_size == len(content)
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_other_pictures_of_the_same_size_and_time_are_seen(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for copy in range(10):
            level = 100 * number + copy
            picture = Picture.new("L", (8, 8), level)
            picture.save(tmp_path / "photos" / name / f"{copy}.bmp")  # whose size is that of its pixels
    kept, photos = tmp_path / "cache", tmp_path / "photos"
    first = built(photos, cache=str(kept))
    before = first.train.inputs.clone()
    for copy in range(10):
        cat, dog = (photos / name / f"{copy}.bmp" for name in ("cat", "dog"))
        ours, theirs = cat.read_bytes(), dog.read_bytes()
        swapped(cat, theirs)
        swapped(dog, ours)
    second = built(photos, cache=str(kept))
    assert torch.equal(second.train.inputs, built(photos).train.inputs)
    assert not torch.equal(second.train.inputs, before)
    assert fingerprint(first) != fingerprint(second)


def test_the_users_cache_folder_is_the_default(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    built(photos, cache="auto")
    assert len(entries(tmp_path / "xdg" / "bigmodel" / "decoded")) == 1


def test_a_part_is_a_stretch_of_what_is_kept(photos, tmp_path):
    dataset = built(photos, cache=str(tmp_path / "cache"), test_fraction=0.2)
    starts = [part.inputs.untyped_storage().data_ptr() for part in dataset.parts.values()]
    assert len(set(starts)) == 1
    assert isinstance(dataset.spec.target, Classes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": [8]}, r"data\.size=\[8\]: use one number for squares, or \[height, width\]"),
        ({"size": 0}, r"data\.size"),
        ({"fit": "zoom"}, r"data\.fit='zoom'"),
        ({"channels": 2}, r"data\.channels=2"),
    ],
)
def test_wrong_options_are_named(photos, values, words):
    with pytest.raises(ConfigError, match=words):
        built(photos, **values)
