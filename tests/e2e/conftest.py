"""A zoo of small chains, a shared daemon, daemons of one's own, and Python stubs made from proto/ at test time.

Chains: `stories` (trained, 260K parameters; needs the shared test data), `stories-b` (the same but for its last
layer), `tiny` (random weights over bytes, with a chat template; always there).
"""

import pathlib
import shutil
import sys

import grpc
import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(HERE.parent / "golden")]

import client  # noqa: E402
import daemon  # noqa: E402
import models  # noqa: E402
import tiny_llama  # noqa: E402

CHATML = ("{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}")


def pytest_configure(config):
    config.addinivalue_line("markers", "timing: measures time; left out under sanitizers")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    tiny_llama.write_checkpoint("plain", folder / "tiny")
    settings = folder / "tiny" / "tokenizer_config.json"
    settings.write_text(settings.read_text()[:-1].rstrip() + f', "chat_template": {client.json_text(CHATML)}}}')
    daemon.import_model(folder / "store", folder / "tiny", "tiny")
    stories = models.test_data("models/stories260K/stories260K.gguf")
    if stories:
        daemon.import_model(folder / "store", stories, "stories")
        copy = folder / "stories-b.gguf"
        shutil.copyfile(stories, copy)
        models.perturb_last_layer(copy)
        daemon.import_model(folder / "store", copy, "stories-b")
    return folder / "store"


@pytest.fixture
def store(zoo, tmp_path):
    """A copy of the shared zoo that a test may change."""
    shutil.copytree(zoo, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(scope="session")
def stories():
    """The name of the trained chain; tests that need it are skipped without the shared data."""
    if not models.test_data("models/stories260K/stories260K.gguf"):
        pytest.skip("the shared test data has no models/stories260K (set TESSERA_TEST_DATA)")
    return "stories"


@pytest.fixture(scope="session")
def shared_daemon(zoo, tmp_path_factory):
    with daemon.Daemon(zoo, tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture(scope="session")
def shared(shared_daemon):
    """A client of the daemon that most tests share."""
    with client.Client(shared_daemon) as made:
        yield made


@pytest.fixture
def start(zoo, tmp_path):
    """start(settings, zoo=…) -> a client of a daemon of the test's own, which ends with the test."""
    made = []

    def begin(settings=None, store=None, **options):
        made.append(client.Client(daemon.Daemon(store or zoo, tmp_path / f"daemon{len(made)}", settings), **options))
        return made[-1]

    yield begin
    for one in made:
        one.close()
        if one.daemon.process.poll() is None:
            one.daemon.kill()


@pytest.fixture
def refused():
    """refused(code, call) -> the error of a call that must fail with that status."""

    def check(code, call):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == code, caught.value
        return caught.value

    return check
