import pytest

from publisher.names import Fqrn
from publisher.propagation.client_config import server_urls
from publisher.propagation.places import fill, stratum1

FQRN = Fqrn("atlas.example.org")


def urls(tmp_path):
    return server_urls(FQRN, etc=tmp_path / "etc", mounts=tmp_path / "cvmfs")


def test_no_client(tmp_path):
    assert urls(tmp_path) == ()


def test_servers_of_the_domain(tmp_path):
    folder = tmp_path / "etc/domain.d"
    folder.mkdir(parents=True)
    (folder / "example.org.conf").write_text(
        '# servers\nCVMFS_SERVER_URL="http://s1.example.org/cvmfs/@fqrn@;http://s2.example.net/cvmfs/@org@"\n'
    )
    assert urls(tmp_path) == ("http://s1.example.org/cvmfs/@fqrn@", "http://s2.example.net/cvmfs/@org@")


@pytest.mark.parametrize(
    ("later", "name"),
    [
        ("domain.d/example.org.local", "of the domain, local"),
        ("config.d/atlas.example.org.conf", "of the repository"),
        ("config.d/atlas.example.org.local", "of the repository, local"),
    ],
)
def test_what_is_nearer_wins(tmp_path, later, name):
    for place, host in (("default.conf", "far"), ("domain.d/example.org.conf", "nearer"), (later, "nearest")):
        path = tmp_path / "etc" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"CVMFS_SERVER_URL=http://{host}.example.org/cvmfs/@fqrn@\n")
    assert urls(tmp_path) == ("http://nearest.example.org/cvmfs/@fqrn@",), name


def test_servers_of_a_config_repository(tmp_path):
    (tmp_path / "etc/default.d").mkdir(parents=True)
    (tmp_path / "etc/default.d/50-shared.conf").write_text("CVMFS_CONFIG_REPOSITORY=config.example.org\n")
    shared = tmp_path / "cvmfs/config.example.org/etc/cvmfs/domain.d"
    shared.mkdir(parents=True)
    (shared / "example.org.conf").write_text("export CVMFS_SERVER_URL='http://shared.example.org/cvmfs/@fqrn@'\n")
    assert urls(tmp_path) == ("http://shared.example.org/cvmfs/@fqrn@",)


def test_what_a_shell_would_have_to_run_is_left_out(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/default.local").write_text(
        'CVMFS_SERVER_URL="http://$(touch /tmp/never)/cvmfs/@fqrn@"\nrm -rf /\nCVMFS_SERVER_URLS=http://no\n'
    )
    assert urls(tmp_path) == ()


def test_the_repository_in_an_address():
    assert fill("http://s1/cvmfs/@fqrn@/@org@", FQRN) == "http://s1/cvmfs/atlas.example.org/atlas"
    place = stratum1("http://s1.example.org:8000/cvmfs/@fqrn@", FQRN)
    assert (place.name, place.location) == ("s1.example.org:8000", "http://s1.example.org:8000/cvmfs/atlas.example.org")
