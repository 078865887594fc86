"""The settings of a sweep."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from bigmodel.registry import Config


def _one_line(text: str) -> str:
    if not text or not text.isprintable():  # it becomes a line of a script
        raise ValueError("should be one line of printable characters")
    return text


Option = Annotated[str, AfterValidator(_one_line)]
OptionName = Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]


class SlurmConfig(Config):
    """What each job asks Slurm for, by submitit's names."""

    cluster: Literal["slurm", "local"] = Field(
        "slurm", description="slurm; local: processes of this machine, to try it without Slurm"
    )
    name: Option = Field("bigmodel-train", description="name of the jobs in the queue")
    partition: Option | None = Field(None, description="partition; null: Slurm's default, as below")
    account: Option | None = Field(None, description="account to charge")
    qos: Option | None = Field(None, description="quality of service")
    constraint: Option | None = Field(None, description="features that a node must have")
    timeout_min: int = Field(
        60,
        ge=1,
        description="time limit in minutes; a job that takes longer is queued again and goes on",
    )
    max_num_timeout: int = Field(
        10, ge=0, description="how often it is queued again; then it counts as stopped"
    )
    signal_delay_s: int = Field(
        120, ge=1, le=65535, description="seconds before its time is up in which it saves"
    )
    max_submitted: int = Field(
        1000, ge=1, description="most jobs in the queue at a time, as Slurm limits users and arrays"
    )
    gpus_per_node: int | None = Field(None, ge=0, description="GPUs of a job")
    cpus_per_task: int | None = Field(None, ge=1, description="processors of a job")
    mem_gb: float | None = Field(None, gt=0, description="memory of a job in GB")
    additional_parameters: dict[OptionName, Option | int | float | bool] = Field(
        {}, description="other options of sbatch, as {nodelist: node7}"
    )

    @field_validator("signal_delay_s")
    @classmethod
    def _after_the_start(cls, seconds: int, info: ValidationInfo) -> int:
        if seconds >= 60 * info.data.get("timeout_min", math.inf):
            raise ValueError("should be less than sweep.slurm.timeout_min, which is in minutes")
        return seconds


class SweepConfig(Config):
    """How a sweep's jobs are run."""

    jobs: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="jobs at a time; auto: by the machine's processors or GPUs"
    )
    gpus: list[Annotated[int, Field(ge=0)]] | Literal["auto"] = Field(
        "auto", description="GPUs to use, as [0,2]; auto: all"
    )
    jobs_per_gpu: int = Field(1, ge=1, description="jobs that share a GPU")
    seeds: int | None = Field(None, ge=1, description="seeds to run each job with, from seed on")
    folds: int | None = Field(
        None, ge=2, description="folds to cross-validate each job with; null: none"
    )
    zip: list[str] = Field([], description="keys whose values are taken pairwise, as [model,seed]")
    keep: int | None = Field(
        None, ge=0, description="jobs whose checkpoints are kept, the best ones; null: all"
    )
    retries: int = Field(0, ge=0, description="how often a job that failed is tried again")
    on_error: Literal["continue", "stop"] = Field(
        "continue", description="after a job that failed: continue, or stop the others"
    )
    launcher: Literal["local", "submitit"] = Field(
        "local", description="what runs the jobs: local: this machine; submitit: Slurm"
    )
    slurm: SlurmConfig = Field(SlurmConfig(), description="what each job asks Slurm for")
    plan: bool = Field(False, description="only show what would run, and what it would cost")
    resume: str | None = Field(None, description="folder of a sweep to go on with")
    extend: bool = Field(False, description="a resumed sweep may get more jobs")
    refit: str | None = Field(
        None, description="folder of a sweep whose best settings are trained again, without -m"
    )
    refit_on: Literal["train", "all"] = Field(
        "train", description="what they are trained on: train, or all, the validation set too"
    )
    refit_metric: str | None = Field(
        None, description="metric that chooses them, such as val/loss; null: the sweep's own"
    )
    refit_name: Option = Field("winner", min_length=1, description="name of their experiment")


class SearchConfig(SweepConfig):
    """How a search chooses the values of its jobs."""

    search: Literal["optuna"] = Field("optuna", description="what chooses the values")
    trials: int = Field(20, ge=1, description="jobs in all")
    sampler: Literal["tpe", "cmaes", "gp", "random", "grid", "qmc"] = Field(
        "tpe", description="how values are chosen: tpe, cmaes, gp, random, grid, qmc"
    )
    pruner: Literal["auto", "none", "median", "hyperband", "successive_halving"] = Field(
        "auto",
        description="what ends bad jobs early: median, hyperband, successive_halving, none; auto:"
        " median, and none for several metrics",
    )
    metrics: list[str] = Field(
        [], description="what to optimize, as [val/accuracy,seconds]; []: trainer.checkpoint.monitor"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler")
    storage: str | None = Field(
        None, min_length=1, description="SQLite file of the search; null: search.db in its folder"
    )
    study: str | None = Field(
        None, min_length=1, description="the search's name in that file; null: bigmodel-train"
    )


Settings = Annotated[str, Field(min_length=1)]
"""What a job sets, with spaces between: `model=fnn model.dropout=0.2`."""


class ModelsConfig(SweepConfig):
    """Which models are tried, by the kind of data."""

    baselines: bool = Field(True, description="fit plain models of scikit-learn beside them")
    tables: list[Settings] = Field(
        [
            "model=fnn",
            "model=fnn model.hidden_sizes=[512,256] model.dropout=0.2",
            "model=attention",
            "model=transformer",
        ],
        description="settings of each job on tables",
    )
    images: list[Settings] = Field(
        ["model=cnn", "model=fnn model.dropout=0.2", "model=attention", "model=transformer"],
        description="the same on images",
    )
    sequences: list[Settings] = Field(
        ["model=rnn", "model=cnn", "model=transformer", "model=fnn"], description="the same on sequences"
    )
    texts: list[Settings] = Field(
        ["model=fnn", "model=cnn", "model=rnn", "model=transformer"],
        description="the same on texts with labels or numbers",
    )
