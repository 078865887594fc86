"""Threads that gather batches ahead: the same batches, their errors in order, and none left behind."""

import threading
from functools import partial
from itertools import count
from time import monotonic

import pytest
import torch

from bigmodel.data.assemble import assemble
from bigmodel.data.augment import AugmentConfig
from bigmodel.data.base import DataConfig, Dataset, ImageConfig
from bigmodel.data.batching import prefetch
from bigmodel.data.batching.batches import make_batches
from bigmodel.data.batching.prefetch import Prefetcher
from bigmodel.data.parts import Part, TextPairs, Texts, Windows
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import data
from bigmodel.spec import Classes, DataSpec, Features, Image, NextTokens, TokenPair, Tokens

SAMPLES = 200  # 160 to train
AUGMENT = AugmentConfig(shift=2, flip=0.5, erase=0.5)
CLASSES = Classes(("a", "b"), ())
ENDLESS = 100_000.0  # seconds, where nobody may wait for them


def running():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert not running()


def block(number):
    return torch.tensor([number]), torch.tensor([number])


def numbered(reads=12):
    return ((lambda number=number: block(number)) for number in range(reads))


def numbers_of(gathered):
    return [int(inputs) for inputs, _ in gathered]


@pytest.mark.parametrize("threads", [0, 1, 2, 4, 20])
def test_blocks_come_in_order(threads):
    assert numbers_of(Prefetcher(threads).gather(numbered())) == list(range(12))
    assert numbers_of(Prefetcher(threads).gather(iter(()))) == []


def test_blocks_come_in_order_though_a_later_one_is_gathered_first():
    later = threading.Event()

    def first():
        assert later.wait(ENDLESS)
        return block(0)

    def second():
        later.set()
        return block(1)

    assert numbers_of(Prefetcher(2, ENDLESS).gather([first, second])) == [0, 1]


def test_two_blocks_for_each_thread_are_ahead_and_no_more():
    asked = count()
    gathered = Prefetcher(3).gather(read for read, _ in zip(numbered(50), asked, strict=False))
    for taken in range(10):
        next(gathered)
        assert next(asked) == 6 + 2 * taken  # of these, as many are for this counting
    gathered.close()


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("error", [ZeroDivisionError, MemoryError, KeyboardInterrupt])
def test_an_error_comes_when_its_block_is_due(threads, error):
    def broken():
        raise error("a fault of its own")

    reads = [*numbered(5), broken, *numbered(5)]
    gathered, found = Prefetcher(threads).gather(reads), []
    with pytest.raises(error, match="a fault of its own"):  # noqa: PT012  each block before it comes
        for inputs, _ in gathered:
            found.append(int(inputs))
    assert found == [0, 1, 2, 3, 4]
    assert not running()


class Hanging:
    """A read that gives nothing until it is let go."""

    def __init__(self):
        self.begun, self.let_go = threading.Event(), threading.Event()

    def __call__(self):
        self.begun.set()
        assert self.let_go.wait(ENDLESS)
        return block(0)


@pytest.fixture
def hanging(monkeypatch):
    monkeypatch.setattr(prefetch, "_PATIENCE", 0.0)
    read = Hanging()
    yield read
    assert all(thread.daemon for thread in running()), "the process may exit without them"
    read.let_go.set()
    for thread in running():
        thread.join(ENDLESS)


def test_a_thread_that_hangs_is_not_waited_for(hanging, monkeypatch):
    """Not even for the time in which threads may finish their blocks: it had `data.timeout` already."""
    monkeypatch.setattr(prefetch, "_PATIENCE", 30.0)
    start = monotonic()
    begun = partial(hanging.begun.wait, ENDLESS)
    gathered = Prefetcher(2, 0.01).gather([hanging, *numbered(5)], begun)
    words = r"^data\.timeout=0\.01: no batch came for 0\.01 seconds\. .* data\.workers=0 to read in"
    with pytest.raises(DataError, match=words):
        list(gathered)
    assert running()
    assert monotonic() - start < 30


def test_while_a_thread_hangs_others_are_heard(hanging):
    def between():
        assert hanging.begun.wait(ENDLESS)
        raise KeyboardInterrupt("terminated")

    with pytest.raises(KeyboardInterrupt, match="terminated"):
        list(Prefetcher(1, ENDLESS).gather([hanging], between))


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_end_when_an_epoch_is_left(threads):
    gathered = Prefetcher(threads).gather(numbered(100))
    next(gathered)
    assert len(running()) == threads
    gathered.close()
    assert not running()
    with pytest.raises(ValueError, match="in training"):  # noqa: PT012  what a loop does
        for batch in batches_of(threads).epoch(0):
            raise ValueError(f"in training, with {len(batch)} samples")
    assert not running()


def test_blocks_that_nobody_waits_for_are_not_gathered(hanging):
    seen = []
    gathered = Prefetcher(1).gather([*numbered(1), hanging, lambda: seen.append(1)])
    next(gathered)
    assert hanging.begun.wait(ENDLESS)
    gathered.close()
    hanging.let_go.set()
    for thread in running():
        thread.join(ENDLESS)
    assert not seen


def test_each_thread_computes_on_one_core_and_others_keep_their_number():
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:

        def read():
            seen.append(torch.get_num_threads())
            return block(0)

        def number_of_another_thread():
            found = []
            other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
            other.start()
            other.join()
            return found[0]

        gathered = Prefetcher(2).gather([read] * 4)
        next(gathered)
        assert number_of_another_thread() == 3, "while they run, too"
        assert len(list(gathered)) == 3
        assert seen == [1] * 4
        assert number_of_another_thread() == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_thread_that_cannot_be_started(monkeypatch):
    started, real = count(), threading.Thread.start

    def refused(thread):
        if next(started) == 1:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(DataError, match=r"data\.workers=3: thread 2 .* new thread.* data\.workers=1\."):
        list(Prefetcher(3).gather(numbered()))


def batches_of(workers=2, *, part="train", augment=AUGMENT, group=1, device="cpu", **values):
    config = ImageConfig(
        name="made", **{"batch_size": 7, "workers": workers, "augment": augment, **values}
    )
    images = torch.arange(SAMPLES * 36).remainder(251).to(torch.uint8).view(SAMPLES, 1, 6, 6)
    samples = Part(images, torch.arange(SAMPLES) % 2)
    dataset = assemble(config, DataSpec("made", Image(1, 6, 6), CLASSES), samples)
    return make_batches(dataset, part, config, device, seed=3, group=group)


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.inputs.dtype == theirs.inputs.dtype
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.targets, theirs.targets)


@pytest.mark.parametrize("augment", [AugmentConfig(), AUGMENT], ids=["plain", "augmented"])
@pytest.mark.parametrize("group", [1, 3])
def test_the_batches_are_the_same_to_the_bit_from_any_start(augment, group):
    alone, helped = (batches_of(n, augment=augment, group=group) for n in (0, 2))
    state = torch.get_rng_state()
    for epoch, start in ((0, 0), (1, 0), (1, 1), (5, 4), (5, alone.steps_per_epoch)):
        expected = list(alone.epoch(epoch, start))
        assert len(expected) == alone.steps_per_epoch - start
        assert_same(helped.epoch(epoch, start), expected)
    assert torch.equal(torch.get_rng_state(), state), "torch's global generator is left alone"


SIZES = torch.arange(90) % 7 + 1
STARTS = SIZES.cumsum(0) - SIZES
STREAM = torch.arange(600).remainder(50).to(torch.uint8)
TEXTS = Texts(STREAM, STARTS, SIZES, torch.arange(90) % 2, pad=0)
PAIRS = TextPairs(
    STREAM, torch.stack([STARTS, STARTS.flip(0)], 1), torch.stack([SIZES, SIZES.flip(0)], 1), 0, 1
)


def plain(kind, inputs):
    config = DataConfig(name="made")
    return assemble(config, DataSpec("made", kind, CLASSES), Part(inputs, torch.arange(len(inputs)) % 2))


def ready(inputs, target, part):
    return Dataset(DataSpec("made", inputs, target), part, part)


class BoundedConfig(DataConfig):
    batch_tokens: int | None = None


KINDS = {
    "features": lambda: plain(Features(3), torch.arange(180.0).view(60, 3)),
    "tokens": lambda: plain(Tokens(3, 200), torch.arange(180).view(60, 3)),
    "float images": lambda: plain(Image(1, 1, 3), torch.arange(180.0).view(60, 1, 1, 3)),
    "windows": lambda: ready(
        Tokens(9, 50), NextTokens(50), Windows.side_by_side(STREAM, 9, whole=False)
    ),
    "texts": lambda: ready(Tokens(7, 50, pad=0), CLASSES, TEXTS),
    "pairs": lambda: ready(TokenPair(7, 50, 0, 1, 2), NextTokens(50), PAIRS),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("bound", [None, 40], ids=["by samples", "by tokens"])
def test_any_kind_of_part(kind, workers, bound):
    dataset = KINDS[kind]()

    def read(workers):
        config = BoundedConfig(name="made", batch_size=4, workers=workers, batch_tokens=bound)
        batches = make_batches(dataset, "train", config, seed=1)
        return [batch for start in (0, 3) for batch in batches.epoch(2, start)]

    assert_same(read(workers), read(0))


def test_held_out_parts_need_no_threads():
    epoch = batches_of(part="val").epoch(0)
    next(epoch)
    assert not running()
    assert len(list(epoch)) == 5


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("on_device", [False, None])
def test_batches_for_a_gpu_are_those_without_threads(on_device, workers):
    helped, alone = (batches_of(n, device="cuda", on_device=on_device) for n in (workers, 0))
    for epoch in range(5):
        found = []
        for batch in helped.epoch(epoch, 2):
            found.append(batch)
            torch.randn(1000, 1000, device="cuda").square().sum()  # steps that are under way meanwhile
        assert all(tensor.is_cuda for batch in found for tensor in batch)
        assert_same(found, alone.epoch(epoch, 2))


@pytest.mark.gpu
def test_memory_of_a_batch_is_not_used_again_before_its_step_is_done():
    helped = batches_of(2, device="cuda", on_device=False, batch_size=80)
    sums, expected = [], []
    for epoch in range(20):
        for batch in helped.epoch(epoch):
            torch.cuda._sleep(10_000_000)  # the step reads its batch when the host is long at the next
            sums.append(batch.inputs.double().sum())
            del batch
        expected += [batch.inputs.double().sum() for batch in batches_of(0, batch_size=80).epoch(epoch)]
    torch.testing.assert_close(torch.stack(sums).cpu(), torch.stack(expected))


def test_data_on_the_device_has_no_need_of_them():
    words = r"data\.workers=2: .*data\.on_device=true .* Set data\.workers=0 or data\.on_device=null"
    with pytest.raises(ConfigError, match=words):
        data.parse({"name": "digits", "workers": 2, "on_device": True})


@pytest.mark.parametrize(("key", "value"), [("workers", -1), ("timeout", 0)])
def test_ranges(key, value):
    with pytest.raises(ConfigError, match=rf"data\.{key}={value}"):
        data.parse({"name": "digits", key: value})
