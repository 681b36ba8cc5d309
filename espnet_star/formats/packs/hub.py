"""A pack to the Hugging Face hub, and a model's folder from it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, snapshot_download
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from espnet_star.errors import StarError, first_line
from espnet_star.formats.packs.unpack import extract_checked
from espnet_star.terminal.units import size


def check_repo(name: str) -> None:
    """Refuse what cannot be a repository's name.

    Raises:
        StarError: With the hub's own rule.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise StarError(f"{first_line(error)} Expected user/model") from error


def upload(
    pack: str | Path,
    repo: str,
    private: bool = False,
    message: str = "Upload model",
    dry_run: bool = False,
) -> str:
    """Send the files of a pack in one commit, into a repository that is made if need be.

    Args:
        pack: What ``star_export pack`` wrote; checked as before it is unpacked.
        repo: Name, ``user/model``.
        private: Whether a new repository is a private one.
        message: Message of the commit.
        dry_run: Send nothing.

    Returns:
        Address of the commit; with ``dry_run`` what would be sent.

    Raises:
        StarError: If the pack is damaged or names no license; without a token, without
            network, or if the hub refuses.
    """
    check_repo(repo)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pack"
        # As they are: the hub's readers resolve the relative paths in configurations.
        extract_checked(pack, folder)
        readme = folder / "README.md"
        if not readme.is_file():
            raise StarError(f"{pack} has no README.md; star_export pack writes one")
        text = readme.read_text(encoding="utf-8")
        license = ModelCard(text, ignore_metadata_errors=True).data.get("license")
        if license is None:
            raise StarError(f"{pack} names no license; pack it again with --license")
        if dry_run:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            listed = [
                f"{path.relative_to(folder).as_posix()} ({size(path.stat().st_size)})"
                for path in files
            ]
            return "\n".join([f"license: {license}", *listed, text.rstrip()])
        try:
            api = HfApi(token=True)  # refuses in so many words where there is no token
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
