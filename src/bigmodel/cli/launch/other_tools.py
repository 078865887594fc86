"""Suggestions for settings that are typed with their name in another tool.

The names are those of Lightning (L), the Trainer of Transformers (T), Keras (K), timm (t) and
scikit-learn (s). A suggestion includes the value only if that means the same here and the schema accepts
it; otherwise it names the setting and describes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from bigmodel.cli.launch.config_index import ConfigIndex, Key
from bigmodel.cli.launch.suggestion_check import are_allowed
from bigmodel.errors import hydra_value, setting, shell_quoted

_SETTINGS = {
    "trainer.epochs": "max_epochs epochs num_epochs n_epochs num_train_epochs max_iter",  # L K T s
    "trainer.max_steps": "max_steps total_steps num_steps num_training_steps",  # L T
    "trainer.clip_norm": "gradient_clip_val max_grad_norm clip_grad clipnorm clip_norm",  # L T t K
    "trainer.accumulate": "accumulate_grad_batches gradient_accumulation_steps grad_accum_steps"
    " accum_steps",  # L T t
    "trainer.log_every_steps": "log_every_n_steps logging_steps log_interval",  # L T t
    "trainer.eval_every": "check_val_every_n_epoch validation_freq",  # L K
    "trainer.eval_every_steps": "val_check_interval eval_steps",  # L T
    "trainer.limit.train": "limit_train_batches steps_per_epoch max_train_samples",  # L K T
    "trainer.limit.val": "limit_val_batches validation_steps",  # L K
    "trainer.limit.test": "limit_test_batches",  # L
    "trainer.ema": "model_ema_decay ema_decay ema",  # t
    "trainer.early_stopping.patience": "patience early_stopping_patience n_iter_no_change",  # L K T s
    "trainer.early_stopping.min_delta": "min_delta tol early_stopping_threshold",  # L K s T
    "trainer.checkpoint.monitor": "monitor metric_for_best_model eval_metric",  # L K T t
    "trainer.checkpoint.keep": "save_top_k save_total_limit checkpoint_hist",  # L T t
    "trainer.checkpoint.every_steps": "save_steps every_n_train_steps",  # T L
    "data.batch_size": "batch_size bs b per_device_train_batch_size train_batch_size",  # K t T
    "data.workers": "num_workers dataloader_num_workers workers j n_jobs",  # L T t s
    "data.val_fraction": "validation_split validation_fraction val_split test_size val_frac",  # K s
    "data.path": "data_path data_dir train_file dataset_path root csv file",  # T t
    "data.val_path": "val_path validation_file val_file",  # T
    "data.test_path": "test_path test_file",  # T
    "data.drop_last": "drop_last dataloader_drop_last",  # T
    "optimizer.lr": "lr learning_rate learning_rate_init base_lr eta0",  # L K T s t
    "optimizer.weight_decay": "weight_decay wd l2",  # L T t
    "optimizer": "opt optim solver",  # t T s
    "scheduler": "sched lr_scheduler_type lr_scheduler",  # t T K
    "scheduler.warmup": "warmup_steps num_warmup_steps warmup warmup_epochs",  # T t
    "model.depth": "layers n_layers n_layer num_hidden_layers",  # T
    "model.num_layers": "layers n_layers n_layer num_hidden_layers",
    "model.hidden_sizes": "hidden_layer_sizes hidden_sizes hidden_dims layers units",  # s K
    "model.hidden_size": "units hidden_dim",  # K
    "model": "arch architecture network net model_name",  # t
    "model.dropout": "dropout drop drop_rate dropout_rate",  # t K
    "model.activation": "activation act act_layer",  # K s t
    "loss": "criterion loss_fn loss_function objective",
    "device.precision": "precision dtype mixed_precision",  # L K T
    "device.threads": "num_threads intra_op_threads",
    "device.compile": "torch_compile torchcompile jit_compile",  # T t K
    "device.deterministic": "deterministic",  # L
    "logger": "report_to log_with loggers trackers",  # T
    "seed": "seed_everything random_state random_seed manual_seed",  # L s
    "run.name": "run_name experiment_name exp_name wandb_run_name name",  # T
    "run.tags": "tags wandb_tags",
    "run.notes": "notes description comment",
    "output_dir": "default_root_dir log_dir logdir save_dir outdir output logging_dir",  # L T t
    "resume": "resume_from_checkpoint ckpt_path resume_from checkpoint ckpt load_from",  # T L
}
_SWITCHES = {  # replacement if on; if off (empty: leave it out) and names
    "debug=fast": ("", "fast_dev_run dry_run smoke_test"),  # L
    "debug=overfit": ("", "overfit_batches overfit"),  # L
    "device=cuda": ("device=cpu", "use_cuda"),
    "device=cpu": ("device=auto", "no_cuda use_cpu cpu"),  # T
    "device.precision=fp16": ("device.precision=fp32", "fp16 amp use_amp"),  # T t
    "device.precision=bf16": ("device.precision=fp32", "bf16"),  # T
    "model=fnn": ("", "mlp"),
    "optimizer.nesterov=true optimizer=sgd": ("", "nesterov"),
    "profile=true": ("profile=false", "profiler profiling"),  # L
    "trainer.histograms=true": ("trainer.histograms=false", "histogram_freq"),  # K
}
_ON = re.compile(r"|true|yes|on|[1-9]\d*|simple|advanced|pytorch|tensorboard|all", re.IGNORECASE)
_OFF = re.compile(r"false|no|off|none|null|0+(\.0*)?|\[\]", re.IGNORECASE)
_SHARE = re.compile(r"0?\.\d*[1-9]\d*|1\.0*")
_MEANT = re.compile(r"true|false|null|", re.IGNORECASE)
_GPUS = (
    *("accelerator", "devices", "gpus", "n_gpus", "num_gpus", "n_gpu"),  # L T
    *("device_ids", "gpu_ids", "gpu", "cuda"),
)
_OTHER_UNITS = ("max_train_samples",)  # T: samples; ours are batches
_WIDTHS = re.compile(r"[\[(]? *\d+ *(, *\d+ *)*,? *[\])]?")
_PRECISIONS = {"16": "fp16", "32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
_PRECISIONS |= {"float32": "fp32", "no": "fp32", "16-mixed": "fp16", "bf16-mixed": "bf16"}
_PRECISIONS |= {"16-true": "fp16", "bf16-true": "bf16", "32-true": "fp32", "true": "auto"}
_PRECISIONS |= {"false": "fp32", "float": "fp32", "mixed_float16": "fp16", "mixed_bfloat16": "bf16"}
_VERBS = {"fit": "", "train": "", "run": "", "start": "", "help": "--help", "version": "--version"}
_KINDS = {
    "table": (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson"),
    "arrays": (".npz", ".safetensors"),
    "text": (".txt",),
    "images": (".png", ".jpg", ".jpeg", ".webp", ".zip"),
    "audio": (".wav", ".flac", ".mp3", ".ogg"),
}


def _by_name(entries: dict[str, str]) -> dict[str, list[str]]:
    targets: dict[str, list[str]] = {}
    for target, names in entries.items():
        for name in names.split():
            targets.setdefault(name, []).append(target)
    return targets


SETTINGS = _by_name(_SETTINGS)
SWITCHES = {name: (on, off) for on, (off, names) in _SWITCHES.items() for name in names.split()}
NAMES = sorted({*SETTINGS, *SWITCHES, *_GPUS})


def suggest(key: str, value: str, index: ConfigIndex, argv: Sequence[str]) -> str | None:
    """What to type instead of a setting with its name in another tool; None if the name is unknown.

    Args:
        key: as typed, with or without dashes or a section in front: `max_epochs`, `trainer.max_epochs`.
        value: as typed; empty if there was none.
        index: the groups, choices and settings.
        argv: the arguments, which make choices.

    Returns:
        A sentence: `Did you mean trainer.epochs=3?`, or the name of the setting here.
    """
    section, _, name = key.lstrip("-+").rpartition(".")
    target = f"{section}.{name}"
    if section in index.groups and _choices_with(target, index):
        return None  # it is a setting of another choice in that section
    name = name.replace("-", "_").lower()
    if name in SWITCHES:
        return _switch(name, value, index, argv)
    if name in _GPUS:
        return _device(name, value, index, argv)
    known = index.paths(argv)
    candidates = SETTINGS.get(name, [])
    meant = next((one for one in candidates if one in known or one in index.groups), None)
    if meant is None:
        hints = (_describe(one, index, argv) for one in candidates)
        return suggest_data(value) if "data.path" in candidates else next(filter(None, hints), None)
    if meant == key:
        return None
    if meant == "data.path" and (file := suggest_file(value)) is not None:
        return f"Did you mean {file}?"
    for words in _spellings(name, meant, value):
        if are_allowed(words, index, argv):
            return _did_you_mean(words)
    return _describe(meant, index, argv)


def suggest_data(value: str) -> str | None:
    """The same for a data file whose kind is not chosen yet."""
    file = suggest_file(value)
    return None if file is None else f"Did you mean {file}?"


def _spellings(name: str, target: str, value: str) -> list[list[str]]:
    """Ways to write a setting with its value, the likeliest first; none if the meaning differs."""
    plain = value.strip("'\"")
    if not value or name in _OTHER_UNITS:
        return []
    if target == "resume" and plain != "auto" and not Path(plain).is_dir():
        return []
    if target == "model.hidden_sizes" and name != "layers":
        widths = ",".join(re.findall(r"[0-9]+", value))
        return [[f"{target}=[{widths}]"]] if _WIDTHS.fullmatch(value) else []
    if target == "device.precision":
        value = plain = _PRECISIONS.get(plain.lower(), plain.lower())
    if target == "trainer.checkpoint.monitor":
        value = plain = re.sub(r"^(?:val|eval)_", "val/", plain)
        if not re.fullmatch(r"(val|train)/\w+", value):
            return []
    if "." not in target and target in ("optimizer", "scheduler", "model", "loss"):
        value = plain = plain.lower()
    before = ["scheduler.interval=epoch"] if name == "warmup_epochs" else []
    ways = [f"{target}={value}"]
    if not _MEANT.fullmatch(value):
        ways.append(f"{target}={hydra_value(plain, literal=True)}")
    return [[*before, way] for way in ways]


def _switch(name: str, value: str, index: ConfigIndex, argv: Sequence[str]) -> str | None:
    """The suggestion for a switch that is on or off."""
    on, off = SWITCHES[name]
    share = name == "overfit_batches" and _SHARE.fullmatch(value)
    if not share and not _ON.fullmatch(value) and not _OFF.fullmatch(value):
        return _describe(on.partition("=")[0], index, argv)
    words = (off if _OFF.fullmatch(value) else on).split()
    if not words:
        return "Leave it out."
    return _did_you_mean(words) if are_allowed(words, index, argv) else None


def _device(name: str, value: str, index: ConfigIndex, argv: Sequence[str]) -> str | None:
    """The suggestion for a device: `gpus=0` means the CPU; of several GPUs, a run uses one."""
    bare = value.strip("[]()'\" ").lower()
    numbers = re.findall(r"\d+", bare) if re.fullmatch(r"\d+( *, *\d+)*,?", bare) else []
    listed = len(numbers) > 1 or value[:1] in ("[", "(") or name.endswith("_ids")
    aliases = {"gpu": "cuda", "none": "cpu", "null": "cpu", "false": "cpu"}
    device, several = aliases.get(bare, bare), False
    if name in ("gpu", "cuda") and bare == "true":
        device = "cuda"
    elif numbers and listed:
        several = len(numbers) > 1
        device = "cuda" if several or int(numbers[0]) == 0 else f"cuda:{int(numbers[0])}"
    elif name in ("gpu", "cuda", "accelerator"):
        pass  # a number may be a count or an index
    elif numbers or bare == "-1":
        several = bare == "-1" or int(bare) > 1
        device = "cpu" if bare.strip("0") == "" else "cuda"
    if not are_allowed([f"device={device}"], index, argv):
        return _describe("device", index, argv)
    return _did_you_mean([f"device={device}"]) + (" A run uses one GPU." if several else "")


def _did_you_mean(words: Sequence[str]) -> str:
    return f"Did you mean {' '.join(map(shell_quoted, words))}?"


def _describe(target: str, index: ConfigIndex, argv: Sequence[str]) -> str | None:
    """The name of the setting here with its description, without a value."""
    if target in index.groups:
        return f"Here it is {target}, one of: {', '.join(sorted(index.groups[target].choices))}."
    choices = _choices_with(target, index)
    if not choices:
        top = next((key for key in index.top if key.path == target), None)
        return None if top is None else f"Here it is {target}: {top.description}."
    key = next(iter(choices.values()))
    only = "" if target in index.paths(argv) else f", which only {', '.join(choices)} knows"
    return f"Here it is {target}{only}: {key.description}."


def _choices_with(target: str, index: ConfigIndex) -> dict[str, Key]:
    """The choices that have a setting."""
    group = index.groups.get(target.partition(".")[0])
    choices = group.choices.values() if group is not None else ()
    return {f"{c.group}={c.name}": key for c in choices for key in c.keys if key.path == target}


def suggest_file(path: str) -> str | None:
    """What to type for a file that was given alone; None if its kind is unknown."""
    name = PurePath(path).name.lower().removesuffix(".gz")
    kind = next((kind for kind, ends in _KINDS.items() if name.endswith(ends)), None)
    return None if kind is None else f"data={kind} {setting('data.path', path)}"


def suggest_verb(word: str) -> str | None:
    """A suggestion for a verb of other tools, such as `train` or `help`."""
    if word in _VERBS:
        flag = _VERBS[word]
        return f"Did you mean bigmodel-train {flag}?" if flag else "bigmodel-train trains: leave it out."
    if word in ("eval", "evaluate", "validate", "test", "predict", "export"):
        verb = word if word in ("predict", "export") else "eval"
        return f"That is another program: bigmodel {verb} <run folder>."
    file = suggest_file(word)
    return None if file is None else f"Did you mean {file}?"
