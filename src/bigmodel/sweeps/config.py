"""The settings of a sweep."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from bigmodel.registry import Config


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
    zip: list[str] = Field([], description="keys whose values are taken pairwise, as [model,seed]")
    keep: int | None = Field(
        None, ge=0, description="jobs whose checkpoints are kept, the best ones; null: all"
    )
    retries: int = Field(0, ge=0, description="how often a job that failed is tried again")
    on_error: Literal["continue", "stop"] = Field(
        "continue", description="after a job that failed: continue, or stop the others"
    )
    plan: bool = Field(False, description="only show what would run, and what it would cost")
    resume: str | None = Field(None, description="folder of a sweep to go on with")
    extend: bool = Field(False, description="a resumed sweep may get more jobs")
