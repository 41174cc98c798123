// A small Llama checkpoint with random weights, as a GGUF file or a Hugging Face directory.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/safetensors_writer.h"

namespace tessera::testing {

// A directory removed with everything in it at the end of the test.
class TempDirectory {
 public:
  TempDirectory() {
    // In memory where there is such a place: tests that sync thousands of files need no disk.
    std::string pattern = "/dev/shm/tessera.XXXXXX";
    const char* made = mkdtemp(pattern.data());
    if (made == nullptr) {
      pattern = (std::filesystem::temp_directory_path() / "tessera.XXXXXX").string();
      made = mkdtemp(pattern.data());
    }
    path_ = made;
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  ~TempDirectory() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  [[nodiscard]] std::string path(const std::string& name = "") const {
    return name.empty() ? path_ : path_ + "/" + name;
  }

 private:
  std::string path_;
};

inline void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

struct TinyCheckpoint {
  uint64_t layers = 3;
  uint64_t width = 64;
  uint64_t hidden = 96;
  uint64_t vocab = 40;
  uint64_t q_heads = 4;
  uint64_t kv_heads = 2;
  uint64_t head_dim = 16;
  uint32_t seed = 1;
  uint32_t upper_seed = 1;  // of layers from `upper_from` on
  uint64_t upper_from = 1000;
  uint32_t matrix_type = 0;          // GGML number
  std::vector<std::string> skipped;  // tensors left out
  std::vector<std::string> extra;    // F32 vectors of `width` added
};

// Finite pseudo-random bytes: small F32 values, or any bits for the other types.
inline std::string TinyBytes(uint64_t bytes, uint32_t type, uint32_t seed) {
  std::string out;
  uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;
  while (out.size() < bytes) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    if (type == 0) {
      const float value = static_cast<float>(static_cast<int32_t>(state >> 32)) / 4e9f;
      out += GgufWriter::Scalar(value);
    } else {
      out.push_back(static_cast<char>((state >> 40) & 0x3b));
    }
  }
  out.resize(bytes);
  return out;
}

inline uint64_t TinyTypeBytes(uint32_t type, uint64_t elements) {
  static const std::map<uint32_t, std::pair<uint64_t, uint64_t>> kBlocks = {
      {0, {1, 4}},      {1, {1, 2}},      {2, {32, 18}},    {3, {32, 20}},
      {6, {32, 22}},    {7, {32, 24}},    {8, {32, 34}},    {10, {256, 84}},
      {11, {256, 110}}, {12, {256, 144}}, {13, {256, 176}}, {14, {256, 210}},
      {20, {32, 18}},   {23, {256, 136}}, {30, {1, 2}},     {39, {32, 17}}};
  const auto& [block, bytes] = kBlocks.at(type);
  return elements / block * bytes;
}

// Calls `add(gguf name, hugging face name, shape, seed)` for each tensor.
using TinyAdd = std::function<void(const std::string&, const std::string&,
                                   const std::vector<uint64_t>&, uint32_t)>;
inline void ForEachTinyTensor(const TinyCheckpoint& tiny, const TinyAdd& add) {
  const uint64_t q = tiny.q_heads * tiny.head_dim;
  const uint64_t kv = tiny.kv_heads * tiny.head_dim;
  add("token_embd.weight", "model.embed_tokens.weight", {tiny.vocab, tiny.width}, tiny.seed);
  for (uint64_t i = 0; i < tiny.layers; ++i) {
    const std::string g = absl::StrCat("blk.", i, ".");
    const std::string h = absl::StrCat("model.layers.", i, ".");
    uint32_t seed = (i < tiny.upper_from ? tiny.seed : tiny.upper_seed) * 1000 + i * 20;
    add(g + "attn_norm.weight", h + "input_layernorm.weight", {tiny.width}, ++seed);
    add(g + "attn_q.weight", h + "self_attn.q_proj.weight", {q, tiny.width}, ++seed);
    add(g + "attn_k.weight", h + "self_attn.k_proj.weight", {kv, tiny.width}, ++seed);
    add(g + "attn_v.weight", h + "self_attn.v_proj.weight", {kv, tiny.width}, ++seed);
    add(g + "attn_output.weight", h + "self_attn.o_proj.weight", {tiny.width, q}, ++seed);
    add(g + "ffn_norm.weight", h + "post_attention_layernorm.weight", {tiny.width}, ++seed);
    add(g + "ffn_gate.weight", h + "mlp.gate_proj.weight", {tiny.hidden, tiny.width}, ++seed);
    add(g + "ffn_up.weight", h + "mlp.up_proj.weight", {tiny.hidden, tiny.width}, ++seed);
    add(g + "ffn_down.weight", h + "mlp.down_proj.weight", {tiny.width, tiny.hidden}, ++seed);
  }
  add("output_norm.weight", "model.norm.weight", {tiny.width}, tiny.seed + 7);
  add("output.weight", "lm_head.weight", {tiny.vocab, tiny.width}, tiny.seed + 8);
  for (const std::string& name : tiny.extra) add(name, name, {tiny.width}, 3);
}

inline bool Skipped(const TinyCheckpoint& tiny, const std::string& name) {
  for (const std::string& skipped : tiny.skipped) {
    if (skipped == name) return true;
  }
  return false;
}

// Everything but the tensors' settings may be added to the result before `Build`.
inline GgufWriter TinyGguf(const TinyCheckpoint& tiny) {
  GgufWriter gguf;
  gguf.Text("general.architecture", "llama")
      .U32("llama.block_count", tiny.layers)
      .U32("llama.context_length", 256)
      .U32("llama.embedding_length", tiny.width)
      .U32("llama.feed_forward_length", tiny.hidden)
      .U32("llama.attention.head_count", tiny.q_heads)
      .U32("llama.attention.head_count_kv", tiny.kv_heads)
      .U32("llama.rope.dimension_count", tiny.head_dim)
      .F32("llama.attention.layer_norm_rms_epsilon", 1e-5f)
      .Text("tokenizer.ggml.model", "llama");
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  while (tokens.size() < tiny.vocab) tokens.push_back(absl::StrCat("t", tokens.size()));
  gguf.Texts("tokenizer.ggml.tokens", tokens).U32("tokenizer.ggml.eos_token_id", 2);
  ForEachTinyTensor(tiny, [&](const std::string& name, const std::string&,
                              const std::vector<uint64_t>& shape, uint32_t seed) {
    if (Skipped(tiny, name)) return;
    const uint32_t type = shape.size() == 1 ? 0 : tiny.matrix_type;
    uint64_t elements = 1;
    for (const uint64_t dimension : shape) elements *= dimension;
    gguf.Tensor(name, type, shape, TinyBytes(TinyTypeBytes(type, elements), type, seed));
  });
  return gguf;
}

// `config` is added to config.json's fields: ",\"key\":value".
inline void WriteTinyHuggingFace(const TinyCheckpoint& tiny, const std::string& directory,
                                 const std::string& config = "") {
  std::filesystem::create_directories(directory);
  SafetensorsWriter weights;
  ForEachTinyTensor(tiny, [&](const std::string&, const std::string& name,
                              const std::vector<uint64_t>& shape, uint32_t seed) {
    if (Skipped(tiny, name)) return;
    uint64_t elements = 1;
    for (const uint64_t dimension : shape) elements *= dimension;
    weights.Tensor(name, "F32", shape, TinyBytes(elements * 4, 0, seed));
  });
  WriteFile(directory + "/model.safetensors", weights.Build());
  WriteFile(
      directory + "/config.json",
      "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":" + std::to_string(tiny.width) +
          ",\"num_hidden_layers\":" + std::to_string(tiny.layers) + ",\"intermediate_size\":" +
          std::to_string(tiny.hidden) + ",\"vocab_size\":" + std::to_string(tiny.vocab) +
          ",\"num_attention_heads\":" + std::to_string(tiny.q_heads) + ",\"num_key_value_heads\":" +
          std::to_string(tiny.kv_heads) + ",\"head_dim\":" + std::to_string(tiny.head_dim) +
          ",\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\"" +
          config + "}");
}

}  // namespace tessera::testing
