"""Errors of the package `finetune`.

data_prep.errors.VersusError
└── FinetuneError
    ├── RecipeError         a recipe with unknown, wrong or contradictory keys; lists all of them
    ├── ModelError          a base model that is missing, not loadable here, or has no chat template
    ├── TrainingDataError   questions that cannot be trained on: none, or longer than the context
    ├── TrainingError       a training that cannot go on: non-finite loss, out of memory, a damaged checkpoint
    ├── LaunchError         several processes that cannot be started so
    ├── AdapterError        an adapter that is missing, half written, or made for another base model
    └── PromptError         a prompt that does not fit into the model's context
"""

from __future__ import annotations

from data_prep.errors import VersusError


class FinetuneError(VersusError):
    """Something in `finetune` that the user can mend."""


class RecipeError(FinetuneError):
    """A recipe with unknown, wrong or contradictory keys; the message lists all of them, and so does `problems`."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ModelError(FinetuneError):
    """A base model that is missing, cannot be loaded on this device, or has no chat template."""


class TrainingDataError(FinetuneError):
    """Questions that cannot be trained on: none, or longer than the model's context."""


class TrainingError(FinetuneError):
    """A training that cannot go on: non-finite loss, out of memory, a damaged checkpoint."""


class LaunchError(FinetuneError):
    """Several processes or machines that cannot be started as asked."""


class AdapterError(FinetuneError):
    """An adapter that is missing, half written, or made for another base model."""


class PromptError(FinetuneError):
    """A prompt that does not fit into the model's context."""
