"""A model's folder to and from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from espnet_star.errors import StarError, first_line


def check_repo(name: str) -> None:
    """Refuse what cannot be a repository's name.

    Raises:
        StarError: With the hub's own rule.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise StarError(f"{first_line(error)} Expected user/model") from error


def upload(folder: str | Path, repo: str, private: bool = False, message: str = "Upload") -> str:
    """Make the repository if it is not there, and send the folder in one commit.

    Args:
        folder: What to send.
        repo: Name, ``user/model``.
        private: Whether a new repository is a private one.
        message: Message of the commit.

    Returns:
        Address of the commit.

    Raises:
        StarError: Without a token, without network, or if the hub refuses.
    """
    if get_token() is None:
        raise StarError(
            "no Hugging Face token here: run `hf auth login`, or set HF_TOKEN to a token that "
            "may write"
        )
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except Exception as error:  # of the HTTP library, whichever the hub's client uses
        raise StarError(f"{repo} was not uploaded: {first_line(error)}") from error
    return str(commit.commit_url)


def download(repo: str) -> Path:
    """Folder of a repository in the hub's cache.

    Raises:
        StarError: If the name is neither here nor on the hub, or there is no network.
    """
    check_repo(repo)
    try:
        return Path(snapshot_download(repo))
    except Exception as error:  # of the HTTP library, whichever the hub's client uses
        raise StarError(
            f"{repo} is neither a file here nor could it be had from the hub: {first_line(error)}"
        ) from error
