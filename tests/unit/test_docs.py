"""What documents point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import publisher

ROOT = Path(publisher.__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_there_are_documents():
    assert {"README.md", "CHANGELOG.md"} <= {page.name for page in PAGES}


def test_every_decision_is_listed():
    folder = ROOT / "docs" / "adr"
    listed = set(re.findall(r"\]\((\d{4}[^)]*)\)", (folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {file.name for file in folder.glob("[0-9]*.md")}


def test_make_targets_that_documents_name_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:`|^    )make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"demo", "lab", "test"} <= named <= targets


def test_every_exit_code_of_the_launcher_is_explained_to_sites():
    script = (ROOT / "publisher" / "kernels" / "libexec" / "common.sh").read_text(encoding="utf-8")
    codes = set(re.findall(r"^EX_[A-Z]+=(\d+)", script, re.MULTILINE))
    page = (ROOT / "docs" / "sites.md").read_text(encoding="utf-8")
    assert codes
    assert codes == set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_document_holds_the_marks_of_a_merge(page):
    assert re.findall(r"^(?:<{7}|={7}|>{7})(?: |$)", page.read_text(encoding="utf-8"), re.MULTILINE) == []
