"""Adapters and merged models on a model hub: the folder that would be pushed, with its card, and the push itself."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.atomic import write_text
from finetune.adapters import CONFIG, WEIGHTS, check_whole
from finetune.errors import FinetuneError
from finetune.export import merge_adapter, stored_dtype
from finetune.model_card import Score, base_name, write_card
from finetune.models import model_folder
from finetune.new_folders import new_folder
from finetune.run_record import RunRecord, read_run_record, write_run_record

CARD = "README.md"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Staged:
    """What would be pushed: the folder, and its files with their sizes in bytes."""

    folder: Path
    files: tuple[tuple[str, int], ...]


def check_repository(name: str) -> None:
    """Raise FinetuneError unless `name` is OWNER/NAME."""
    if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
        raise FinetuneError(f"--repo {name!r} is no OWNER/NAME of a model hub")


def stage(
    adapter: Path,
    output: Path,
    *,
    name: str,
    licence: str | None = None,
    merged: bool = False,
    scores: Sequence[Score] = (),
    run: str = "",
) -> Staged:
    """Write what is to be pushed to `output`: weights, configuration, run record and model card.

    Paths of this machine are taken out of the run record and the adapter's configuration. `merged` shares a model that
    stands alone instead of the adapter. Raises FinetuneError.
    """
    check_whole(adapter)
    record = read_run_record(adapter)
    public = dataclasses.replace(record, base_model=base_name(record), recipe=_without_paths(record.recipe))
    card = write_card(name, record, licence=licence, merged=merged, scores=scores, run=run)
    if merged:
        merge_adapter(adapter, output, dtype=stored_dtype(model_folder(record.base_model)))
        _finish(output, card, public)
    else:
        with new_folder(output) as folder:
            shutil.copyfile(adapter / WEIGHTS, folder / WEIGHTS)
            config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
            config["base_model_name_or_path"] = base_name(record)
            write_text(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
            _finish(folder, card, public)
    files = tuple((path.name, path.stat().st_size) for path in sorted(output.iterdir()))
    return Staged(output, files)


def push(staged: Staged, repository: str, *, private: bool = True, endpoint: str | None = None) -> str:
    """Create the repository on the hub if need be, upload the staged folder, and return its address.

    The token is that of `hf auth login`, or $HF_TOKEN. Raises FinetuneError that says what the hub answered.
    """
    check_repository(repository)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=str(staged.folder), commit_message="Shared with Versus"
        )
    except (LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        raise FinetuneError(
            f"the hub cannot be written to ({str(error).splitlines()[0]}): run `hf auth login` or set HF_TOKEN, and "
            "unset HF_HUB_OFFLINE"
        ) from error
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "no answer"
        mend = "; log in with `hf auth login` as its owner" if code in (401, 403) else ""
        raise FinetuneError(f"the hub refused {repository} ({code}: {str(error).splitlines()[0]}){mend}") from error
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith("httpx"):
            raise
        raise FinetuneError(f"the hub cannot be reached: {str(error).splitlines()[0]}") from error
    return str(done.repo_url) if hasattr(done, "repo_url") else f"{api.endpoint}/{repository}"


def _finish(folder: Path, card: str, record: RunRecord) -> None:
    """Add card and run record to a staged folder."""
    write_text(folder / CARD, card)
    write_run_record(folder, record)


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe whose model is named as others call it."""
    model = dict(recipe.get("model", {}))
    if "name" in model and (Path(model["name"]).is_dir() or str(model["name"]).startswith(("/", ".", "~"))):
        model["name"] = Path(model["name"]).name
    return {**recipe, "model": model}
