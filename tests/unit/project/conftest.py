import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a file below the temporary folder, with its folders."""

    def write(path, text=""):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write
