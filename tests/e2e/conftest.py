"""A zoo of small chains, a shared daemon, daemons of one's own, and Python stubs made from proto/ at test time.

Chains: `stories` (trained, 260K parameters; needs the shared test data), `stories-b` (the same but for its last
layer), `tiny` (random weights over bytes, with a chat template; always there). On a device (support/device.py) they have
heads of 64 elements: `stories` in a form that computes the same, `tiny` in another shape.
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
import device  # noqa: E402
import models  # noqa: E402
import tiny_llama  # noqa: E402
import wide_stories  # noqa: E402

CHATML = ("{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}")

# What is true of the processor alone: names of tests, by why a device skips them.
PROCESSOR_ONLY = {
    "a device makes no embeddings, and says so before it looks at the inputs": {
        "test_vectors_over_grpc", "test_vectors_do_not_depend_on_company", "test_vectors_by_the_openai_client",
        "test_a_late_call_ends_and_leaves_nothing", "test_a_wrong_embedding_names_its_field[dimensions]",
        "test_a_wrong_embedding_names_its_field[empty]", "test_a_wrong_embedding_names_its_field[long]",
        "test_a_wrong_body_names_its_field[dimensions]", "test_a_wrong_body_names_its_field[empty]",
        "test_a_wrong_body_names_its_field[id]"},
}


def pytest_configure(config):
    config.addinivalue_line("markers", "timing: measures time; left out under sanitizers")
    device.choose()


def pytest_collection_modifyitems(items):
    for item in items if device.ON_DEVICE else ():
        for reason, names in PROCESSOR_ONLY.items():
            if item.name in names:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def stories_file(tmp_path_factory):
    """The GGUF file of `stories`; None without the shared data."""
    published = models.test_data("models/stories260K/stories260K.gguf")
    if published is None or not device.WIDE_HEADS:
        return published
    made = tmp_path_factory.mktemp("wide") / "stories.gguf"
    wide_stories.write(published, made)
    return made


@pytest.fixture(scope="session")
def zoo(tmp_path_factory, stories_file):
    folder = tmp_path_factory.mktemp("zoo")
    tiny_llama.write_checkpoint("plain64" if device.WIDE_HEADS else "plain", folder / "tiny")
    settings = folder / "tiny" / "tokenizer_config.json"
    settings.write_text(settings.read_text()[:-1].rstrip() + f', "chat_template": {client.json_text(CHATML)}}}')
    daemon.import_model(folder / "store", folder / "tiny", "tiny")
    if stories_file:
        daemon.import_model(folder / "store", stories_file, "stories")
        copy = folder / "stories-b.gguf"
        shutil.copyfile(stories_file, copy)
        models.perturb_last_layer(copy)
        daemon.import_model(folder / "store", copy, "stories-b")
    return folder / "store"


@pytest.fixture
def store(zoo, tmp_path):
    """A copy of the shared zoo that a test may change."""
    shutil.copytree(zoo, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture(scope="session")
def stories(stories_file):
    """The name of the trained chain; tests that need it are skipped without the shared data."""
    if stories_file is None:
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


@pytest.fixture(scope="session")
def exact_daemon(zoo, tmp_path_factory, request):
    """A daemon whose answers to a request are the same each time, to the bit; the processor's always are."""
    if not device.WIDE_HEADS:
        yield request.getfixturevalue("shared_daemon")
        return
    with daemon.Daemon(zoo, tmp_path_factory.mktemp("exact"), device.EXACT) as running:
        yield running


@pytest.fixture(scope="session")
def exact(exact_daemon):
    with client.Client(exact_daemon) as made:
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
