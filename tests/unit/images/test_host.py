from __future__ import annotations

import pytest

from publisher.images.host import (
    BuildHost,
    credentials,
    debian_mirrors,
    pip_settings,
    pip_variables,
)


@pytest.mark.parametrize(
    ("targets", "mirrors"),
    [
        ("", ("", "none")),
        (
            """Debian|bookworm|http://m/debian
Debian|bookworm-updates|http://m/debian
Debian-Security|bookworm-security|http://m/security
""",
            ("http://m/debian", "http://m/security"),
        ),
        # before the first `apt-get update` there are no labels
        (
            "|bookworm|http://m/debian\n|bookworm-security|http://m/security",
            ("http://m/debian", "http://m/security"),
        ),
        ("Ubuntu|noble|http://u/ubuntu", ("", "none")),
        ("Debian|bookworm|file:/srv/mirror", ("", "none")),
        ("Docker CE|bookworm|http://other/", ("", "none")),
    ],
)
def test_the_mirror_is_the_one_that_apt_uses(targets, mirrors):
    assert debian_mirrors(targets) == mirrors


CONFIG = """\
:env:.cert='/env.pem'
global.index-url='http://index/simple'
global.extra-index-url='http://a/simple\\nfile:///srv/wheels https://b/simple'
global.default-timeout='60'
global.find-links='/opt/wheels'
install.trusted-host='index'
global.broken=
"""


def test_pip_is_given_what_is_reachable_from_inside():
    settings = pip_settings({}, CONFIG)
    assert pip_variables(settings) == {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_INDEX_URL": "http://index/simple",
        "PIP_EXTRA_INDEX_URL": "http://a/simple https://b/simple",
        "PIP_TIMEOUT": "60",
        "PIP_TRUSTED_HOST": "index",
    }


def test_the_environment_wins_over_the_configuration_as_for_pip():
    settings = pip_settings({"PIP_INDEX_URL": "https://mine/simple", "PIP_CERT": "/my.pem"}, CONFIG)
    assert settings["index-url"] == "https://mine/simple"
    assert settings["cert"] == "/my.pem"


def test_nothing_of_this_machine_is_given_when_nothing_is_set():
    assert set(pip_variables(pip_settings({}, ""))) == {"PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_INPUT"}


def test_credentials_are_found_and_masked():
    urls = ("https://jane:s3cret@index/simple http://plain/", "http://token@proxy:8080")
    secrets = credentials(urls)
    assert secrets == ("jane:s3cret", "s3cret", "token")
    host = BuildHost(secrets=secrets, variables=(("PIP_INDEX_URL", urls[0]),))
    assert host.mask(f"Looking in {urls[0]}, {urls[1]}") == (
        "Looking in https://***@index/simple http://plain/, http://***@proxy:8080"
    )
    assert "s3cret" not in repr(host)
