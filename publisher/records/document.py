"""JSON documents that are published: written the same way every time, read as untrusted input."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from publisher.errors import FormatError, NameInvalidError, ProjectError
from publisher.project.toml import Table


def to_bytes(document: Mapping[str, object]) -> bytes:
    """The document as it is published: UTF-8, two spaces, a newline at the end."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read_document(data: bytes, *, name: str, schema: int) -> Table:
    """The top table of a published JSON document.

    Keys that are not known are left alone: a newer afpub may have written them under the same schema number.

    Raises:
        FormatError: it is no JSON object, or its schema number is not the one that is known here.
    """
    try:
        document = json.loads(data)
    except ValueError as exc:
        raise FormatError(f"{name} is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise FormatError(f"{name} is no JSON object")
    if document.get("schema") != schema:
        raise FormatError(
            f"{name} has schema {document.get('schema')!r}, this afpub knows {schema}",
            hint="install a newer afpub",
        )
    return Table(document, file=Path(name))


def as_format_error(exc: ProjectError | NameInvalidError) -> FormatError:
    """The same complaint, about something published rather than something of the project."""
    return FormatError(exc.message, hint=exc.hint)
