"""The command line through the binary: zoo, plan, settings, doctor, a running daemon's commands, exit codes."""

import json
import os
import pty
import re
import shutil
import socket
import subprocess

import daemon
import device
import models
import pytest
from command import DATA_LOSS, FAILED, NOT_FOUND, UNAVAILABLE, USAGE, as_json, fails


@pytest.fixture
def gguf(stories, stories_file):
    return stories_file


def test_import_says_what_is_new(tmp_path, gguf):
    zoo = ("zoo", "--zoo", tmp_path / "new")
    first = as_json(*zoo, "import", gguf, "--name", "a", "--json")
    assert first["outcome"] == "added" and first["chain"]["architecture"] == "llama"
    assert 0 < first["new_bytes"] <= first["tensor_bytes"]
    second = as_json(*zoo, "import", gguf, "--name", "b", "--json")
    assert second["outcome"] == "added" and second["shared_bytes"] > 0.9 * first["new_bytes"]
    assert second["new_bytes"] < 1000, "the same tensors must not be stored twice"
    assert second["chain"]["revision"] == first["chain"]["revision"]
    again = daemon.command(*zoo, "import", gguf, "--name", "a").stdout
    assert "already there" in again
    listed = as_json(*zoo, "ls", "--json")
    assert [c["name"] for c in listed["chains"]] == ["a", "b"]
    assert 0 < listed["distinct_bytes"] == listed["summed_bytes"] // 2


def test_a_name_is_not_taken_over_unasked(store, stories, gguf):
    zoo = ("zoo", "--zoo", store)
    said = fails(FAILED, *zoo, "import", gguf, "--name", "stories-b")
    assert "--replace" in said
    assert as_json(*zoo, "import", gguf, "--name", "stories-b", "--replace", "--json")["outcome"] == "replaced"
    assert "0 different" in daemon.command(*zoo, "diff", stories, "stories-b").stdout


def test_import_draws_a_bar_on_a_terminal_and_none_elsewhere(tmp_path):
    gguf = models.smollm2_gguf()  # large enough to take a while
    if gguf is None:
        pytest.skip("SmolLM2's GGUF file is neither in the cache nor on the package index")
    leader, follower = pty.openpty()
    line = [daemon.binary(), "zoo", "--zoo", str(tmp_path / "z"), "import", str(gguf), "--name", "a"]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=follower, check=True, timeout=60)
    os.close(follower)
    drawn = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert re.search(r"\rimporting  \[#*\.*\]? .*% .*MiB/s", drawn) and "100%" in drawn, drawn
    assert done.stdout.startswith(b"imported a")
    plain = daemon.command("zoo", "--zoo", tmp_path / "y", "import", gguf, "--name", "a").stderr
    assert "\r" not in plain and "\x1b" not in plain


def test_nothing_to_import_makes_no_zoo(tmp_path):
    said = fails(NOT_FOUND, "zoo", "--zoo", tmp_path / "z", "import", tmp_path / "no.gguf", "--name", "x")
    assert "no.gguf" in said and not (tmp_path / "z").exists()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    daemon.command("zoo", "--zoo", tmp_path / "z", "import", broken, "--name", "x", check=False)
    assert fails(USAGE, "zoo", "--zoo", tmp_path / "z", "import", broken, "--name", "x")
    assert as_json("zoo", "--zoo", tmp_path / "z", "verify", "--json")["sound"]
    fails(USAGE, "zoo", "--zoo", tmp_path / "z", "import", broken, "--name", "../x")


def test_show_names_every_block(zoo, stories):
    shown = as_json("zoo", "--zoo", zoo, "show", stories, "--json")
    types = [b["type"] for b in shown["blocks"]]
    assert types == ["embedding"] + ["attention", "ffn"] * 5 + ["lm_head"]
    assert all(t["shape"] and t["type"] for b in shown["blocks"] for t in b["tensors"])
    text = daemon.command("zoo", "--zoo", zoo, "show", stories).stdout
    assert shown["revision"] in text and text.count("attention") == 5
    fails(NOT_FOUND, "zoo", "--zoo", zoo, "show", "nobody")
    fails(NOT_FOUND, "zoo", "--zoo", zoo / "nowhere", "ls")


def test_diff_tells_what_differs_and_what_it_weighs(zoo, stories):
    same = as_json("zoo", "--zoo", zoo, "diff", stories, "stories-b", "--json")
    assert [(b["type"], b["kind"]) for b in same["blocks"]] == [("ffn", "changed")]
    assert same["equal_blocks"] == 11 and same["shared_bytes"] > same["only_b_bytes"] > 0
    assert not same["settings"]


def test_verify_finds_a_flipped_bit(store):
    tensors = sorted((store / "objects" / "tensors").rglob("*"), key=lambda p: p.stat().st_size)
    victim = next(p for p in reversed(tensors) if p.is_file())
    victim.chmod(0o644)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    done = daemon.command("zoo", "--zoo", store, "verify", "--json", check=False)
    assert done.returncode == DATA_LOSS
    report = json.loads(done.stdout)
    assert not report["sound"] and any(victim.name[:12] in p for p in report["problems"]), report


def test_compose_takes_lower_and_upper_blocks(store, start, stories):
    zoo = ("zoo", "--zoo", store)
    made = as_json(*zoo, "compose", "--name", "mixed", f"{stories}[0:9]", "stories-b[9:]", "--json")
    assert made["blocks"] == 12 and stories in made["provenance"]["source"]
    mixed = as_json(*zoo, "diff", "mixed", "stories-b", "--json")
    assert mixed["equal_blocks"] == 12 and mixed["only_a_bytes"] == 0
    client = start(device.EXACT, store=store)
    assert client.generate("mixed", [1], 40).ids() == client.generate("stories-b", [1], 40).ids()
    shorter = as_json(*zoo, "compose", "--name", "short", f"{stories}[0:5]", f"{stories}[11:]", "--json")
    assert shorter["blocks"] == 6
    assert len(client.generate("short", [1], 10).ids()) == 10


@pytest.mark.parametrize("pieces,says", [
    (["stories[0:9]", "tiny[3:]"], "tokenizer"), (["stories[1:]"], "embedding"), (["stories[0:5]"], "lm_head"),
    (["stories[0:99]"], "99"), (["stories[5"], "CHAIN[BEGIN:END]"),
])
def test_compose_refuses_what_does_not_fit(store, stories, pieces, says):
    assert says in fails(USAGE, "zoo", "--zoo", store, "compose", "--name", "bad", *pieces)
    assert "bad" not in daemon.command("zoo", "--zoo", store, "ls").stdout


def test_gc_frees_what_nobody_uses(store, stories):
    zoo = ("zoo", "--zoo", store)
    assert as_json(*zoo, "gc", "--json")["objects"] == 0
    private = as_json(*zoo, "diff", stories, "stories-b", "--json")["only_b_bytes"]
    daemon.command(*zoo, "rm", "stories-b")
    planned = as_json(*zoo, "gc", "--dry-run", "--json")
    done = as_json(*zoo, "gc", "--json")
    assert done["objects"] == planned["objects"] > 0 and done["freed_bytes"] == planned["freed_bytes"]
    assert private <= done["freed_bytes"] < 2.5 * private, "its tensors and their repacked forms, no more"
    assert as_json(*zoo, "verify", "--json")["sound"]
    assert [c["name"] for c in as_json(*zoo, "ls", "--json")["chains"]] == [stories, "tiny"]
    fails(NOT_FOUND, *zoo, "rm", "stories-b")


def test_gc_keeps_what_a_daemon_serves(store, start, stories):
    client = start(device.EXACT, store=store)
    before = client.generate("stories-b", [1], 8).ids()
    daemon.command("zoo", "--zoo", store, "rm", "stories-b")
    kept = as_json("zoo", "--zoo", store, "gc", "--json")
    assert kept["objects"] == 0 and "stories-b" in kept["pinned_chains"]
    assert client.generate("stories-b", [1], 8).ids() == before
    client.daemon.stop()
    assert as_json("zoo", "--zoo", store, "gc", "--json")["objects"] > 0


def test_plan_runs_shared_blocks_once(zoo, stories):
    text = daemon.command("plan", "--zoo", zoo, "--decode", f"{stories}=100*4", "--decode", "stories-b=50*3",
                          "--prefill", f"{stories}=40", "--set", "engine.memory=64MiB").stdout
    assert text.startswith("step: 47 rows (7 decode, 40 prefill), 8 sequences"), text
    assert "waiting: 0 sequences" in text
    segments = [line for line in text.splitlines() if re.match(r" +\d+ blocks ", line)]
    shared = [s for s in segments if f"{stories}[" in s and "stories-b[" in s]
    private = [s for s in segments if s not in shared]
    assert sum(int(s.split()[0]) for s in shared) == 11 and len(private) == 2, text
    assert all("rows 47:" in s and "x44" in s and "x3" in s for s in shared), text
    assert sorted(int(re.search(r"rows (\d+):", s)[1]) for s in private) == [3, 44]
    assert all("ffn..ffn" in s for s in private), text


def test_plan_keeps_to_the_budget(zoo, stories):
    text = daemon.command("plan", "--zoo", zoo, "--decode", f"{stories}=10*4", "--prefill", f"{stories}=300", "--set",
                          "engine.max_batch_tokens=64", "--set", "engine.max_running=16", "--set",
                          "engine.memory=64MiB").stdout
    assert text.startswith("step: 64 rows (4 decode, 60 prefill)"), text
    alone = daemon.command("plan", "--zoo", zoo, "--prefill", "tiny=20", "--set", "engine.memory=64MiB").stdout
    assert "positions 0..19" in alone


def test_plan_refuses_what_cannot_be(zoo, stories):
    base = ("plan", "--zoo", zoo, "--set", "engine.memory=64MiB")
    fails(NOT_FOUND, *base, "--decode", "nobody=4")
    assert "512" in fails(USAGE, *base, "--decode", "tiny=5000").replace("511", "512")
    assert "CHAIN=TOKENS" in fails(USAGE, *base, "--prefill", "tiny")
    fails(USAGE, *base)
    said = fails(USAGE, *base, "--decode", f"{stories}=100*30", "--set", "engine.max_running=8")
    assert "max_running" in said


def test_check_config_reports_every_problem_with_its_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\nengin:\n  threads: 2\nlimits:\n  logprobs: many\n  stop:\n    count: -1\n"
                    "listen:\n  grpc:\n    address: 0.0.0.0:1\n", encoding="utf-8")
    said = fails(USAGE, "check-config", path)
    for line, words in ((2, "engine"), (5, "logprobs"), (7, "count"), (10, "insecure_public")):
        assert re.search(rf"bad\.yaml:{line}:\d+: .*{words}", said), said
    assert "4 problems" in said
    path = tmp_path / "bad.json"
    path.write_text('{"engine": {\n  "max_runing": 4}}', encoding="utf-8")
    said = fails(USAGE, "check-config", path)
    assert "bad.json:2" in said and "max_running" in said
    path.write_text('{"engine": {\n "threads": 2', encoding="utf-8")
    assert "bad.json:" in fails(USAGE, "check-config", path)
    assert "no such file" in fails(USAGE, "check-config", tmp_path / "none.yaml")
    assert "flag engine.thread" in fails(USAGE, "check-config", "--set", "engine.thread=2", os.devnull)


def test_print_config_gives_each_value_with_its_origin(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("engine:\n  threads: 3\n  max_running: 9\n", encoding="utf-8")
    environment = {**os.environ, "TESSERA_ENGINE__THREADS": "4", "TESSERA_LOG__LEVEL": "error"}
    text = daemon.command("serve", "--config", path, "--print-config", "--zoo", "/some/where", "--set",
                          "log.level=debug", env=environment).stdout
    for name, value, origin in (("threads", "4", "env TESSERA_ENGINE__THREADS"), ("max_running", "9", "t.yaml:3"),
                                ("level", "debug", "flag log.level"), ("root", "/some/where", "flag store.root"),
                                ("max_batch_tokens", "auto", "default")):
        assert re.search(rf"^ *{name}: \"?{re.escape(value)}\"? +# .*{re.escape(origin)}", text, re.M), (name, text)
    again = tmp_path / "again.yaml"
    again.write_text(text, encoding="utf-8")
    daemon.command("check-config", again)


def test_doctor_finds_what_is_wrong(zoo, tmp_path):
    anywhere = [word for name in ("grpc", "http", "metrics") for word in
                ("--set", f"listen.{name}.address=127.0.0.1:0")]
    anywhere += ["--set", f"listen.admin.address=unix:{tmp_path}/a.sock", "--set", "store.reserve=1MiB"]
    good = as_json("doctor", "--zoo", zoo, "--json", *anywhere)
    assert {f["check"] for f in good["findings"]} >= {"settings", "processor", "cores", "zoo", "disk", "memory",
                                                      "mappings", "files", "clock", "addresses"}
    assert not [f for f in good["findings"] if f["verdict"] == "failure"], good
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = daemon.command("doctor", "--zoo", tmp_path / "none", "--json", *anywhere, "--set",
                              f"listen.grpc.address=127.0.0.1:{port}", check=False)
    assert done.returncode == FAILED
    failures = {f["check"]: f for f in json.loads(done.stdout)["findings"] if f["verdict"] == "failure"}
    assert set(failures) == {"zoo", "addresses"}, failures
    assert str(port) in failures["addresses"]["what"] and "import" in failures["zoo"]["fix"]
    assert all(f["fix"] for f in failures.values())
    text = daemon.command("doctor", "--zoo", tmp_path / "none", check=False).stdout
    assert "failure" in text and "fix: " in text


def test_a_running_daemon_is_looked_after(start, stories):
    client = start()
    admin = ("--admin", client.daemon.admin)
    assert "ready" in daemon.command("load", stories, *admin).stdout
    seen = as_json("ps", "--json", *admin)
    states = {m["name"]: m for m in seen["models"]}
    assert states[stories]["state"] == "ready" and states[stories]["weight_bytes"] > 0
    assert seen["state"] == "serving" and states["tiny"]["state"] == "unloaded"
    assert stories in daemon.command("ps", *admin).stdout
    daemon.command("unload", stories, *admin)
    assert {m["name"]: m["state"] for m in as_json("ps", "--json", *admin)["models"]}[stories] == "unloaded"
    daemon.command("drain", "--timeout", 10, *admin)
    assert as_json("ps", "--json", *admin)["state"] == "draining"
    said = fails(UNAVAILABLE, "generate", "--endpoint", client.daemon.grpc, "--model", stories, "--prompt", "x")
    assert "draining" in said
    daemon.command("resume", *admin)
    assert client.generate(stories, [1], 4).ids()
    fails(NOT_FOUND, "load", "nobody", *admin)


def test_reload_shows_changes_and_refusals(start):
    client = start({"limits": {"logprobs": 10}})
    admin = ("--admin", client.daemon.admin)
    client.daemon.write_config({"limits": {"logprobs": 3}})
    dry = daemon.command("reload", "--dry-run", *admin).stdout
    assert "limits.logprobs: 10 -> 3" in dry and "would" in dry
    assert "generation 2" in daemon.command("reload", *admin).stdout
    client.daemon.write_config({"limits": {"logprobs": 3}, "engine": {"max_running": 7}})
    said = fails(FAILED, "reload", *admin)
    assert "engine.max_running" in said and "restart" in said


def test_tokenize_there_and_back(shared_daemon, stories):
    base = ("tokenize", "--endpoint", shared_daemon.grpc, "--model", stories)
    seen = as_json(*base, "--prompt", "Lily saw a cat.", "--json")
    assert len(seen["token_ids"]) == len(seen["tokens"]) > 3
    ids = daemon.command(*base, "--ids", input="Lily saw a cat.").stdout.strip()
    assert ids == ",".join(map(str, seen["token_ids"]))
    assert daemon.command(*base, "--token-ids", ids).stdout.strip() == "Lily saw a cat."
    bare = as_json(*base, "--prompt", "Lily saw a cat.", "--no-special-tokens", "--json")["token_ids"]
    assert bare == seen["token_ids"][-len(bare):]
    assert f"{len(seen['token_ids'])} tokens" in daemon.command(*base, "--prompt", "Lily saw a cat.").stdout


def test_bench_measures_each_level(shared_daemon, stories):
    seen = as_json("bench", "--endpoint", shared_daemon.grpc, "--model", stories, "--concurrency", "1,4", "--requests",
                   6, "--prompt-tokens", 20, "--max-tokens", 12, "--json")
    assert [level["concurrency"] for level in seen["levels"]] == [1, 4]
    for level in seen["levels"]:
        assert level["finished"] == 6 and level["failed"] == 0
        assert level["output_tokens_per_s"] == pytest.approx(72 / level["wall_s"])
        assert 0 < level["first_token_s"]["p50"] <= level["first_token_s"]["p95"]
        assert level["time_per_output_token_s"]["p50"] > 0
    table = daemon.command("bench", "--endpoint", shared_daemon.grpc, "--model", stories, "--concurrency", "2",
                           "--prompt-tokens", 8, "--max-tokens", 4).stdout
    assert "TOKENS/S" in table and "TTFT P95" in table
    done = daemon.command("bench", "--endpoint", shared_daemon.grpc, "--model", stories, "--concurrency", "1",
                          "--prompt-tokens", 9000, "--max-tokens", 4, check=False)
    assert done.returncode == FAILED and "4 failed" in done.stdout


def test_bench_profiles_a_chain_of_the_zoo(zoo, shared_daemon, stories):
    asked = ("bench", "--profile", "--zoo", zoo, "--set", "engine.device=cpu", "--model", stories, "--concurrency", 2,
             "--prompt-tokens", 20, "--max-tokens", 12)
    seen = as_json(*asked, "--json")
    assert seen["read_gb_s"] > 0 and seen["peak_gop_s"]["int8"] > 0
    decode = seen["levels"][0]["decode"]
    assert decode["rows"] <= 2 * decode["steps"] and decode["step_us"] > 0
    inside = sum(op["ns"] for op in decode["ops"]) / decode["steps"] / 1e3
    assert 0 < inside <= decode["step_us"] + decode["counting_us"]
    linear = [op for op in decode["ops"] if op["op"] == "linear"]
    assert linear and all(op["bytes"] > 0 and op["operations"] > 0 for op in linear)
    assert "of counting" in daemon.command(*asked).stdout


def test_exit_codes_and_errors(shared_daemon, tmp_path):
    fails(UNAVAILABLE, "ps", "--admin", tmp_path / "none.sock")
    fails(UNAVAILABLE, "generate", "--endpoint", "127.0.0.1:1", "--model", "tiny", "--prompt", "x")
    assert "nobody" in fails(NOT_FOUND, "generate", "--endpoint", shared_daemon.grpc, "--model", "nobody", "--prompt", "x")
    fails(USAGE, "generate", "--endpoint", shared_daemon.grpc, "--model", "tiny")
    said = fails(USAGE, "generate", "--max-token", 3)
    assert "--max-tokens?" in said
    assert "serve?" in fails(USAGE, "sevre")
    assert "listen.grpc.address" in fails(USAGE, "serve", "--listen", "nonsense")
    fails(NOT_FOUND, "serve", "--zoo", tmp_path / "none")


@pytest.mark.parametrize("command", ["serve", "zoo", "chat", "generate", "tokenize", "perplexity", "bench", "plan", "check-config",
                                     "doctor", "load", "unload", "ps", "drain", "resume", "reload", "completion"])
def test_every_command_has_help_with_examples(command):
    text = daemon.command(command, "--help").stdout
    assert f"tessera {command}" in text and "Examples:" in text, text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_read_by_their_shells(shell, tmp_path):
    script = tmp_path / "script"
    script.write_text(daemon.command("completion", shell).stdout, encoding="utf-8")
    assert "check-config" in script.read_text(encoding="utf-8")
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", str(script)], check=True, timeout=20)
