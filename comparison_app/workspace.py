"""The folder that holds all that Versus makes: indexes, adapters, models, runs, votes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from comparison_app.errors import ComparisonError
from data_prep.corpus import SAMPLE_CORPUS, Corpus, find_corpus, load_corpus
from finetune.new_folders import is_unfinished

ENVIRONMENT_VARIABLE = "VERSUS_WORKSPACE"
BUNDLED_ADAPTERS = Path(__file__).resolve().parent.parent / "finetune" / "pocket" / "adapters"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths inside one workspace folder; nothing is made until something is written."""

    path: Path

    @classmethod
    def resolve(cls, given: str | None) -> Workspace:
        """Return the workspace given on the command line, else by the environment, else `./workspace`."""
        return cls(Path(given or os.environ.get(ENVIRONMENT_VARIABLE) or "workspace"))

    @property
    def runs(self) -> Path:
        """Where runs are kept, one folder each."""
        return self.path / "runs"

    @property
    def adapters(self) -> Path:
        """Where trained adapters are kept, one folder each."""
        return self.path / "adapters"

    @property
    def models(self) -> Path:
        """Where models made here are kept, one folder each; commands find them there by name."""
        return self.path / "models"

    @property
    def tokenizers(self) -> Path:
        """Where vocabularies trained here are kept, one folder each."""
        return self.path / "tokenizers"

    def tokenizer(self, name: str) -> str:
        """Return the folder of a tokenizer trained here, else `name` as it is: a path, or a model's name."""
        place = self.tokenizers / name
        return str(place) if Path(name).name == name and place.is_dir() else name

    @property
    def corpora(self) -> Path:
        """Where corpora that the user made are kept."""
        return self.path / "corpora"

    def corpus(self, name: str | None) -> Corpus:
        """Load a corpus by path or name (the sample manual if None)."""
        return load_corpus(find_corpus(name or SAMPLE_CORPUS, self.path))

    def corpus_folder(self, name: str) -> Path:
        """Return the folder that a corpus is written to: a path as it is, a bare name in `corpora/`."""
        return self.corpora / name if Path(name).name == name else Path(name)

    def adapter(self, name: str) -> Path:
        """Return the folder of an adapter: one trained here, or one bundled with Versus."""
        places = [self.adapters / name, BUNDLED_ADAPTERS / name, Path(name)]
        for place in places:
            if (place / "run_record.json").is_file() and not is_unfinished(place):
                return place
        known = ", ".join(self.adapter_names()) or "none"
        raise ComparisonError(f"no adapter {name!r}; there are: {known}; `versus train RECIPE` makes one")

    def adapter_names(self) -> list[str]:
        """Return the names of all usable adapters, bundled ones included."""
        folders = [place for place in (self.adapters, BUNDLED_ADAPTERS) if place.is_dir()]
        found = (path.parent for folder in folders for path in folder.glob("*/run_record.json"))
        return sorted({adapter.name for adapter in found if not is_unfinished(adapter)})

    def finished_runs(self) -> list[str]:
        """Return the names of the runs that have a summary, the newest first."""
        finished = sorted(self.runs.glob("*/summary.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [path.parent.name for path in finished]

    def new_run_name(self, experiment: str) -> str:
        """Return a name for a run of `experiment` that starts now."""
        return f"{experiment}-{datetime.now():%Y%m%d-%H%M%S}"

    def run(self, name: str) -> Path:
        """Return the folder of an existing run, by name or path."""
        for place in (self.runs / name, Path(name)):
            if (place / "experiment.toml").is_file():
                return place
        known = ", ".join(sorted(path.parent.name for path in self.runs.glob("*/experiment.toml"))) or "none"
        raise ComparisonError(f"no run {name!r} in {self.runs}; there are: {known}")


def training_name(text: str) -> str:
    """Return the name of a folder to be made in a workspace, stripped; raises `ComparisonError`."""
    name = text.strip()
    if not re.fullmatch(r"\w[\w.\-]{0,79}", name):
        raise ComparisonError(f"the name {name[:40]!r} will not do: use letters, digits, dots and dashes, at most 80")
    return name


def run_name(text: str) -> str:
    """Return the name of a run: any that a single folder can have, as experiments name theirs.

    Raises `ComparisonError`.
    """
    if not text.strip() or text in (".", "..") or Path(text).name != text:
        raise ComparisonError(f"the name {text[:40]!r} will not do: it must be that of one folder, not a path")
    return text
