"""One machine plays several processors: what a child process of `test_processors` does.

    python -m tests.faults.processors <folder> begin
    python -m tests.faults.processors <folder> go-on <copy>

Sums, functions and drawn numbers come out otherwise in their last bits under each of `SWITCHES`.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np

SWITCHES: dict[str, dict[str, str]] = {
    "as it is": {},
    "without vector instructions": {"ATEN_CPU_CAPABILITY": "default"},
    "with the sums of any processor": {"MKL_CBWR": "COMPATIBLE"},
    # The first is heeded by processors of MKL's own maker only, the second by all.
    "with narrower instructions": {"MKL_ENABLE_INSTRUCTIONS": "AVX2", "MKL_CBWR": "AVX2"},
}

COMMON = (
    "device=cpu",
    "device.threads=1",
    "scheduler=constant",
    "trainer.record_every_steps=1",
    "trainer.checkpoint.every_steps=1",
    "trainer.tensorboard=false",
)
RUNS: dict[str, tuple[str, ...]] = {
    "drawn": ("data=synthetic", "model=fnn", "data.samples=200"),
    "drawn_pictures": (
        *("data=synthetic", "model=cnn", "model.channels=[8,8]", "device.precision=bf16"),
        *("data.samples=200", "data.input=image", "data.shape=[1,8,8]"),
        *("data.target=classes", "data.outputs=3"),
    ),
    "digits": ("data=digits", "model=fnn", "trainer.limit.val=2"),
    "digits_bf16": ("data=digits", "model=fnn", "device.precision=bf16"),
    "wine": ("data=wine", "model=fnn"),
    "table": ("data=table", "data.path=t.csv", "data.target=y", "data.batch_size=20", "model=fnn"),
    "arrays": (
        "data=arrays",
        "data.path=a.npz",
        "data.batch_size=20",
        "model=rnn",
        "model.hidden_size=8",
    ),
    "texts": ("data=text", "data.path=t.txt", "data.context=16", "model=rnn", "model.hidden_size=8"),
    "sounds": ("data=audio", "data.path=sounds", "data.rate=8000", "data.n_mels=8", "model=fnn"),
    "computed": ("plugins=[computed_data]", "data=synthetic", "data.name=computed", "model=fnn"),
}
STEPS, STOP = 8, 4

PLUGIN = """\
import torch
from bigmodel.data.assemble import assemble
from bigmodel.data.parts import Part
from bigmodel.data.sources.synthetic import SyntheticConfig
from bigmodel.registry import data
from bigmodel.spec import DataSpec, Features, Values

@data.register("computed", SyntheticConfig)
def computed(config):
    drawn = torch.Generator().manual_seed(3)
    inputs = torch.randn(400, 6, generator=drawn) @ torch.randn(6, 6, generator=drawn)
    targets = torch.tanh(inputs).sum(1, keepdim=True).exp().log1p()
    spec = DataSpec("computed", Features(6), Values(("y",), (), ()))
    return assemble(config, spec, Part(inputs, targets), normalize=config.normalize)
"""


def write_data(folder: Path) -> None:
    """Files for the runs that read some."""
    import soundfile

    noise = np.random.default_rng(0)
    rows = noise.normal(3, 7, (300, 4))
    lines = [f"{a},{b},{'pq'[i % 2]},{c}" for i, (a, b, c, _) in enumerate(rows.tolist())]
    (folder / "t.csv").write_text("\n".join(["a,b,kind,y", *lines]))
    np.savez(folder / "a.npz", inputs=noise.normal(5, 2, (200, 6, 3)), targets=noise.normal(size=200))
    (folder / "t.txt").write_text("ROMEO: Good night, good night!\nJULIET: Sweet, so would I.\n" * 60)
    (folder / "computed_data.py").write_text(PLUGIN)
    for kind, pitch in (("low", 300), ("high", 900)):
        (folder / "sounds" / kind).mkdir(parents=True)
        for number in range(20):
            wave = np.sin(np.arange(1600) * 2 * np.pi * (pitch + 5 * number) / 8000)
            wave += noise.normal(0, 0.05, 1600)
            soundfile.write(folder / "sounds" / kind / f"{number}.wav", 0.5 * wave, 8000)


def train(*argv: str) -> tuple[int, str]:
    """`bigmodel-train`: its status and what it printed."""
    from hydra.core.global_hydra import GlobalHydra

    from bigmodel.cli import invocation
    from bigmodel.cli import train as entry

    invocation.current = invocation.Invocation()
    GlobalHydra.instance().clear()
    return _called(entry.main, "bigmodel-train", *argv)


def evaluate(*argv: str) -> tuple[int, str]:
    """`bigmodel eval`, likewise."""
    from bigmodel.cli.commands import main as entry

    return _called(entry.main, "bigmodel", "eval", *argv)


def _called(main, *argv: str) -> tuple[int, str]:  # type: ignore[no-untyped-def]
    sys.argv, printed = list(argv), StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return status, printed.getvalue()


def begin(name: str, steps: int, folder: str) -> None:
    """Runs the first steps of one of `RUNS`, in a folder of its own."""
    told = train(*RUNS[name], *COMMON, f"trainer.max_steps={steps}", f"hydra.run.dir={folder}")
    assert told[0] == 0, told[1]


def losses(folder: Path) -> dict[int, float]:
    """The training loss of each step."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["train/loss"] for record in records}


def go_on(name: str, folder: str) -> dict[str, object]:
    """Judges a stopped run here, has it go on here, and tells what was said."""
    judged = evaluate(folder, "--device", "cpu", *_plugins(name))
    typed = RUNS[name][:1] if name == "computed" else ()
    status, printed = train(f"resume={folder}", f"trainer.max_steps={STEPS}", *typed)
    return {"eval": judged, "resume": (status, printed), "losses": losses(Path(folder))}


def _plugins(name: str) -> tuple[str, ...]:
    return ("--plugins", "computed_data") if name == "computed" else ()


if __name__ == "__main__":
    what, *copy = sys.argv[1:]
    if what == "begin":
        for run in RUNS:
            begin(run, STOP, f"stopped/{run}")
            begin(run, STEPS, f"whole/{run}")
    else:
        shutil.copytree("stopped", copy[0])
        found = {run: go_on(run, f"{copy[0]}/{run}") for run in RUNS}
        Path(f"{copy[0]}.json").write_text(json.dumps(found))
