"""Downloads a file that can be continued after an interruption, and checks it."""

import hashlib
import importlib
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_SECONDS = (10, 60)  # To connect, and between two pieces.
_PIECE = 1 << 18


def download(url: str, path: Path, size: int, sha256: str, console: Console) -> None:
    """Download ``url`` to ``path``; nothing is at ``path`` until it is complete and checked.

    What an interrupted download leaves is beside it, with ``.part`` behind the name, and is
    continued. There are no retries: without a network, this says so within seconds.

    Args:
        url: Where the file is.
        path: Where it goes.
        size: Its size, bytes.
        sha256: Its SHA-256, hexadecimal.
        console: Where the progress bar goes.

    Raises:
        ValueError: If it cannot be downloaded or written, or is not the file expected.
    """
    requests = importlib.import_module("requests")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        done = part.stat().st_size if part.exists() else 0
        # The bytes of the file itself, not compressed once more on the way.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        if done < size:
            with requests.get(url, headers=headers, stream=True, timeout=_SECONDS) as response:
                response.raise_for_status()
                continues = response.status_code == 206
                with part.open("ab" if continues else "wb") as file, _progress(console) as bar:
                    first = done if continues else 0
                    task = bar.add_task(path.name, total=size, completed=first)
                    for piece in response.iter_content(_PIECE):
                        file.write(piece)
                        bar.advance(task, len(piece))
    except requests.RequestException as error:
        have = part.stat().st_size if part.exists() else 0
        kept = f" The {have:,} bytes so far are kept in {part}, and continued." if have else ""
        raise ValueError(
            f"{url} cannot be downloaded: {_reason(error, url)}.{kept} Try again; or, on a machine "
            f"without network, copy that file ({size / 1e6:.0f} MB, SHA-256 {sha256}) to {path} "
            "and run this again."
        ) from error
    except OSError as error:
        raise ValueError(
            f"{part} cannot be written: {error.strerror}. Give a folder with room: --data-dir."
        ) from error
    if (found := file_sha256(part)) != sha256:
        part.unlink()
        raise ValueError(
            f"what {url} sent is not the file expected: its SHA-256 is {found}, not {sha256}. It "
            "was removed; run this again to download it anew."
        )
    part.replace(path)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(error: Exception, url: str) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"{urlsplit(url).netloc} answers {response.status_code} {response.reason}"
    cause = error
    while cause.__context__ is not None and isinstance(cause.__context__, Exception):
        cause = cause.__context__
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
