"""Rows of the section `models` about files: export, import speed, damaged files."""

import filecmp
import hashlib
import json
import os
import pathlib
import struct
import tempfile
import threading
import time

import daemon
import damaged_models
import models
import tiny_llama
from spine import Row

GIB = 1 << 30
SPEED_BYTES, SPEED_TENSOR_BYTES, RUNS = 2 * GIB, 64 << 20, 3


def exported(folder, path, form):
    """Whether what an export gives back equals `path`, a file or a directory; its bytes."""
    zoo, out = folder / "zoo", folder / "out"
    daemon.import_model(zoo, path, "chain")
    daemon.command("zoo", "--zoo", zoo, "export", "chain", "--format", form, "--out", out)
    if path.is_file():
        return filecmp.cmp(path, out, shallow=False), path.stat().st_size
    names = sorted(p.name for p in path.iterdir())
    same = names == sorted(p.name for p in out.iterdir()) and filecmp.cmpfiles(path, out, names, shallow=False)[0] == names
    return same, sum(p.stat().st_size for p in path.iterdir())


def export(arguments):
    stories = models.test_data("models/stories260K/stories260K.gguf")
    sources = [("gguf F32", stories, "gguf"), ("gguf Q4_1", models.smollm2_gguf(), "gguf")]
    with tempfile.TemporaryDirectory() as base:
        base = pathlib.Path(base)
        for variant in ("plain", "rope3", "bf16"):
            tiny_llama.write_checkpoint(variant, base / variant)
            sources.append((f"safetensors {variant}", base / variant, "hf"))
        for number, (name, path, form) in enumerate(sources):
            if path is None:
                yield Row(f"f {name}", "no file", "-", None, "byte-exact", False)
                continue
            folder = base / f"work{number}"
            folder.mkdir()
            same, size = exported(folder, pathlib.Path(path), form)
            yield Row(f"f {name}", "equal" if same else "differs", f"{size / 1e6:.1f} MB", None, "byte-exact", same)


def write_synthetic(folder):
    """A Llama of about SPEED_BYTES in BF16, one layer's matrices of SPEED_TENSOR_BYTES; random finite bytes."""
    width, hidden, vocabulary = 4096, 8192, 8192
    layer = [("self_attn.q_proj", [width, width]), ("self_attn.k_proj", [width, width]),
             ("self_attn.v_proj", [width, width]), ("self_attn.o_proj", [width, width]),
             ("mlp.gate_proj", [hidden, width]), ("mlp.up_proj", [hidden, width]), ("mlp.down_proj", [width, hidden])]
    layer_bytes = sum(2 * damaged_models.elements(shape) for _, shape in layer)
    layers = (SPEED_BYTES - 4 * vocabulary * width) // layer_bytes
    shapes = {"model.embed_tokens.weight": [vocabulary, width], "model.norm.weight": [width],
              "lm_head.weight": [vocabulary, width]}
    for i in range(layers):
        shapes.update({f"model.layers.{i}.{name}.weight": shape for name, shape in layer})
        shapes.update({f"model.layers.{i}.{name}.weight": [width]
                       for name in ("input_layernorm", "post_attention_layernorm")})
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * damaged_models.elements(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header).encode()
    folder.mkdir()
    with open(folder / "model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(raw)) + raw)
        for name, shape in shapes.items():
            size = 2 * damaged_models.elements(shape)
            # The bit that would make a number infinite stays clear.
            noise = int.from_bytes(os.urandom(1 << 20), "little") & int.from_bytes(b"\xff\xbf" * (1 << 19), "little")
            block = noise.to_bytes(1 << 20, "little")
            out.write((block * (size // len(block) + 1))[:size])
    (folder / "config.json").write_text(json.dumps({
        **damaged_models.CONFIG, "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": hidden,
        "vocab_size": vocabulary, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128}))
    return offset


def sha_rate(threads):
    """Bytes a second that `threads` threads hash together with OpenSSL."""
    block, rounds = bytes(64 << 20), 6

    def work():
        digest = hashlib.sha256()
        for _ in range(rounds):
            digest.update(block)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begin = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return threads * rounds * len(block) / (time.monotonic() - begin)


def disk_rate(folder, size):
    """Bytes a second of one sequential write of `size` bytes, until they are on the disk."""
    block = os.urandom(16 << 20)
    begin = time.monotonic()
    with open(folder / "written", "wb", buffering=0) as out:
        for _ in range(size // len(block)):
            out.write(block)
        os.fsync(out.fileno())
    seconds = time.monotonic() - begin
    (folder / "written").unlink()
    return size / seconds


def import_speed(arguments):
    """Best of several, in turns with both limits: the disk is shared with whatever else runs."""
    with tempfile.TemporaryDirectory(dir=models.cache_folder()) as base:
        base = pathlib.Path(base)
        size = write_synthetic(base / "model")
        ours, sha, disk = 0.0, 0.0, 0.0
        for run in range(RUNS):
            sha = max(sha, sha_rate(len(os.sched_getaffinity(0))))
            disk = max(disk, disk_rate(base, size))
            begin = time.monotonic()
            daemon.import_model(base / f"zoo{run}", base / "model", "chain")
            ours = max(ours, size / (time.monotonic() - begin))
            daemon.command("zoo", "--zoo", base / f"zoo{run}", "rm", "chain")
            daemon.command("zoo", "--zoo", base / f"zoo{run}", "gc")
    limit = min(sha, disk)
    yield Row("g import of 2 GB", f"{ours / 1e9:.2f} GB/s",
              f"SHA-256 {sha / 1e9:.2f}, disk {disk / 1e9:.2f} GB/s", ours / limit, ">= 0.80", ours >= 0.8 * limit)


def damage(arguments):
    for form, kinds in damaged_models.KINDS.items():
        with tempfile.TemporaryDirectory() as base:
            base = pathlib.Path(base)
            sound = damaged_models.run(daemon.binary(), base / "zoo",
                                       damaged_models.write(damaged_models.SOUND[form], base / "sound"))
            count, bad, worst = 0, [], 0
            for number, one in enumerate(kinds()):
                path = damaged_models.write(one, base / str(number))
                code, error, memory = damaged_models.run(daemon.binary(), base / "zoo", path)
                wrong = damaged_models.problem(one, code, error)
                size = sum(len(data) for data in one.files.values())
                # Over what the program takes for a sound file of that kind.
                over = max(0, memory - sound[2])
                worst = max(worst, over)
                if not wrong and over > 2 * size + (4 << 20):
                    wrong = f"{over} bytes over a sound import"
                if wrong:
                    bad.append(f"{one.name}: {wrong}")
                count += 1
            for line in bad:
                print(f"  {form}: {line}", flush=True)
            yield Row(f"i damaged {form}", f"{count - len(bad)} of {count} refused by name",
                      f"at most {worst / 1e6:.1f} MB over a sound import", (count - len(bad)) / count,
                      ">= 200 kinds, all", sound[0] == 0 and count >= 200 and not bad)
