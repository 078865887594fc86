from bigmodel.spec import (
    Classes,
    DataSpec,
    Features,
    Flags,
    Image,
    Multimodal,
    Multitask,
    Sequence,
    Tokens,
    Values,
)


def test_parts_lie_side_by_side_after_what_says_who_is_missing():
    both = Multimodal(("photo", "title"), (Image(1, 2, 3), Tokens(4, 10, pad=0)))
    assert both.shape == (2 + 6 + 4,)
    assert both.slices == [slice(2, 8), slice(8, 12)]
    assert str(both) == "photo (images 1×2×3), title (up to 4 tokens out of 10)"


def test_inputs_tell_their_shape() -> None:
    assert Image(3, 28, 32).shape == (3, 28, 32)
    assert Sequence(7, 5).shape == (7, 5)
    assert Tokens(12, 100).shape == (12,)
    assert Features(4).shape == (4,)


def test_classes_in_words() -> None:
    spec = DataSpec("pets", Features(2), Classes(("cat", "dog"), (3, 4)), {"train": 7, "val": 1200})
    assert spec.target.output_size == 2
    assert (spec.label([0.1, 2.0]), spec.truth(0)) == ("dog", "cat")
    assert str(spec) == "pets: 2 features → 2 classes (7 train, 1,200 val)"


def test_flags_in_words() -> None:
    spec = DataSpec("tags", Features(2), Flags(("red", "round")))
    assert (spec.label([1.0, -1.0]), spec.label([1.0, 1.0]), spec.label([-1.0, -1.0])) == (
        "red",
        "red, round",
        "none",
    )
    assert spec.truth([0.0, 1.0]) == "round"


def test_values_in_their_own_unit() -> None:
    spec = DataSpec("prices", Features(2), Values(("price",), mean=(100.0,), std=(20.0,)))
    assert (spec.label([0.5]), spec.truth([-1.0])) == ("110", "80")


def test_several_targets_are_put_into_words_side_by_side():
    both = Multitask(
        ("price", "kind"), (Values(("price",), (100.0,), (20.0,)), Classes(("a", "b"), (1, 1)))
    )
    spec = DataSpec("adverts", Features(2), both)
    assert (both.count, both.output_size, both.slices) == (2, 3, [slice(0, 1), slice(1, 3)])
    assert str(both) == "price (1 real value), kind (2 classes)"
    assert spec.label([0.5, -1.0, 2.0]) == "price 110, kind b"
    assert spec.truth([-1.0, 0.0]) == "price 80, kind a"
