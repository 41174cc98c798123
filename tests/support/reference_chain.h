// A chain computed in float64, straight from the manifests of its blocks: what tests of blocks
// compare the engine with. F32 weights only.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "blockzoo/rotary.h"
#include "tests/support/tiny_chain.h"

namespace tessera::testing {

class ReferenceChain {
 public:
  using Vector = std::vector<double>;
  using Rows = std::vector<Vector>;

  ReferenceChain(MemoryWeights& weights, const blockzoo::ChainManifest& chain)
      : weights_(weights), chain_(chain) {
    for (const blockzoo::RotarySettings& settings : chain.rotary) {
      rotary_.push_back(blockzoo::MakeRotaryTable(settings, chain.max_context).value());
    }
  }

  // Logits after each token.
  Rows Logits(const std::vector<TokenId>& tokens) {
    Rows x;
    for (const Digest& identity : chain_.blocks) {
      block_ = weights_.Block(identity).value();
      const std::string& type = block_.type;
      if (type == "embedding") {
        x = Embed(tokens);
      } else if (type == "attention") {
        Add(x, Attend(x), "post_norm");
      } else if (type == "ffn") {
        Add(x, Ffn(x, ""), "post_norm");
      } else if (type == "parallel") {
        const Rows attended = Attend(x), made = Ffn(x, "ffn_");
        Add(x, attended, "post_norm");
        Add(x, made, "ffn_post_norm");
      } else {
        x = Head(x);
      }
    }
    return x;
  }

 private:
  [[nodiscard]] bool Has(const std::string& role) const { return block_.Find(role) != nullptr; }
  [[nodiscard]] double Number(const std::string& name, double otherwise) const {
    return block_.attributes.Has(name) ? block_.attributes.Number(name, -1e12, 1e12).value()
                                       : otherwise;
  }
  [[nodiscard]] std::string Text(const std::string& name, const std::string& otherwise) const {
    return block_.attributes.Has(name) ? block_.attributes.Text(name).value() : otherwise;
  }
  // Empty where there is no such tensor.
  [[nodiscard]] std::vector<float> Tensor(const std::string& role) {
    std::vector<float> values;
    if (!Has(role)) return values;
    const blockzoo::WeightHandle bytes = weights_.Canonical(*block_.Find(role)).value();
    values.resize(bytes.size() / 4);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

  Rows Linear(const Rows& x, const std::string& role) {
    const std::vector<float> weight = Tensor(role), bias = Tensor(role + "_bias");
    const uint64_t out = block_.Find(role)->shape[0], in = block_.Find(role)->shape[1];
    Rows y(x.size(), Vector(out));
    for (size_t t = 0; t < x.size(); ++t) {
      for (uint64_t o = 0; o < out; ++o) {
        double sum = bias.empty() ? 0.0 : double{bias[o]};
        for (uint64_t i = 0; i < in; ++i) sum += x[t][i] * weight[o * in + i];
        y[t][o] = sum;
      }
    }
    return y;
  }

  // Norms elements [begin, begin + count) of a row; the weight begins at `at`.
  void NormPart(Vector& row, size_t begin, size_t count, const std::string& kind,
                const std::vector<float>& weight, size_t at, const std::vector<float>& bias) const {
    const auto width = static_cast<double>(count);
    double mean = 0, squares = 0;
    for (size_t i = 0; i < count; ++i) mean += row[begin + i] / width;
    if (kind == "rms") mean = 0;
    for (size_t i = 0; i < count; ++i) squares += std::pow(row[begin + i] - mean, 2) / width;
    for (size_t i = 0; i < count; ++i) {
      double& v = row[begin + i];
      v = (v - mean) / std::sqrt(squares + Number("norm_epsilon", 0)) * weight[at + i];
      if (!bias.empty()) v += bias[at + i];
    }
  }
  Rows Norm(Rows x, const std::string& role, const std::string& kind) {
    if (kind == "none") return x;
    const std::vector<float> weight = Tensor(role), bias = Tensor(role + "_bias");
    for (Vector& row : x) NormPart(row, 0, row.size(), kind, weight, 0, bias);
    return x;
  }

  void Add(Rows& x, Rows made, const std::string& post) {
    if (Has(post)) {
      made = Norm(std::move(made), post, Text("norm", "rms") == "layer" ? "layer" : "rms");
    }
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < x[t].size(); ++i) x[t][i] += Number("residual_scale", 1) * made[t][i];
    }
  }

  Rows Embed(const std::vector<TokenId>& tokens) {
    const std::vector<float> table = Tensor("table"), positions = Tensor("positions");
    const auto width = static_cast<size_t>(Number("width", 0));
    const auto offset = static_cast<size_t>(Number("positions_offset", 0));
    Rows x(tokens.size(), Vector(width));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < width; ++i) {
        x[t][i] = table[tokens[t] * width + i] * Number("scale", 1);
        if (!positions.empty()) x[t][i] += positions[(t + offset) * width + i];
      }
    }
    return Has("norm") ? Norm(std::move(x), "norm", "layer") : x;
  }

  void NormHeads(Rows& x, const std::string& role, size_t head_dim) {
    const std::string kind = Text("qk_norm", "");
    if (kind.empty()) return;
    const std::vector<float> weight = Tensor(role);
    for (Vector& row : x) {
      const size_t part = kind == "full" ? row.size() : head_dim;
      for (size_t at = 0; at < row.size(); at += part) {
        NormPart(row, at, part, kind == "head_layer" ? "layer" : "rms", weight,
                 kind == "head" ? 0 : at, {});
      }
    }
  }

  void Rotate(Rows& x, size_t head_dim) const {
    if (!block_.attributes.Has("rotary")) return;
    const blockzoo::RotaryTable& table = rotary_[static_cast<size_t>(Number("rotary", 0))];
    const size_t half = table.frequencies.size();
    const bool interleaved = Text("rope_style", "") == "interleaved";
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t head = 0; head < x[t].size(); head += head_dim) {
        for (size_t i = 0; i < half; ++i) {
          double& a = x[t][head + (interleaved ? 2 * i : i)];
          double& b = x[t][head + (interleaved ? 2 * i + 1 : i + half)];
          const double angle = static_cast<double>(t) * double{table.frequencies[i]};
          const double c = std::cos(angle) * double{table.scale};
          const double s = std::sin(angle) * double{table.scale};
          std::tie(a, b) = std::pair(a * c - b * s, a * s + b * c);
        }
      }
    }
  }

  Rows Attend(const Rows& x) {
    const auto q_heads = static_cast<size_t>(Number("q_heads", 0));
    const auto kv_heads = static_cast<size_t>(Number("kv_heads", 0));
    const auto dim = static_cast<size_t>(Number("head_dim", 0));
    const auto window = static_cast<size_t>(Number("window", 1e9));
    const double cap = Number("softcap", 0);
    const double scale = Number("scale", 1 / std::sqrt(static_cast<double>(dim)));
    const Rows normed = Norm(x, "norm", Text("norm", "rms"));
    Rows q = Linear(normed, "q"), k = Linear(normed, "k");
    const Rows v = Linear(normed, "v");
    NormHeads(q, "q_norm", dim);
    NormHeads(k, "k_norm", dim);
    Rotate(q, dim);
    Rotate(k, dim);
    const std::vector<float> sinks = Tensor("sinks");
    Rows out(x.size(), Vector(q_heads * dim));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t h = 0; h < q_heads; ++h) {
        const size_t kv = h / (q_heads / kv_heads) * dim;
        const size_t from = t + 1 > window ? t + 1 - window : 0;
        Vector weight;
        double total = sinks.empty() ? 0.0 : std::exp(double{sinks[h]});
        for (size_t u = from; u <= t; ++u) {
          double score = 0;
          for (size_t d = 0; d < dim; ++d) score += q[t][h * dim + d] * k[u][kv + d];
          score *= scale;
          if (cap > 0) score = cap * std::tanh(score / cap);
          weight.push_back(std::exp(score));
          total += weight.back();
        }
        for (size_t u = from; u <= t; ++u) {
          for (size_t d = 0; d < dim; ++d) {
            out[t][h * dim + d] += weight[u - from] / total * v[u][kv + d];
          }
        }
      }
    }
    return Linear(out, "o");
  }

  static double Activate(const std::string& kind, double x) {
    if (kind == "silu") return x / (1 + std::exp(-x));
    if (kind == "gelu") return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    if (kind == "relu") return std::max(x, 0.0);
    if (kind == "relu2") return std::max(x, 0.0) * std::max(x, 0.0);
    return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  }

  Rows Ffn(const Rows& x, const std::string& prefix) {
    const std::string norm = Has(prefix + "norm") ? prefix + "norm" : "norm";
    const Rows normed = Norm(x, norm, Text("norm", "rms"));
    Rows hidden = Linear(normed, prefix + "up");
    const bool gated = Has(prefix + "gate");
    const Rows gate = gated ? Linear(normed, prefix + "gate") : hidden;
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t i = 0; i < hidden[t].size(); ++i) {
        const double active = Activate(Text("activation", ""), gate[t][i]);
        hidden[t][i] = gated ? active * hidden[t][i] : active;
      }
    }
    return Linear(hidden, prefix + "down");
  }

  Rows Head(const Rows& x) {
    Rows logits = Linear(Norm(x, "norm", Text("norm", "rms")), "head");
    const std::vector<float> bias = Tensor("bias");
    const double cap = Number("softcap", 0);
    for (Vector& row : logits) {
      for (size_t i = 0; i < row.size(); ++i) {
        if (!bias.empty()) row[i] += bias[i];
        row[i] *= Number("scale", 1);
        if (cap > 0) row[i] = cap * std::tanh(row[i] / cap);
      }
    }
    return logits;
  }

  MemoryWeights& weights_;
  blockzoo::ChainManifest chain_;
  std::vector<blockzoo::RotaryTable> rotary_;
  blockzoo::BlockManifest block_;
};

}  // namespace tessera::testing
