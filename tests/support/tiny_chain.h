// Small random chains held in memory: blocks of the Llama family, mixtures of experts and latent
// attention with seeded weights, for tests of whatever runs chains without a zoo.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "blockzoo/chain.h"
#include "blockzoo/manifest.h"
#include "blockzoo/weight_source.h"
#include "kernels/dtype.h"
#include "kernels/weight_codec.h"
#include "kernels/weight_planes.h"

namespace tessera::testing {

// Tensors and blocks by digest. Thread-safe.
class MemoryWeights final : public blockzoo::WeightSource {
 public:
  // Stores canonical bytes and names them.
  blockzoo::TensorRef Add(const std::string& role, kernels::DType dtype, blockzoo::Shape shape,
                          std::vector<std::byte> bytes) {
    const std::span<const uint8_t> view(reinterpret_cast<const uint8_t*>(bytes.data()),
                                        bytes.size());
    blockzoo::TensorRef ref{.role = role,
                            .tensor = blockzoo::TensorIdentity(dtype, shape, view),
                            .dtype = dtype,
                            .shape = std::move(shape)};
    const std::lock_guard lock(mutex_);
    tensors_[ref.tensor] = Hold(std::move(bytes));
    return ref;
  }

  Digest AddBlock(blockzoo::BlockManifest manifest) {
    std::sort(manifest.tensors.begin(), manifest.tensors.end(),
              [](const auto& a, const auto& b) { return a.role < b.role; });
    const Digest identity = blockzoo::IdentityOf(manifest);
    const std::lock_guard lock(mutex_);
    blocks_[identity] = std::move(manifest);
    return identity;
  }

  StatusOr<blockzoo::WeightHandle> Canonical(const blockzoo::TensorRef& tensor) override {
    const std::lock_guard lock(mutex_);
    const auto found = tensors_.find(tensor.tensor);
    if (found == tensors_.end()) return absl::NotFoundError("no such tensor");
    return found->second;
  }

  StatusOr<blockzoo::WeightHandle> Derived(const blockzoo::TensorRef& tensor,
                                           absl::string_view transform, uint64_t bytes,
                                           const blockzoo::Derive& derive) override {
    TESSERA_ASSIGN_OR_RETURN(const blockzoo::WeightHandle canonical, Canonical(tensor));
    const std::lock_guard lock(mutex_);
    blockzoo::WeightHandle& kept = derived_[{tensor.tensor, std::string(transform)}];
    if (kept.data() == nullptr) {
      std::vector<std::byte> made(bytes);
      derive({canonical.data(), canonical.size()}, made);
      kept = Hold(std::move(made));
    }
    return kept;
  }

  StatusOr<blockzoo::BlockManifest> Block(const Digest& block) override {
    const std::lock_guard lock(mutex_);
    const auto found = blocks_.find(block);
    if (found == blocks_.end()) return absl::NotFoundError("no such block");
    return found->second;
  }

 private:
  // 64-byte aligned, as a mapped file is.
  static blockzoo::WeightHandle Hold(std::vector<std::byte> bytes) {
    struct Owner {
      std::vector<std::byte> memory;
      blockzoo::WeightBytes weight;
    };
    auto owner = std::make_shared<Owner>();
    owner->memory.resize(bytes.size() + 64);
    const auto address = reinterpret_cast<uintptr_t>(owner->memory.data());
    std::byte* at = owner->memory.data() + (64 - address % 64) % 64;
    std::memcpy(at, bytes.data(), bytes.size());
    owner->weight.bytes = {at, bytes.size()};
    return blockzoo::WeightHandle(
        std::shared_ptr<const blockzoo::WeightBytes>(owner, &owner->weight));
  }

  std::mutex mutex_;
  std::map<Digest, blockzoo::WeightHandle> tensors_;
  std::map<std::pair<Digest, std::string>, blockzoo::WeightHandle> derived_;
  std::map<Digest, blockzoo::BlockManifest> blocks_;
};

struct TinyShape {
  uint32_t layers = 3;
  uint32_t width = 64;
  uint32_t q_heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 64;
  uint32_t hidden = 96;
  uint32_t vocab = 160;
  uint32_t max_context = 1024;
  kernels::DType dtype = kernels::DType::kF32;
  // Instead of the ffn: this many experts of `hidden`, two of which a row uses, and a shared one.
  uint32_t experts = 0;
  // Instead of keys and values: latents of this rank. Heads have a rotated part of head_dim / 2.
  uint32_t latent_rank = 0;
};

// Makes chains whose layer l depends on (seed of l) only, so that chains of equal lower seeds share
// blocks.
class TinyChains {
 public:
  explicit TinyChains(MemoryWeights& weights) : weights_(weights) {}

  // `layer_seeds` has one seed a layer; the embedding and lm_head come from `ends_seed`.
  blockzoo::ChainManifest Make(const std::string& name, const TinyShape& shape,
                               const std::vector<uint32_t>& layer_seeds, uint32_t ends_seed) {
    blockzoo::ChainManifest chain;
    chain.name = name;
    chain.architecture = "llama";
    chain.width = shape.width;
    chain.vocab = shape.vocab;
    chain.max_context = shape.max_context;
    chain.end_token_ids = {2};
    blockzoo::RotarySettings rotary;
    rotary.dim = shape.latent_rank > 0 ? shape.head_dim / 2 : shape.head_dim;
    chain.rotary.push_back(rotary);
    chain.blocks.push_back(Embedding(shape, ends_seed));
    for (uint32_t seed : layer_seeds) {
      chain.blocks.push_back(shape.latent_rank > 0 ? LatentAttention(shape, seed)
                                                   : Attention(shape, seed));
      chain.blocks.push_back(shape.experts > 0 ? Moe(shape, seed) : Ffn(shape, seed));
    }
    chain.blocks.push_back(LmHead(shape, ends_seed));
    return chain;
  }

 private:
  static std::vector<float> Random(uint32_t seed, size_t count, float spread, float middle) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(middle, spread);
    std::vector<float> values(count);
    for (float& value : values) value = normal(engine);
    return values;
  }

  static void Put16(std::vector<std::byte>& out, uint16_t bits) {
    out.push_back(std::byte(bits & 0xff));
    out.push_back(std::byte(bits >> 8));
  }

  // Canonical bytes of `values` in `dtype`, quantized where the type asks for it.
  static std::vector<std::byte> Encode(kernels::DType dtype, const std::vector<float>& values,
                                       uint64_t in = 0) {
    std::vector<std::byte> out;
    if (!kernels::IsFloatType(dtype)) {
      const uint64_t rows = values.size() / in;
      out.resize(kernels::StorageBytes(dtype, rows, in).value());
      for (uint64_t row = 0; row < rows; row += kernels::kBandRows) {
        kernels::EncodeBand(dtype, rows, in, row, std::min(kernels::kBandRows, rows - row),
                            &values[row * in], out.data());
      }
    } else if (dtype == kernels::DType::kF32) {
      out.resize(values.size() * 4);
      std::memcpy(out.data(), values.data(), out.size());
    } else {
      for (float v : values) {
        Put16(out, dtype == kernels::DType::kF16 ? kernels::F32ToF16(v) : kernels::F32ToBF16(v));
      }
    }
    return out;
  }

  blockzoo::TensorRef Weight(const std::string& role, const TinyShape& shape, uint32_t seed,
                             uint64_t out, uint64_t in) {
    const float spread = 1.2f / std::sqrt(static_cast<float>(in));
    return weights_.Add(role, shape.dtype, {out, in},
                        Encode(shape.dtype, Random(seed, out * in, spread, 0), in));
  }

  blockzoo::TensorRef Norm(const TinyShape& shape, uint32_t seed) {
    return Vector("norm", seed, shape.width, 0.1f, 1);
  }

  blockzoo::TensorRef Vector(const std::string& role, uint32_t seed, uint64_t size, float spread,
                             float middle) {
    return weights_.Add(role, kernels::DType::kF32, {size},
                        Encode(kernels::DType::kF32, Random(seed, size, spread, middle)));
  }

  Digest Embedding(const TinyShape& shape, uint32_t seed) {
    blockzoo::BlockManifest block{.type = "embedding"};
    block.attributes.Set("width", int64_t{shape.width});
    block.attributes.Set("vocab", int64_t{shape.vocab});
    block.tensors.push_back(Table("table", shape, seed));
    return weights_.AddBlock(std::move(block));
  }

  blockzoo::TensorRef Table(const std::string& role, const TinyShape& shape, uint32_t seed) {
    // Where layers have planes, ends are BF16, as in the usual checkpoints.
    const kernels::DType dtype =
        kernels::HasPlanes(shape.dtype) ? kernels::DType::kBF16 : shape.dtype;
    return weights_.Add(
        role, dtype, {shape.vocab, shape.width},
        Encode(dtype, Random(seed * 7919 + 1, uint64_t{shape.vocab} * shape.width, 1.0f, 0),
               shape.width));
  }

  Digest Attention(const TinyShape& shape, uint32_t seed) {
    blockzoo::BlockManifest block{.type = "attention"};
    block.attributes.Set("width", int64_t{shape.width});
    block.attributes.Set("q_heads", int64_t{shape.q_heads});
    block.attributes.Set("kv_heads", int64_t{shape.kv_heads});
    block.attributes.Set("head_dim", int64_t{shape.head_dim});
    block.attributes.Set("norm_epsilon", 1e-5);
    block.attributes.Set("rotary", int64_t{0});
    block.attributes.Set("rope_style", std::string("half"));
    const uint32_t base = seed * 7919 + 100;
    const uint64_t q = uint64_t{shape.q_heads} * shape.head_dim;
    const uint64_t kv = uint64_t{shape.kv_heads} * shape.head_dim;
    block.tensors = {Norm(shape, base), Weight("q", shape, base + 1, q, shape.width),
                     Weight("k", shape, base + 2, kv, shape.width),
                     Weight("v", shape, base + 3, kv, shape.width),
                     Weight("o", shape, base + 4, shape.width, q)};
    return weights_.AddBlock(std::move(block));
  }

  Digest Ffn(const TinyShape& shape, uint32_t seed) {
    blockzoo::BlockManifest block{.type = "ffn"};
    block.attributes.Set("width", int64_t{shape.width});
    block.attributes.Set("hidden", int64_t{shape.hidden});
    block.attributes.Set("norm_epsilon", 1e-5);
    block.attributes.Set("activation", std::string("silu"));
    const uint32_t base = seed * 7919 + 200;
    block.tensors = {Norm(shape, base), Weight("gate", shape, base + 1, shape.hidden, shape.width),
                     Weight("up", shape, base + 2, shape.hidden, shape.width),
                     Weight("down", shape, base + 3, shape.width, shape.hidden)};
    return weights_.AddBlock(std::move(block));
  }

  Digest LatentAttention(const TinyShape& shape, uint32_t seed) {
    blockzoo::BlockManifest block{.type = "latent_attention"};
    const uint64_t heads = shape.q_heads, rank = shape.latent_rank;
    const uint64_t nope = shape.head_dim, rope = shape.head_dim / 2, v = shape.head_dim;
    block.attributes.Set("width", int64_t{shape.width});
    block.attributes.Set("q_heads", static_cast<int64_t>(heads));
    block.attributes.Set("q_lora_rank", int64_t{32});
    block.attributes.Set("kv_lora_rank", static_cast<int64_t>(rank));
    block.attributes.Set("qk_nope_head_dim", static_cast<int64_t>(nope));
    block.attributes.Set("qk_rope_head_dim", static_cast<int64_t>(rope));
    block.attributes.Set("v_head_dim", static_cast<int64_t>(v));
    block.attributes.Set("norm_epsilon", 1e-6);
    block.attributes.Set("rotary", int64_t{0});
    block.attributes.Set("rope_style", std::string("interleaved"));
    const uint32_t base = seed * 7919 + 300;
    block.tensors = {Norm(shape, base),
                     Weight("q_a", shape, base + 1, 32, shape.width),
                     Vector("q_a_norm", base + 2, 32, 0.1f, 1),
                     Weight("q_b", shape, base + 3, heads * (nope + rope), 32),
                     Weight("kv_a", shape, base + 4, rank + rope, shape.width),
                     Vector("kv_a_norm", base + 5, rank, 0.1f, 1),
                     Weight("k_b", shape, base + 6, heads * rank, nope),
                     Weight("v_b", shape, base + 7, heads * v, rank),
                     Weight("o", shape, base + 8, shape.width, heads * v)};
    return weights_.AddBlock(std::move(block));
  }

  Digest Moe(const TinyShape& shape, uint32_t seed) {
    blockzoo::BlockManifest block{.type = "moe"};
    block.attributes.Set("width", int64_t{shape.width});
    block.attributes.Set("hidden", int64_t{shape.hidden});
    block.attributes.Set("shared_hidden", int64_t{shape.hidden});
    block.attributes.Set("experts", int64_t{shape.experts});
    block.attributes.Set("experts_used", int64_t{2});
    block.attributes.Set("router_score", std::string("softmax"));
    block.attributes.Set("router_normalise", int64_t{1});
    block.attributes.Set("norm_epsilon", 1e-5);
    block.attributes.Set("activation", std::string("silu"));
    const uint32_t base = seed * 7919 + 400;
    const uint64_t hidden = shape.hidden, width = shape.width, experts = shape.experts;
    block.tensors = {Norm(shape, base),
                     Weight("router", shape, base + 1, experts, width),
                     Weight("gate", shape, base + 2, experts * hidden, width),
                     Weight("up", shape, base + 3, experts * hidden, width),
                     Weight("down", shape, base + 4, experts * width, hidden),
                     Weight("shared_gate", shape, base + 5, hidden, width),
                     Weight("shared_up", shape, base + 6, hidden, width),
                     Weight("shared_down", shape, base + 7, width, hidden),
                     Weight("shared_gate_weight", shape, base + 8, 1, width),
                     Vector("selection_bias", base + 9, experts, 0.1f, 0),
                     Vector("gate_bias", base + 10, experts * hidden, 0.1f, 0)};
    return weights_.AddBlock(std::move(block));
  }

  Digest LmHead(const TinyShape& shape, uint32_t seed) {
    blockzoo::BlockManifest block{.type = "lm_head"};
    block.attributes.Set("width", int64_t{shape.width});
    block.attributes.Set("vocab", int64_t{shape.vocab});
    block.attributes.Set("norm_epsilon", 1e-5);
    block.tensors = {Norm(shape, seed * 7919 + 2), Table("head", shape, seed)};
    return weights_.AddBlock(std::move(block));
  }

  MemoryWeights& weights_;
};

}  // namespace tessera::testing
