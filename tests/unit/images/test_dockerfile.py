from __future__ import annotations

import pytest

from publisher.errors import RecipeError
from publisher.images.dockerfile import convert_dockerfile
from publisher.images.parser import parse_definition


@pytest.fixture
def convert(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.txt").write_text("a")

    def convert(text):
        (tmp_path / "Dockerfile").write_text(text)
        return convert_dockerfile(tmp_path / "Dockerfile")

    return convert


@pytest.fixture
def stage(convert):
    def stage(text):
        return parse_definition(convert(text), where="x").final

    return stage


def copies(stage):
    return [(copy.source, copy.target, copy.stage) for copy in stage.copies()]


def test_a_whole_dockerfile(convert, tmp_path):
    text = convert(
        "# syntax=docker/dockerfile:1\n"
        "ARG TAG=12@sha256:00\n"
        "FROM --platform=linux/amd64 debian:$TAG\n"
        'LABEL title="My image" org.x.version=1\n'
        "MAINTAINER somebody\n"
        "EXPOSE 8888\n"
        "ENV PATH=/opt/bin:$PATH\n"
        "RUN apt-get update && \\\n"
        "    # a comment inside\n"
        "    apt-get install -y x\n"
        "WORKDIR /app\n"
        "COPY a.txt .\n"
        'ENTRYPOINT ["python3", "-c", "print(1)"]\n'
    )
    assert text == (
        "# Made from Dockerfile\n"
        "Bootstrap: docker\n"
        "From: debian:{{ TAG }}\n"
        "Stage: stage-0\n"
        "\n"
        "%arguments\n"
        "    TAG=12@sha256:00\n"
        "\n"
        "%files\n"
        "    a.txt /app/a.txt\n"
        "\n"
        "%post\n"
        '    export PATH="/opt/bin:$PATH"\n'
        "    (\n"
        "    set +e\n"
        "    apt-get update && apt-get install -y x\n"
        "    )\n"
        "    mkdir -p /app\n"
        "    cd /app\n"
        "\n"
        "%environment\n"
        '    export PATH="/opt/bin:$PATH"\n'
        "\n"
        "%labels\n"
        "    title My image\n"
        "    org.x.version 1\n"
        "\n"
        "%runscript\n"
        '    if [ "$#" -gt 0 ]; then exec python3 -c \'print(1)\' "$@"; fi\n'
        "    exec python3 -c 'print(1)'\n"
    )


@pytest.mark.parametrize(
    ("source", "agent", "name"),
    [
        ("debian:12", "docker", "debian:12"),
        ("registry.example:5000/a/b@sha256:00", "docker", "registry.example:5000/a/b@sha256:00"),
        ("docker-archive:base.tar", "docker-archive", "base.tar"),
        ("oci-archive:base.tar", "oci-archive", "base.tar"),
    ],
)
def test_where_the_image_comes_from(stage, source, agent, name):
    made = stage(f"FROM {source}\n")
    assert (made.header("bootstrap"), made.header("from")) == (agent, name)


def test_the_base_of_the_project(stage):
    made = stage("ARG BASE\nFROM ${BASE}\nRUN true\n")
    assert (made.header("bootstrap"), made.header("from")) == ("localimage", "{{ BASE }}")
    assert set(made.arguments()) == {"BASE"}
    assert made.defaults() == {}


def test_arguments_reach_the_commands_and_can_be_given(stage):
    made = stage("FROM debian:12\nARG VERSION=1.2\nARG TOKEN\nENV FULL=v$VERSION\nRUN echo $VERSION $FULL\n")
    assert made.defaults() == {"VERSION": "1.2"}
    assert set(made.arguments()) == {"VERSION", "TOKEN"}
    assert '    export VERSION="{{VERSION}}"\n    export TOKEN="{{TOKEN}}"\n' in made.script("post")
    assert made.script("environment") == '    export FULL="v{{VERSION}}"\n'


def test_environment_in_all_its_forms(stage):
    made = stage('FROM debian:12\nENV A=1 B="two words" C=it\\\'s\nENV OLD the old form\nENV D=$B!\n')
    assert made.script("environment") == (
        '    export A="1"\n'
        '    export B="two words"\n'
        '    export C="it\'s"\n'
        '    export OLD="the old form"\n'
        '    export D="two words!"\n'
    )
    assert made.script("post").strip() == made.script("environment").strip()


def test_nothing_in_a_value_is_run(stage):
    made = stage("FROM debian:12\nENV A='`id`' B='$(id)' C='say \"x\"'\n")
    assert made.script("environment") == (
        '    export A="\\`id\\`"\n    export B="\\$(id)"\n    export C="say \\"x\\""\n'
    )


def test_each_run_has_a_shell_of_its_own(stage):
    made = stage("FROM debian:12\nRUN cd /tmp; false; true\nRUN pwd # a remark\n")
    assert made.script("post") == (
        "    (\n    set +e\n    cd /tmp; false; true\n    )\n    (\n    set +e\n    pwd # a remark\n    )\n"
    )


@pytest.mark.parametrize(
    ("copy", "found"),
    [
        ("COPY a.txt /x/", [("a.txt", "/x/a.txt", "")]),
        ("COPY a.txt /x/b", [("a.txt", "/x/b", "")]),
        ("COPY a.txt b", [("a.txt", "/w/b", "")]),
        ("COPY a.txt ./", [("a.txt", "/w/a.txt", "")]),
        ("COPY folder /x", [("folder/.", "/x/", "")]),
        ("COPY . .", [("./.", "/w/", "")]),
        ("COPY *.txt /x/", [("*.txt", "/x/", "")]),
        ("COPY a.txt folder/b.txt /x/", [("a.txt", "/x/a.txt", ""), ("folder/b.txt", "/x/b.txt", "")]),
        ("ADD a.txt /x/", [("a.txt", "/x/a.txt", "")]),
    ],
)
def test_what_is_copied_lands_where_docker_puts_it(stage, copy, found):
    assert copies(stage(f"FROM debian:12\nWORKDIR /w\n{copy}\n")) == found


@pytest.mark.parametrize(
    ("copy", "found"),
    [
        ("COPY --from=build /a/tool /usr/bin/tool", ("/a/tool", "/usr/bin/", "build")),
        ("COPY --from=build /a/tool /usr/bin/", ("/a/tool", "/usr/bin/", "build")),
        ("COPY --from=0 /usr/local /usr/local", ("/usr/local", "/usr/", "build")),
        ("COPY --from=0 /usr/local/ /usr/local/", ("/usr/local", "/usr/", "build")),
        ("COPY --from=0 /a/b /c/d", ("/a/b", "/c/d", "build")),
    ],
)
def test_copies_from_another_stage(stage, copy, found):
    made = stage(f"FROM debian:12 AS build\nRUN make\nFROM debian:12\n{copy}\n")
    assert made.header("stage") == "stage-1"
    assert copies(made) == [found]


def test_a_last_stage_without_a_name_stays_a_stage(convert):
    text = convert("FROM debian:12 AS build\nRUN one\nFROM debian:13\nRUN two\n")
    first, second = parse_definition(text, where="x").stages
    assert (first.header("from"), second.header("from")) == ("debian:12", "debian:13")
    assert ("one" in first.script("post"), "one" in second.script("post")) == (True, False)


@pytest.mark.parametrize(
    ("lines", "script"),
    [
        ("CMD echo $HOME", '    if [ "$#" -gt 0 ]; then exec "$@"; fi\n    exec /bin/sh -c \'echo $HOME\'\n'),
        (
            'ENTRYPOINT ["a b"]\nCMD ["c d"]',
            "    if [ \"$#\" -gt 0 ]; then exec 'a b' \"$@\"; fi\n    exec 'a b' 'c d'\n",
        ),
        ("RUN true", ""),
    ],
)
def test_what_running_the_image_does(stage, lines, script):
    assert stage(f"FROM debian:12\n{lines}\n").script("runscript") == script


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        (
            "RUN --mount=type=cache,target=/x pip install y",
            "RUN --mount=type=cache,target=/x has no counterpart",
            "leave the option out",
        ),
        ('RUN ["a", "b"]', "RUN as a JSON list is not converted", "write RUN with a shell command"),
        (
            "RUN cat <<EOF >x",
            "RUN with a here-document is not converted",
            "write commands, or COPY a script and run it",
        ),
        (
            "COPY --chown=1:1 a.txt /x",
            "COPY --chown=1:1 has no counterpart",
            "set owner and mode in a RUN",
        ),
        ('COPY ["a.txt", "/x"]', "COPY as a JSON list is not converted", "write the names plainly"),
        ("COPY a.txt", "COPY needs a source and a target", ""),
        ("COPY --from=other /a /b", "COPY --from=other names no earlier stage", "earlier stages: none"),
        (
            "ADD https://x.example/a /b",
            "ADD https://x.example/a downloads or unpacks, which %files cannot",
            "do it in a RUN, with the digest checked",
        ),
        (
            "ADD a.tar.gz /b",
            "ADD a.tar.gz downloads or unpacks, which %files cannot",
            "do it in a RUN, with the digest checked",
        ),
        (
            "USER nobody",
            "USER has no counterpart in a definition file",
            "images run as the user who starts them: leave it out",
        ),
        (
            'SHELL ["/bin/bash", "-c"]',
            "SHELL has no counterpart in a definition file",
            "RUN is run by the image's /bin/sh: call another shell inside RUN",
        ),
        (
            "HEALTHCHECK CMD true",
            "HEALTHCHECK has no counterpart in a definition file",
            "images have no daemon that would run it: write a [[test]] in image.toml",
        ),
        (
            "ENV A=${B:-c}",
            "'${B:-c}': only $NAME and ${NAME} can be converted",
            "write the value itself",
        ),
        ("ENV A=1 B", "ENV: 'B' has no value", ""),
        ("CMD [1]", "CMD [1] is no list of texts", ""),
        ("WORKDIR /a b", "WORKDIR '/a b': blanks and quotes are not converted", ""),
        ("FORM x", "unknown instruction 'FORM'", ""),
        (
            "FROM scratch",
            "FROM scratch cannot be converted",
            "write a definition file: Bootstrap: scratch",
        ),
        (
            "FROM stage-0",
            "FROM stage-0 goes on with an earlier stage, which a definition file cannot",
            "copy what is needed with COPY --from",
        ),
    ],
)
def test_what_would_come_out_wrong_is_refused(convert, tmp_path, line, message, hint):
    with pytest.raises(RecipeError) as caught:
        convert(f"FROM debian:12\n{line}\n")
    assert (caught.value.message, caught.value.hint) == (f"{tmp_path}/Dockerfile:2: {message}", hint)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", ":0: there is no FROM"),
        ("RUN true\n", ":1: only ARG may stand before FROM"),
        ("FROM debian:12\nRUN a \\\n", ":2: the last instruction ends with a backslash"),
        ("# escape=`\nFROM debian:12\n", ":1: the escape sign '`' is not converted"),
    ],
)
def test_files_that_are_wrong_as_a_whole(convert, tmp_path, text, message):
    with pytest.raises(RecipeError) as caught:
        convert(text)
    assert caught.value.message == f"{tmp_path}/Dockerfile{message}"


def test_an_ignore_file_is_not_passed_over_in_silence(convert, tmp_path):
    (tmp_path / ".dockerignore").write_text("folder\n")
    with pytest.raises(RecipeError) as caught:
        convert("FROM debian:12\nCOPY . /x\n")
    assert caught.value.message == f"{tmp_path}/Dockerfile:2: COPY .: .dockerignore is not heeded"
    assert convert("FROM debian:12\nCOPY a.txt /x\n")


def test_nothing_is_printed_and_nothing_is_left(convert, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "folder"))
    convert("FROM debian:12\nCOPY *.gone /x/\nRUN true\n")
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "folder").iterdir()) == []
