"""What a build takes from the machine that it runs on: mirrors, package index, certificates, proxies.

None of it is part of an image's identity, and none of it may stay in the image.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from publisher import tools
from publisher.errors import BuildError, ToolError

_CA_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_CA_DEFAULT: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_PROXY_VARIABLES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_PIP_URLS: Final = ("index-url", "extra-index-url")
_PIP_TEXTS: Final = ("trusted-host", "timeout")
_QUICK_S: Final = 60.0
_SET_MIRROR: Final = "name the Debian mirror: apt_mirror in [build] of afpub.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildHost:
    """The settings of this machine that builds are given."""

    apt_mirror: str = ""
    """Empty where the machine knows none."""
    apt_security_mirror: str = "none"
    """``none`` where the machine knows none."""
    ca_bundle: Path | None = None
    """File with the certificate authorities that this machine trusts."""
    variables: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Environment variables for ``%post``: pip's settings and proxies. May hold credentials."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Credentials among the above; they must not be shown."""

    def mask(self, text: str) -> str:
        """The text with every credential replaced."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def read_host(*, apt_mirror: str = "", needs_apt: bool = True, environ: Mapping[str, str] | None = None) -> BuildHost:
    """The settings of this machine; asks apt and pip.

    Args:
        apt_mirror: the Debian mirror, where the project names one.
        needs_apt: whether a mirror is wanted at all.
        environ: the environment, by default that of the process.

    Raises:
        BuildError: a mirror is wanted and neither the project nor apt names one, or it holds a password.
    """
    environ = os.environ if environ is None else environ
    main, security = _mirrors(apt_mirror) if needs_apt else ("", "none")
    pip = pip_settings(environ, _pip_config())
    proxies = {
        key: value
        for key in (*_PROXY_VARIABLES, *(name.upper() for name in _PROXY_VARIABLES))
        if (value := environ.get(key))
    }
    variables = pip_variables(pip) | proxies
    return BuildHost(
        apt_mirror=main,
        apt_security_mirror=security,
        ca_bundle=_ca_bundle(environ, pip),
        variables=tuple(sorted(variables.items())),
        secrets=credentials(variables.values()),
    )


def _mirrors(apt_mirror: str) -> tuple[str, str]:
    found = debian_mirrors(_apt_targets())
    main = apt_mirror or found[0]
    if not main:
        raise BuildError("apt on this machine names no Debian mirror", hint=_SET_MIRROR)
    if credentials((main, found[1])):
        raise BuildError(
            "the address of the Debian mirror holds a password, which would end up in the image",
            hint="move it to /etc/apt/auth.conf, or use another mirror: apt_mirror in [build] of afpub.toml",
        )
    return main, found[1]


def _apt_targets() -> str:
    """One line per package index of apt: label, suite of the sources line, address."""
    if tools.which("apt-get") is None:
        return ""
    form = "$(LABEL)|$(RELEASE)|$(REPO_URI)"
    words = ("apt-get", "indextargets", "--format", form, "Created-By: Packages")
    return tools.run(words, check=False, timeout_s=_QUICK_S).stdout


def debian_mirrors(targets: str) -> tuple[str, str]:
    """The Debian mirror and the mirror of its security updates among apt's package indices.

    Labels are known only after ``apt-get update``; before, the suite must tell.

    Args:
        targets: lines of ``label|suite|address``.

    Returns:
        Addresses; ``""`` and ``none`` for those that are not there.
    """
    main, security = "", "none"
    for label, suite, address in sorted(line.split("|", 2) for line in targets.splitlines() if line.count("|") >= 2):
        if not address.startswith(("http://", "https://")):
            continue
        if label == "Debian-Security" or (not label and "security" in suite):
            security = address if security == "none" else security
        elif label == "Debian" or not label:
            main = main or address
    return main, security


def _pip_config() -> str:
    for program in ("pip3", "pip"):
        if tools.which(program):
            try:
                return tools.run((program, "config", "list"), timeout_s=_QUICK_S).stdout
            except ToolError:
                continue
    return ""


def pip_settings(environ: Mapping[str, str], config: str) -> dict[str, str]:
    """The settings of pip on this machine that matter to a build; the environment wins, as for pip.

    Args:
        environ: the environment.
        config: what ``pip config list`` prints.
    """
    found: dict[str, str] = {}
    wanted = (*_PIP_URLS, *_PIP_TEXTS, "cert")
    for line in config.splitlines():
        key, _, quoted = line.partition("=")
        name = key.rpartition(".")[2].replace("default-timeout", "timeout")
        if name in wanted and not key.startswith(":env:"):
            try:
                found[name] = str(ast.literal_eval(quoted))
            except (SyntaxError, ValueError):
                continue
    for name in wanted:
        if value := environ.get("PIP_" + name.upper().replace("-", "_")):
            found[name] = value
    return found


def pip_variables(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that give pip in ``%post`` the settings of this machine.

    Folders of this machine are not there in ``%post``, so only addresses on the network are handed on; the
    certificates go another way.
    """
    variables = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    for name in _PIP_URLS:
        urls = [url for url in settings.get(name, "").split() if urlsplit(url).scheme in {"http", "https"}]
        if urls:
            variables["PIP_" + name.upper().replace("-", "_")] = " ".join(urls)
    for name in _PIP_TEXTS:
        if name in settings:
            variables["PIP_" + name.upper().replace("-", "_")] = settings[name]
    return variables


def credentials(values: Iterable[str]) -> tuple[str, ...]:
    """The ``user:password`` parts of all the addresses in some texts, longest first."""
    found = set()
    for value in values:
        for word in value.split():
            userinfo, at, _ = urlsplit(word).netloc.rpartition("@") if "://" in word else ("", "", "")
            if at and userinfo:
                found.update({userinfo, *userinfo.split(":", 1)[1:]})
    return tuple(sorted(found - {""}, key=lambda text: (-len(text), text)))


def _ca_bundle(environ: Mapping[str, str], pip: Mapping[str, str]) -> Path | None:
    named = [environ.get(name, "") for name in _CA_VARIABLES]
    for candidate in (*named, pip.get("cert", ""), str(_CA_DEFAULT)):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None
