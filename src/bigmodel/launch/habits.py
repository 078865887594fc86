"""What people type who know other tools, and what it is here.

The names are those of Lightning (L), the Trainer of Transformers (T), Keras (K), timm (t) and
scikit-learn (s). An entry says what to type instead; `{}` stands for the value that was given, and an
entry without it for itself. Each has to be accepted when it is pasted, and a test pastes them all.
"""

from __future__ import annotations

import re
from pathlib import PurePath

from bigmodel.typed import pasted, setting

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
    "optimizer.lr": "lr learning_rate learning_rate_init base_lr alpha eta0",  # L K T s t
    "optimizer.weight_decay": "weight_decay wd l2",  # L T t
    "optimizer": "opt optim solver",  # t T s
    "scheduler": "sched lr_scheduler_type lr_scheduler",  # t T K
    "scheduler.warmup": "warmup_steps num_warmup_steps warmup warmup_epochs",  # T t
    "model": "arch architecture network net model_name",  # t
    "model.dropout": "dropout drop drop_rate dropout_rate",  # t K
    "model.activation": "activation act act_layer",  # K s t
    "loss": "criterion loss_fn loss_function objective",
    "device.precision": "precision dtype mixed_precision",  # L K T
    "device.threads": "num_threads intra_op_threads",
    "device.compile": "torch_compile torchcompile jit_compile",  # T t K
    "device.deterministic": "deterministic",  # L
    "seed": "seed_everything random_state random_seed manual_seed",  # L s
    "output_dir": "default_root_dir log_dir logdir save_dir outdir output logging_dir",  # L T t
    "resume": "resume_from_checkpoint ckpt_path resume_from checkpoint ckpt load_from",  # T L
    "profile": "profiler profiling",  # L
    "trainer.histograms": "histogram_freq",  # K
}
_ALWAYS = {
    "debug=fast": "fast_dev_run dry_run smoke_test",  # L
    "debug=overfit": "overfit_batches overfit",  # L
    "device=cuda": "use_cuda cuda gpu",
    "device=cpu": "no_cuda use_cpu cpu",  # T
    "device.precision=fp16": "fp16 amp use_amp",  # T t
    "device.precision=bf16": "bf16",  # T
    "model=fnn": "mlp",
    "optimizer.nesterov=true optimizer=sgd": "nesterov",
    "trainer.tensorboard=true": "logger report_to",
}
_LISTS = {"model.hidden_sizes": "hidden_layer_sizes hidden_sizes hidden_dims layers units"}  # s K
_DEVICES = (
    "devices",
    "gpus",
    "n_gpus",
    "num_gpus",
    "n_gpu",
    "accelerator",
    "device_ids",
    "gpu_ids",
)  # L
_PRECISIONS = {"16": "fp16", "32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
_PRECISIONS |= {"float32": "fp32", "no": "fp32", "16-mixed": "fp16", "bf16-mixed": "bf16"}
_PRECISIONS |= {"16-true": "fp16", "bf16-true": "bf16", "32-true": "fp32", "true": "auto"}
_VERBS = {"fit": "", "train": "", "run": "", "start": "", "help": "--help", "version": "--version"}
_KINDS = {
    "table": (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson"),
    "arrays": (".npz", ".safetensors"),
    "text": (".txt",),
    "images": (".png", ".jpg", ".jpeg", ".webp", ".zip"),
    "audio": (".wav", ".flac", ".mp3", ".ogg"),
}


def _by_name(entries: dict[str, str]) -> dict[str, str]:
    return {name: ours for ours, names in entries.items() for name in names.split()}


SETTINGS, ALWAYS, LISTS = _by_name(_SETTINGS), _by_name(_ALWAYS), _by_name(_LISTS)


def meant(key: str, value: str) -> str | None:
    """What to type in place of a setting that other tools call so, or None where no habit is known.

    Args:
        key: as typed, with or without dashes or a section in front: `max_epochs`, `trainer.max_epochs`.
        value: as typed; empty where none was.
    """
    name = key.lstrip("-+").rpartition(".")[2].replace("-", "_").lower()
    if name in ALWAYS:
        return ALWAYS[name]
    if name in _DEVICES:
        return f"device={_device(value)}"
    if name in LISTS:
        numbers = re.findall(r"\d+", value) or ["256", "128"]
        return pasted(f"{LISTS[name]}=[{','.join(numbers)}]")
    ours = SETTINGS.get(name)
    if ours is None or ours == key:
        return None
    if ours == "data.path":
        return meant_file(value)
    if ours == "device.precision":
        value = _PRECISIONS.get(value.lower(), value)
    return pasted(f"{ours}={value}") if value else f"{ours}=…"


def meant_file(path: str) -> str | None:
    """What to type for a file that was named by itself, or None where its kind is not known."""
    name = PurePath(path).name.lower().removesuffix(".gz")
    kind = next((kind for kind, ends in _KINDS.items() if name.endswith(ends)), None)
    return None if kind is None else f"data={kind} {setting('data.path', path)}"


def meant_word(word: str) -> str | None:
    """A sentence on a word that other tools begin with, such as `train` or `help`."""
    if word in _VERBS:
        other = _VERBS[word]
        return (
            f"Did you mean bigmodel-train {other}?" if other else "bigmodel-train trains: leave it out."
        )
    if word in ("eval", "evaluate", "validate", "test", "predict", "export"):
        verb = word if word in ("predict", "export") else "eval"
        return f"That is another program: bigmodel {verb} <run folder>."
    file = meant_file(word)
    return None if file is None else f"Did you mean {file}?"


def _device(value: str) -> str:
    """`0` GPUs are the CPU, as is `accelerator=cpu`; several are none that one run can use."""
    kind = value.strip("[]'\"").lower()
    if kind in ("0", "cpu", "none", "null"):
        return "cpu"
    return kind if kind in ("auto", "mps") else "cuda"
