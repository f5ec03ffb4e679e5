"""What a login by OpenID Connect needs, checked before the app starts: Streamlit says it only to who clicks."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

from comparison_app.errors import ComparisonError

NEEDED = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
SECRETS = Path(".streamlit") / "secrets.toml"


def check_login(folder: Path | None = None) -> None:
    """Raise `ComparisonError` that names every mend, unless a login can work.

    Streamlit reads `.streamlit/secrets.toml` of the home folder and of the one that the app is started in (`folder`,
    by default the current one); what stands in the latter goes before.
    """
    if importlib.util.find_spec("authlib") is None:
        raise ComparisonError("--login needs the package authlib: pip install 'rag-vs-finetune[login]'")
    own = (folder or Path.cwd()) / SECRETS
    found = [path for path in (Path.home() / SECRETS, own) if path.is_file()]
    if not found:
        raise ComparisonError(f"--login needs {own}, with a section [auth]; docs/deploy.md shows one")
    auth: dict[str, Any] = {}
    for path in found:
        auth.update(_section(path))
    missing = [key for key in NEEDED if not auth.get(key)]
    if missing:
        raise ComparisonError(
            f"{found[-1]}: [auth] lacks {', '.join(missing)}; docs/deploy.md shows what belongs there"
        )


def _section(path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("auth", {})
    except (OSError, ValueError) as error:
        raise ComparisonError(f"{path}: cannot be read as TOML ({error})") from error
    if not isinstance(found, dict):
        raise ComparisonError(f"{path}: auth must be a section, [auth]")
    return found
