"""Chains that are made instead of imported: synthetic ones from a seed, quantized ones from others; made and served."""

import daemon
import grpc
import pytest
from command import FAILED, NOT_FOUND, USAGE, as_json, fails


@pytest.fixture
def made(tmp_path):
    """("zoo", "--zoo", FOLDER) of a zoo that is made when first written."""
    return ("zoo", "--zoo", tmp_path / "made")


def test_synth_says_what_it_made(made):
    first = as_json(*made, "synth", "--like", "llama-3-8b", "--as", "big", "--seed", "7", "--json")
    assert [c["name"] for c in first["chains"]] == ["big"]
    assert first["weight_bytes"] > 16e9 and first["new_bytes"] < 200_000
    again = as_json(*made, "synth", "--like", "llama-3-8b", "--as", "big", "--seed", "7", "--json")
    assert again["new_objects"] == 0
    other = fails(FAILED, *made, "synth", "--like", "llama-3-8b", "--as", "big", "--seed", "8")
    assert "--replace" in other
    listed = as_json(*made, "ls", "--json")
    assert listed["made_bytes"] == listed["distinct_bytes"] == first["weight_bytes"]
    verified = as_json(*made, "verify", "--json")
    assert verified["sound"] and verified["recipes"] > 200 and verified["tensors"] == 0
    assert as_json(*made, "gc", "--json")["objects"] == 0


def test_variants_share_what_is_asked(made):
    report = as_json(*made, "synth", "--like", "tiny", "--as", "v", "--variants", "3", "--share", "3", "--json")
    assert [c["name"] for c in report["chains"]] == ["v-1", "v-2", "v-3"]
    difference = as_json(*made, "diff", "v-1", "v-3", "--json")
    assert [line["position"] for line in difference["blocks"]] == [7, 8]
    assert "5" in fails(USAGE, *made, "synth", "--like", "tiny", "--as", "w", "--variants", "2", "--share", "5")


def test_synth_refuses_by_name(made):
    assert "llama-3-70b" in fails(USAGE, *made, "synth", "--like", "gpt")
    assert "f8-channel" in fails(USAGE, *made, "synth", "--like", "tiny", "--dtype", "q4_1")
    assert "multiple of 128" in fails(USAGE, *made, "synth", "--like", "smollm2-135m", "--dtype", "i4-g128")


def test_recipes_and_their_bytes_answer_alike(made, start):
    for dtype in ("bf16", "f8-channel", "i4-g64-zero"):
        common = ("synth", "--like", "tiny", "--seed", "5", "--dtype", dtype)
        daemon.command(*made, *common, "--as", f"{dtype}.recipe")
        daemon.command(*made, *common, "--as", f"{dtype}.bytes", "--materialise")
    client = start(store=made[2])
    for dtype in ("bf16", "f8-channel", "i4-g64-zero"):
        texts = []
        for form in ("recipe", "bytes"):
            result = client.generate(f"{dtype}.{form}", "any text: é", 24)
            assert len(result.ids()) == 24, "nothing ends a synthetic chain's answer"
            assert result.started.prompt_tokens == len("any text: é".encode())
            texts.append((result.ids(), result.text()))
        assert texts[0] == texts[1]
        assert len(set(texts[0][0])) > 3


def test_a_chat_reaches_a_synthetic_chain(made, start):
    daemon.command(*made, "synth", "--like", "tiny", "--as", "t")
    client = start(store=made[2])
    said = daemon.command("chat", "--endpoint", client.daemon.grpc, "--model", "t", "--message", "hello",
                          "--max-tokens", "8").stdout
    assert said.strip()


def test_what_can_never_fit_is_refused_before_it_is_made(made, start):
    daemon.command(*made, "synth", "--like", "llama-3-70b", "--as", "huge")
    client = start({"engine": {"memory_fraction": 0.1}}, store=made[2])
    with pytest.raises(grpc.RpcError):
        client.generate("huge", "a", 1)
    assert "does not fit" in client.daemon.log_text()
    assert client.daemon.resident_bytes() < 1 << 30


def test_quantize_states_its_loss_and_serves(store, start):
    zoo = ("zoo", "--zoo", store)
    report = as_json(*zoo, "quantize", "tiny", "--to", "f8-channel", "--json")
    assert report["chain"]["name"] == "tiny-f8-channel"
    assert 0.01 < report["mean_error"] <= report["worst_error"] < 0.05
    assert report["worst_tensor"].startswith("block ")
    assert "quantization_loss: relative L2 error" in daemon.command(*zoo, "show", "tiny-f8-channel").stdout
    assert as_json(*zoo, "quantize", "tiny", "--to", "f8-channel", "--json")["new_bytes"] == 0
    assert "f8-block128" in fails(USAGE, *zoo, "quantize", "tiny", "--to", "q9_0")
    assert "--keep-head" in fails(USAGE, *zoo, "quantize", "tiny", "--to", "bf16", "--keep-head", "--quantize-head")
    fails(NOT_FOUND, *zoo, "quantize", "nobody", "--to", "bf16")
    client = start(store=store)
    assert len(client.generate("tiny-f8-channel", [256, 10, 20], 16).ids()) == 16


def test_eight_bits_tell_the_same_story(store, stories, start):
    daemon.command("zoo", "--zoo", store, "quantize", stories, "--to", "i8-channel", "--as", "small")
    client = start(store=store)
    plain = client.generate(stories, [1], 24).text()
    assert client.generate("small", [1], 24).text() == plain
