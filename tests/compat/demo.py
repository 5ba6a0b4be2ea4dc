"""The demonstration in a project of its own: recipes, kernels and builds are those of the clone."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from publisher import tools

FQRN = "demo.afpub.example"
_AFPUB = Path(sys.executable).with_name("afpub")


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """The project, its repository, and what the release said."""

    root: Path
    outcome: dict = field(default_factory=dict)
    fqrn: str = FQRN

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def public_key(self) -> Path:
        return self.root / "keys" / f"{FQRN}.pub"

    def run(self, *words: str | Path) -> tools.Completed:
        """Runs afpub as a user does."""
        return tools.run([_AFPUB, *words], cwd=self.root, env=dict(os.environ), timeout_s=1500)

    def json(self, *words: str | Path) -> dict:
        """Runs afpub and gives its JSON document."""
        return json.loads(self.run(*words, "--json").stdout)


def release_demo(clone: Path, root: Path) -> Demo:
    """Releases ``manifests/demo.toml`` into a new repository; images that are built already are reused."""
    for name in ("images", "kernelspecs", "manifests"):
        (root / name).symlink_to(clone / name)
    builds = clone / "build/afpub/images"
    builds.mkdir(parents=True, exist_ok=True)
    (root / "afpub").mkdir()
    (root / "afpub/images").symlink_to(builds)
    text = (clone / "afpub.toml").read_text()
    for place in ("build/demo/", "build/"):
        text = text.replace(f'"{place}', '"')
    (root / "afpub.toml").write_text(text)
    demo = Demo(root=root)
    demo.run("repo", "create", FQRN, "--at", "repository", "--keys", "keys")
    outcome = demo.json("release", "manifests/demo.toml")
    return Demo(root=root, outcome=outcome)
