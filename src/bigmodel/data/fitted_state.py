"""What is fitted to the training set and stored in checkpoints: vocabularies, statistics, labels."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from bigmodel.registry import Config

_FORMER_KEYS = {
    "answers": "target_encoder",
    "framing": "settings",
    "hearing": "settings",
    "most_odd": "max_invalid",
    "naming": "patterns",
    "notation": "number_format",
    "odd": "invalid",
    "respelt": "aliases",
    "sounding": "training_statistics",
    "usual": "default_missing",
    "way": "time_format",
}
"""Keys in checkpoints of earlier versions, each with its current name."""


class FittedState(Config):
    """Base of fitted state. Keys of earlier versions are accepted when a checkpoint is read."""

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, stored: Any) -> Any:
        if not isinstance(stored, dict):
            return stored
        upgraded = {key: _FORMER_KEYS.get(key, key) for key in stored}
        return {new if new in cls.model_fields else key: stored[key] for key, new in upgraded.items()}
