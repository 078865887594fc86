"""What the README and the pages of the documentation say is so.

Each command of a `sh` block runs, or `NOT_RUN` says why it cannot. Blocks of Python and YAML are files
that those commands use; `console` blocks are compared with what is printed.
"""

import gzip
import importlib
import io
import json
import re
import runpy
import shlex
import sys
import tomllib
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image

import bigmodel as package
from bigmodel import registry, spec
from bigmodel.cli.launch import flags
from bigmodel.cli.launch.config_index import read_index
from bigmodel.cli.launch.run_folder import register_resolver
from bigmodel.config import parse, to_plain
from bigmodel.errors import SpecError
from bigmodel.spec import Input, Target
from tests import hugging_face
from tests.cli.commands.cli import Bigmodel, caller
from tests.end_to_end import pages
from tests.end_to_end.conftest import Command
from tests.faults import trials

CONFIGS = pages.ROOT / "configs"
README = (pages.ROOT / "README.md").read_text(encoding="utf-8")
FIRST_SCREEN = "\n".join(README.splitlines()[:60])

NOT_RUN = {
    "pip install -c scripts/constraints.txt torch": "changes the environment",
    "pip install -c scripts/constraints.txt '.[all]'": "changes the environment",
    "scripts/test": "runs this test",
    "scripts/test -k cnn": "runs tests, as this one does",
    "tensorboard --logdir outputs": "serves pages until it is stopped",
    "tensorboard --logdir outputs/multirun/2026-11-29/06-58-11": "serves pages until it is stopped",
    "until bigmodel-train resume=auto model=cnn; do :; done": "a loop around a command that is run",
    "bigmodel-train -m model=cnn sweep.seeds=20 device=cuda sweep.launcher=submitit sweep.jobs=8"
    " sweep.slurm.partition=gpu sweep.slurm.gpus_per_node=1": "needs Slurm",
    "bigmodel-train model=transformer data=digits device=cpu device.ranks=2": "starts processes, for"
    " which this one is not fresh",
    "bigmodel-train model=transformer data=digits device=cpu device.ranks=2"
    " device.parallel.shard=2": "the same",
    "torchrun --nproc-per-node=2 -m bigmodel model=transformer data=digits device=cpu": "the same",
    "torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=gpu1:29500 -m bigmodel"
    " model=transformer data=digits": "needs two machines",
    "srun --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --kill-on-bad-exit=0 bigmodel-train"
    " model=transformer data=digits": "needs Slurm",
    "sbatch --nodes=2 --gpus-per-node=8 scripts/slurm/train.sbatch model=transformer"
    " data=digits": "needs Slurm; tests/scripts/test_slurm.py has stand-ins",
    "bigmodel-train device=cuda": "needs a GPU",
    "bigmodel-train device=cuda:1": "needs two GPUs",
}
"""Commands that are not run, and why. Those that train are composed and checked nevertheless."""

QUICK = ("device.threads=1", "trainer.limit.val=1", "trainer.limit.test=1", "trainer.tensorboard=false")
SMALLER = {
    "sweep.trials=100": ("sweep.trials=4", "trainer.max_steps=2"),
    "sweep.trials=": ("sweep.trials=3", "trainer.max_steps=2"),
    "sweep.folds=": ("sweep.folds=2", "trainer.max_steps=2"),
    "debug=overfit": ("trainer.epochs=2",),
    "profile=true": ("trainer.max_steps=12", "trainer.limit.train=12"),
    "multi30k_cpu": ("data.vocab_size=300", "trainer.max_steps=2", "model.dim=16"),
    "experiment=seed_": ("data.samples=20", "trainer.max_steps=2"),
    "data=pairs": ("data.vocab_size=300", "trainer.max_steps=2"),
    "data=synthetic": ("data.samples=40", "trainer.max_steps=2"),
}
"""Settings that make a command short, by what is typed; the first that fits."""

INTERRUPTED = "outputs/2026-11-23/10-15-02"
RUNS = {
    "outputs/2026-11-23/10-18-05": ("data=table", "data.path=houses.csv", "data.target=price"),
    "outputs/2026-11-29/19-20-44": ("data=table", "data.path=sensors.csv", "data.target=broken"),
    "outputs/2026-11-25/15-40-12": ("data=text", "data.path=shakespeare.txt", "model=transformer"),
    "outputs/2026-11-30/09-20-11": (
        *("data=chat", "data.path=conversations.jsonl", "data.unit=byte", "data.context=96"),
        *("model=transformer", "model.dim=16", "model.depth=1"),
    ),
    "outputs/2026-11-25/16-02-40": (
        *("data=text_labels", "data.path=reviews.csv", "data.text=review", "data.target=stars"),
        "model=transformer",
    ),
    "outputs/2026-11-30/09-12-31": (
        *("data=text", "data.path=shakespeare.txt", "model=gpt2", "model.dim=64", "model.depth=2"),
        "model.num_heads=4",
    ),
    "outputs/2026-11-25/17-20-31": ("data=images", "data.path=photos", "model=cnn"),
    "outputs/2026-11-25/14-57-34": (
        *("data=pairs", "data.source=train.de", "data.target=train.en", "data.vocab_size=300"),
        *("model=transformer", "model.dim=16", "model.depth=1"),
    ),
    "outputs/multirun/2026-11-23/10-00-00": (
        *("-m", "sweep=optuna", "sweep.trials=50", "optimizer.lr=tag(log,interval(1e-4,1))"),
    ),
    "outputs/multirun/2026-11-23/21-18-11": ("-m", "model=fnn,cnn", "optimizer.lr=0.01,0.001"),
    "outputs/multirun/2026-11-29/06-58-11": ("-m", "model=fnn,attention", "sweep.seeds=2"),
}
"""Runs and sweeps that commands of the pages use, by folder."""


def quick(words: list[str]) -> list[str]:
    """What is typed, with settings that make it short."""
    typed = " ".join(words)
    if "model=linear" in words:  # which the reader has put into the package
        words = ["--config-dir", "configs", "plugins=[linear]", *words]
    if any(word.startswith(("--help", "--cfg", "-sc", "resume=outputs")) for word in words):
        return words
    smaller = next((more for key, more in SMALLER.items() if key in typed), ("trainer.max_steps=2",))
    device = () if "device=" in typed else ("device=cpu",)
    return [*words, *device, *QUICK, *smaller]


def write_idx(folder: Path) -> None:
    """The four files of MNIST, with a few random images."""
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 20)):
        images = numbers.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + values.tobytes())


def write_recordings(folder: Path) -> None:
    numbers = np.random.default_rng(0)
    for label in ("yes", "no"):
        (folder / label).mkdir(parents=True)
        for index in range(8):
            with wave.open(str(folder / label / f"{index}.wav"), "wb") as file:
                file.setparams((1, 2, 8000, 0, "NONE", ""))
                file.writeframes(numbers.normal(0, 3000, 2400).astype("<i2").tobytes())


def write_photos(folder: Path) -> None:
    numbers = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for index in range(8):
            pixels = numbers.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{index}.png")


def write_data(folder: Path) -> None:
    """All data that commands of the pages name."""
    cities = ("Köln", "Trier", "Bonn", "Mainz")
    built = [f"19{50 + n % 50}-{n % 12 + 1:02}-{n % 28 + 1:02}" for n in range(800)]
    rows = [
        f"{60 + n % 90}.2,{n % 5},{cities[n % 4]},{built[n]},{n % 7}.5,{250_000 + 1000 * n}.5"
        for n in range(800)
    ]
    head = "area,rooms,city,built,garden"
    (folder / "houses.csv").write_text("\n".join([f"{head},price", *rows, ""]))
    (folder / "test.csv").write_text("\n".join([f"{head},price", *rows[:20], ""]))
    (folder / "new.csv").write_text("\n".join([head, *(row.rpartition(",")[0] for row in rows[:2]), ""]))
    photos = [f"photos/cat/{n % 8}.png" if n % 3 else "" for n in range(60)]
    adverts = [f"{photo},chair number {n},{n % 9}.5" for n, photo in enumerate(photos)]
    (folder / "adverts.csv").write_text("\n".join(["photo,text,price", *adverts, ""]))
    reviews = "".join(f"it was {('bad', 'good')[n % 2]} {n},{n % 5}\n" for n in range(60))
    (folder / "reviews.csv").write_text("review,stars\n" + reviews)
    said = [{"role": role, "content": "What?"} for role in ("user", "assistant")]
    (folder / "conversations.jsonl").write_text(f"{json.dumps({'messages': said})}\n" * 40)
    for name in ("shakespeare.txt", "tinyshakespeare.txt"):
        (folder / name).write_text("ROMEO:\nBut soft, what light through yonder window breaks?\n" * 60)
    for part in ("train", "val", "test"):
        for language, words in (("de", "Hund Katze Maus"), ("en", "dog cat mouse")):
            lines = "".join(f"{words} {n % 7}\n" for n in range(40))
            (folder / f"{part}.{language}").write_text(lines)
            (folder / f"{part}.{language}.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "new.de").write_text("Hund 1\nKatze 2\n")
    readings = np.random.default_rng(0).normal(size=(100, 3))
    np.savez(folder / "mine.npz", inputs=readings, targets=(readings[:, 0] > 0).astype(int))
    broken = "".join(f"{a:.3f},{b:.3f},{c:.3f},{int(a > 0)}\n" for a, b, c in readings)
    (folder / "sensors.csv").write_text("a,b,c,broken\n" + broken)
    mails = "".join(
        f"{('buy now', 'see you')[n % 2]} {n},{('spam', 'mail')[n % 2]}\n" for n in range(60)
    )
    (folder / "mails.csv").write_text("mail,kind\n" + mails)
    hugging_face.write_folder(folder / "all-MiniLM-L6-v2", "bert", max_position_embeddings=512)
    hugging_face.write_folder(folder / "my-llama", "llama")
    write_photos(folder / "photos")
    write_recordings(folder / "recordings")
    write_idx(folder / "idx")
    write_idx(folder / "data" / "fashion_mnist")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, the files and the runs that the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    write_data(folder)
    pages.write_files(folder)
    (folder / "linear.py").write_text(pages.files()["src/bigmodel/models/linear.py"])
    held = ("debug=fast", "trainer.epochs=9", "device=cpu", "trainer.checkpoint.every_steps=1")
    attempt = trials.launch(folder, *held, f"hydra.run.dir={INTERRUPTED}", hold="step 3")
    attempt.wait_until_held()
    attempt.send(15)
    attempt.release()
    assert attempt.wait() == 143, attempt.log
    return folder


@pytest.fixture
def bigmodel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bigmodel:
    return caller(monkeypatch, capsys)


@pytest.fixture
def command_there(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    """The command in the work place; what a plugin registers is gone afterwards."""
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("BIGMODEL_CACHE", str(workplace / "cache"))
    every = registry.REGISTRIES | {"metrics": registry.metrics}
    before = {kind: dict(one._entries) for kind, one in every.items()}
    yield command
    for kind, one in every.items():
        one._entries = before[kind] | {n: e for n, e in one._entries.items() if one.is_builtin(n)}
    for name in pages.files():
        sys.modules.pop(Path(name).stem, None)


def make_runs(words: list[str], command: Command) -> None:
    """Makes the runs and sweeps that a command uses, alone or with others of their day, once."""
    named = [word.rpartition("=")[2] for word in words]
    for folder, made in RUNS.items():
        if Path(folder).exists() or not any(f"{folder}/".startswith(f"{name}/") for name in named):
            continue
        key = "hydra.sweep.dir" if "-m" in made else "hydra.run.dir"
        result = command(*quick([*made, f"{key}={folder}"]))
        assert result.status == 0, result.err


QUICK_SCRIPTS = ("scripts/messages.py",)
"""Scripts that are run as typed; of the others, which take minutes, the arguments are parsed."""


def run_script(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a quick script; of another, parses the arguments as it would itself."""
    script, *arguments = words
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "path", [str(pages.ROOT / "scripts"), *sys.path])
    quick = script in QUICK_SCRIPTS or "--list" in arguments
    names = runpy.run_path(str(pages.ROOT / script), run_name="__main__" if quick else "script")
    if not quick:
        parse = names.get("parse_arguments") or names["parser"]().parse_args
        parse(arguments)


@pytest.mark.parametrize(
    "script",
    [
        *("bench", "prove_reliability", "prove_coverage", "figures", "baselines"),
        *("small_tables", "small_texts"),
    ],
)
def test_a_wrong_argument_of_a_script_is_found(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as end:
        run_script([f"scripts/{script}.py", "--nonsense"], monkeypatch)
    assert end.value.code == 2


@pytest.mark.parametrize("line", [line for line in pages.commands() if line not in NOT_RUN])
def test_a_command_runs(
    command_there: Command, bigmodel: Bigmodel, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    line = re.sub(r'^eval "\$\((.*)\)"$', r"\1", line).partition(" | ")[0].partition(" < ")[0]
    program, *words = shlex.split(line)
    if program == "python" and words[0].startswith("scripts/"):
        run_script(words, monkeypatch)
    elif program == "bigmodel":
        make_runs(words, command_there)
        monkeypatch.setattr(sys, "stdin", io.StringIO("What is a cat?\n"))  # for `chat`
        device = () if words[0] in {"--help", "export", "compare", "track"} else ("--device", "cpu")
        said = bigmodel(*words, *device)
        assert said.status == 0, said.err
    else:
        assert program in {"bigmodel-train", "scripts/train"}, f"nobody knows how to run {line}"
        make_runs(words, command_there)
        result = command_there(*quick(words))
        assert result.status == 0, result.err


@pytest.mark.parametrize("line", [line for line in NOT_RUN if line.startswith("bigmodel-train ")])
def test_a_command_that_is_not_run_is_composed(line: str) -> None:
    """It is checked as far as a run comes before it looks for its device."""
    words = flags.add_pluses(flags.expand_device_index(shlex.split(line)[1:]), INDEX.open_paths())
    arguments = flags.parse_flags(words, CONFIGS)
    register_resolver()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        parse(to_plain(compose("train", overrides=arguments.overrides)))


def test_commands_that_are_not_run_are_still_there() -> None:
    assert set(NOT_RUN) - set(pages.commands()) == set()


@pytest.mark.parametrize(("typed", "shown"), pages.samples())
def test_output_is_what_is_shown(command_there: Command, typed: str, shown: str) -> None:
    assert typed.startswith("bigmodel-train ")
    result = command_there(*shlex.split(typed)[1:])
    assert (result.out + result.err).rstrip("\n") == shown


def test_the_header_of_a_table_is_the_one_shown(command_there: Command) -> None:
    result = command_there(*quick(["data=table", "data.path=houses.csv", "data.target=price"]))
    shown = next(b.text for b in pages.blocks() if b.text.startswith("Data: table"))
    assert len(shown.splitlines()) == 3
    assert shown in result.out


def test_the_header_of_a_table_with_files_is_the_one_shown(command_there: Command) -> None:
    columns = ("data.columns.photo=image", "data.columns.text=text", "model=fusion")
    result = command_there(
        *quick(["data=table", "data.path=adverts.csv", "data.target=price", *columns])
    )
    assert next(b.text for b in pages.blocks() if b.text.startswith("Pictures: ")) in result.out


def test_every_block_says_what_it_is() -> None:
    """A block of another language would escape these tests, and so would a command in one of text."""
    for block in pages.blocks():
        assert block.language in {"sh", "console", "python", "yaml", "text"}, block
        starts = ("$ ", "bigmodel-train ", "bigmodel ", "scripts/", "python ")
        assert block.language != "text" or not block.text.startswith(starts), block


def test_the_readme_is_short_and_shows_the_main_things_at_once() -> None:
    assert len(README.encode()) <= 8192
    wanted = (
        *("scripts/train", "scripts/test", "terminal.svg", "data.path=houses.csv", " -m ", "resume="),
        *("bigmodel predict", "```python", "```yaml", "plugins=", "docs/getting-started.md"),
    )
    assert [piece for piece in wanted if piece not in FIRST_SCREEN] == []


def test_the_readme_links_to_every_page() -> None:
    assert [page.name for page in pages.PAGES[2:] if f"(docs/{page.name})" not in README] == []


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(target)
    assert wrong == []


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (pages.ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    rows = [
        name
        for cell in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.MULTILINE)
        for name in re.findall(r"\w+", cell)
    ]
    assert sorted([*rows, "all"]) == sorted(project["optional-dependencies"])


def test_the_counts_are_those_of_the_registries() -> None:
    counts = {kind: len(set(one.names()) - {"auto"}) for kind, one in registry.REGISTRIES.items()}
    shown = (
        f"There are {counts['model']} models, {counts['data']} data sources, {counts['loss']} losses,"
        f" {counts['optimizer']} optimizers and {counts['scheduler']} schedules"
    )
    assert shown in README.replace("\n", " ")


INDEX = read_index([CONFIGS])
KEYS = {
    *(key.path for key in INDEX.top),
    *(k.path for g in INDEX.groups.values() for c in g.choices.values() for k in c.keys),
}
GROUPS = "|".join(("trainer", "device", "scheduler", "optimizer", "data", "model", "loss"))
CHOICE = re.compile(
    r"(?<![\w.])(model|data|loss|optimizer|scheduler|experiment|debug)=([a-z_0-9]+)(?![\w<])"
)


def test_settings_that_are_named_are_settings() -> None:
    """`trainer.epochs`, `trainer.epochs=3` and `experiment=seed_fnn` in a sentence."""
    named = {
        (page, match[0])
        for page, piece in pages.quoted()
        for match in re.finditer(rf"(?<![\w./])({GROUPS})(\.[a-z_]+)+(?![\w/(])", piece)
        if not piece.startswith("bigmodel.") and Path(match[0]).suffix not in (".safetensors", ".onnx")
    }
    known = KEYS | {key.rpartition(".")[0] for key in KEYS}
    opened = tuple(f"{key}." for key in INDEX.open_paths())
    assert len(named) > 30
    assert {(page, n) for page, n in named if n not in known and not n.startswith(opened)} == set()


def test_choices_that_are_named_are_choices() -> None:
    named = {
        (page, group, choice)
        for page, piece in pages.quoted()
        for group, choice in re.findall(
            r"(?<![\w.])(model|data|loss|optimizer|scheduler|experiment|debug)=([a-z_0-9]+)(?![\w<])",
            piece,
        )
    }
    own = {Path(name).stem for name in pages.files()}
    assert len(named) > 10
    wrong = {n for n in named if n[2] not in {*INDEX.groups[n[1]].choices, *own, "fashion_mnist_"}}
    assert wrong == set()


def test_the_public_interface_is_there() -> None:
    page = (pages.ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(bigmodel[\w.]*)` \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) >= 9
    missing = [
        f"{module}.{name}"
        for module, names in rows
        for name in re.findall(r"`(\w+)`", names)
        if not hasattr(importlib.import_module(module), name)
    ]
    assert missing == []


INPUTS: dict[str, tuple[Input, Target]] = {
    "images": (spec.Image(1, 8, 8), spec.Classes(("a", "b"), (1, 1))),
    "sequences": (spec.Sequence(6, 3), spec.Classes(("a", "b"), (1, 1))),
    "text": (spec.Tokens(8, 20), spec.Classes(("a", "b"), (1, 1))),
    "plain features": (spec.Features(4), spec.Classes(("a", "b"), (1, 1))),
    "generates text": (spec.Tokens(8, 20), spec.NextTokens(20)),
    "translates": (spec.TokenPair(8, 20, pad=0, start=1, end=2), spec.NextTokens(20, end=2)),
}


@pytest.mark.parametrize("row", INPUTS)
def test_models_read_what_the_table_says(row: str) -> None:
    page = (pages.ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    cells = dict(re.findall(r"^\| ([\w ]+) \| (.+) \|$", page, re.MULTILINE))[row].split(" | ")
    models = (["fnn"], ["cnn"], ["rnn"], ["attention", "transformer"])
    for names, cell in zip(models, cells, strict=True):
        for name in names:
            config = registry.models.parse({"name": name})
            try:
                registry.models.build(config, spec.DataSpec("data", *INPUTS[row]))
                accepted = True
            except SpecError:
                accepted = False
            assert accepted == (cell != "no" and ("`" not in cell or f"`{name}`" in cell)), (name, cell)


def test_the_rooms_are_those_that_the_import_linter_checks() -> None:
    project = tomllib.loads((pages.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    drawing = next(block.text for block in pages.blocks() if block.text.startswith("┌"))
    drawn = [re.findall(r"│ (\w+)", line) for line in drawing.splitlines() if line.startswith("│")]
    outside = {"__main__", "optimizers", "schedulers", "sklearn"}  # doors for users
    checked = [[name for name in layer.split(" | ") if name not in outside] for layer in layers]
    assert drawn == [layer for layer in checked if layer]


OTHER_PATHS = (
    *("val/", "val/loss", "test/accuracy", "train/loss", "val-best/accuracy", "val/accuracy"),
    *("val/price/mae", "val/city/accuracy"),
    *("tests/models/test_linear.py", "logs/", "slurm/", "experiment/winner.yaml"),
    *("trackers/", "trackers/wandb/"),
)
"""What looks like one of our files and is not: metrics, a file that the reader writes, and what lies in
the folders of runs and sweeps."""


def test_files_and_modules_that_are_named_are_there() -> None:
    """`training/loop.py` and `bigmodel.data.base` in a sentence."""
    source = pages.ROOT / "src" / "bigmodel"
    folders = (pages.ROOT, source, CONFIGS)
    wrong = []
    for page, piece in pages.quoted():
        for path in re.findall(r"^\w+/[\w/]*(?:\.\w+)?$", piece):
            found = path in (*pages.files(), *OTHER_PATHS) or any((f / path).exists() for f in folders)
            wrong += [] if found else [(page, path)]
        for module in re.findall(r"\bbigmodel(?:\.[a-z_]+)+", piece):
            place = source.joinpath(*module.split(".")[1:])
            own_name = module.removeprefix("bigmodel.") in dir(package)  # such as bigmodel.train
            if not (place.is_dir() or place.with_suffix(".py").exists() or own_name):
                wrong.append((page, module))
    assert wrong == []


@pytest.mark.usefixtures("command_there")
def test_a_yaml_of_the_pages_has_the_defaults_of_its_schema() -> None:
    registry.load_plugins(["my_models", "my_data", "my_net", "my_parts"])
    named = [name for name in pages.files() if name.startswith("my_configs/")]
    assert len(named) >= 5
    for name in named:
        values = yaml.safe_load(pages.files()[name])
        kind = name.split("/")[1]
        schema = registry.REGISTRIES[kind].entry(values["name"]).config
        defaults = {
            key: field.default for key, field in schema.model_fields.items() if not field.is_required()
        }
        if kind != "data":  # a data set has its own batch size
            assert values == {key: defaults.get(key, values["name"]) for key in values}
        registry.REGISTRIES[kind].parse(values)
