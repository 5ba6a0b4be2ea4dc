"""Negative answers: a check returns a Report; an exception means that it could not be made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """Stops a release."""
    WARNING = "warning"
    """Worth a look; stops nothing."""
    NOTE = "note"
    """Something that was done, or that is good to know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One answer of one check."""

    check: str
    """Short stable name of the check, such as ``broken-link``."""
    severity: Severity
    where: str
    """File, path in the tree, kernel or machine part that it is about."""
    message: str
    hint: str = ""
    """What to do about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a number of checks found."""

    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """True when nothing stops a release."""
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a release."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    def __add__(self, other: Report) -> Report:
        return Report(findings=self.findings + other.findings)

    def to_json(self) -> dict[str, object]:
        """The report as plain JSON values."""
        rows = [
            {
                "check": finding.check,
                "severity": finding.severity.value,
                "where": finding.where,
                "message": finding.message,
                "hint": finding.hint,
            }
            for finding in self.findings
        ]
        return {"ok": self.ok, "findings": rows}


def collect(findings: Iterable[Finding]) -> Report:
    """A report of the findings in the order in which they came."""
    return Report(findings=tuple(findings))


def error(check: str, where: str, message: str, *, hint: str = "") -> Finding:
    """A finding that stops a release."""
    return Finding(check=check, severity=Severity.ERROR, where=where, message=message, hint=hint)


def warning(check: str, where: str, message: str, *, hint: str = "") -> Finding:
    """A finding worth a look."""
    return Finding(check=check, severity=Severity.WARNING, where=where, message=message, hint=hint)


def note(check: str, where: str, message: str, *, hint: str = "") -> Finding:
    """Something that is good to know."""
    return Finding(check=check, severity=Severity.NOTE, where=where, message=message, hint=hint)
