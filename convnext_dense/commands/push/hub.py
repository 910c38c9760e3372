"""Talk to the Hugging Face hub: check a repository, upload a folder, explain errors."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from convnext_dense.errors import InputError
from convnext_dense.utils.text import few, reason

T = TypeVar("T")
# The names that hf:// addresses take; checkpoints.sources reads them.
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_BRANCH = re.compile(r"[\w.-]+")
# The pictures of a push, for Python and as the patterns of the hub's client.
_PICTURES = ["pictures/[0-9].jpg", "pictures/[0-9][0-9].jpg"]
_PICTURE = re.compile(r"pictures/\d+\.jpg")
_TOKENS = "https://huggingface.co/settings/tokens"


def check_name(repository: str) -> None:
    """Raise an InputError if no repository can have this name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    problem = ""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        problem = f": {error}"
    if problem or not _NAME.fullmatch(repository):
        raise InputError(
            f"{repository} is not the name of a repository{problem}. Give OWNER/NAME: "
            "your user name on the hub, or that of an organisation, and a name for "
            "the model, such as me/shapes-detector"
        )


def address(repository: str, revision: str | None) -> str:
    """What commands call the repository's model."""
    return f"hf://{repository}" + (f"@{revision}" if revision else "")


class Target(NamedTuple):
    """A repository on the hub to which a model is uploaded.

    Attributes:
        repository: 'OWNER/NAME'.
        revision: the branch; None is 'main'.
        private: whether it must be private.
        overwrite: whether its files may be replaced.
    """

    repository: str
    revision: str | None
    private: bool
    overwrite: bool

    def check(self, names: Sequence[str]) -> None:
        """Check the user's token and the repository, which need not exist.

        Args:
            names: of the files that will be uploaded.

        Raises:
            InputError: the hub cannot be reached or does not know the token; the
                repository is public, and ``private`` is asked for; or it has files of
                these names, and ``overwrite`` is not given.
        """
        if self.revision and not _BRANCH.fullmatch(self.revision):
            raise InputError(
                f"--revision {self.revision}: a branch has letters, digits, -, _ and . "
                "in its name"
            )
        self._call(_api().whoami)
        self._check_existing(names)

    def _check_existing(self, names: Sequence[str]) -> None:
        from huggingface_hub.errors import (
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

        try:
            info = _api().repo_info(self.repository)
            if self.private and not info.private:
                raise InputError(
                    f"{self.repository} exists and is public: make it private in its "
                    "settings on the hub, name another repository, or leave out "
                    "--private"
                )
            if self.revision:
                info = _api().repo_info(self.repository, revision=self.revision)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return  # upload makes it
        except InputError:
            raise
        except Exception as error:  # as in _call
            raise self._explained(error) from error
        existing = [file.rfilename for file in info.siblings or ()]
        replaced = [n for n in existing if n in names or _PICTURE.fullmatch(n)]
        if replaced and not self.overwrite:
            raise InputError(
                f"{self.repository} has {few(replaced)} already: add --overwrite to "
                "replace them (the hub keeps the earlier ones in its history), name "
                "another repository, or another branch with --revision"
            )

    def upload(self, folder: Path) -> str:
        """Upload the files of a folder in one commit; make the repository first.

        Files of the repository that the folder does not have are kept, but for the
        pictures of an earlier push that is replaced.

        Returns:
            the address of the repository's page.

        Raises:
            InputError: the hub does not take them. Its files are as they were.
        """
        api = _api()
        create = dict(private=self.private or None, exist_ok=True)
        url = self._call(api.create_repo, self.repository, **create)
        if self.revision:
            branch = dict(branch=self.revision, exist_ok=True)
            self._call(api.create_branch, self.repository, **branch)
        self._call(
            api.upload_folder,
            repo_id=self.repository,
            folder_path=folder,
            revision=self.revision,
            delete_patterns=_PICTURES if self.overwrite else None,
            commit_message="Upload a model with convnext_dense",
        )
        return str(url)

    def _call(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a method of the hub's client, and explain its error."""
        try:
            return method(*args, **kwargs)
        except Exception as error:  # of the client, of httpx or requests, of hf_xet
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> InputError:
        """What an error of the hub's client means, and what to do."""
        from huggingface_hub import constants
        from huggingface_hub.errors import LocalTokenNotFoundError

        error = _answered(error)
        status = getattr(getattr(error, "response", None), "status_code", None)
        owner = self.repository.partition("/")[0]
        said = getattr(error, "server_message", None) or str(error).strip()
        said = said.partition("\n")[0] or reason(error)
        later = "Try again later; files of a push appear all at once, or not at all"
        too_large = re.search(r"too large|storage|quota|exceed", said, re.IGNORECASE)
        if isinstance(error, LocalTokenNotFoundError):
            said = "no token is stored on this machine"
            advice = f"Run `hf auth login` with a token from {_TOKENS}, or set HF_TOKEN"
        elif status == 401:
            advice = (
                f"The hub does not accept the token: make one at {_TOKENS} that may "
                "write, and give it to `hf auth login`, or set HF_TOKEN"
            )
        elif status in (402, 413, 507) or too_large:
            advice = (
                "The hub has no room for the files: free some of its storage or extend "
                "it, or push a smaller model. No file of the repository has changed"
            )
        elif status == 403:
            advice = (
                f"The token may not write to {owner}: name a repository of your own, "
                f"or make a token at {_TOKENS} that may write to {owner}, and give it "
                "to `hf auth login`"
            )
        elif status in (409, 412):
            advice = "Somebody else changed the repository meanwhile: push again"
        elif status == 429:
            advice = f"These are too many requests. {later}"
        elif status and status >= 500:
            advice = f"The hub has a failure (HTTP {status}). {later}"
        elif status is None:
            advice = (
                f"Check the network, and that {constants.ENDPOINT} opens in a browser. "
                "Without a network, --dry-run DIR writes the files; upload them from "
                f"another machine with `hf upload {self.repository} DIR`"
            )
        else:
            advice = later
        return InputError(
            f"{self.repository} could not be pushed: {said.rstrip('.')}. {advice}"
        )


def _answered(error: Exception) -> Exception:
    """The error with the hub's answer, which the client can wrap in another one."""
    inner: BaseException | None = error
    while inner is not None and not hasattr(inner, "response"):
        inner = inner.__cause__ or inner.__context__
    return inner if isinstance(inner, Exception) else error


def _api() -> Any:
    """The hub's client; the environment chooses the hub and the token."""
    from huggingface_hub import HfApi

    return HfApi(library_name="convnext_dense")
