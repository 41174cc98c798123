// Checks sampling on the device against the CPU backend's kernel, row by row; --bench times it.
// Linked with kernels/cpu/ops/sample_row.cc, kernels/cpu/avx2/rows.cc and
// kernels/cuda/ops/sample_pack.cc.
#include <algorithm>
#include <numeric>
#include <set>

#include "kernels/cpu/ops/sample_row.h"
#include "kernels/cuda/ops/sample.h"
#include "tests/kernels/cuda/check_util.cuh"

namespace tessera::check {
namespace {

using namespace tessera::kernels;        // NOLINT(google-build-using-namespace)
using namespace tessera::kernels::cuda;  // NOLINT(google-build-using-namespace)

constexpr int kTopStride = 144;

// Rows with what they point to.
struct Batch {
  int vocab = 0;
  int64_t stride = 0;
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  std::vector<SampleSlots> slots;
  std::vector<std::vector<TokenCount>> counts;
  std::vector<std::vector<TokenBias>> bias;
  std::vector<std::vector<TokenId>> allowed, banned, ids;
  std::vector<int32_t> last_token;

  Batch(int n, int v)
      : vocab(v),
        stride((v + 3) / 4 * 4),
        logits(n * stride, NAN),
        rows(n),
        slots(n),
        counts(n),
        bias(n),
        allowed(n),
        banned(n),
        ids(n),
        last_token(2 * n, -1) {}
  float* Row(int i) { return &logits[i * stride]; }
};

enum class Shape { kFlat, kPeaked, kTies, kBad, kMasked, kOutliers };
constexpr int kShapes = 6;

void FillLogits(Batch& b, int row, Shape shape, Rng& rng) {
  float* l = b.Row(row);
  for (int i = 0; i < b.vocab; ++i) {
    const float normal = rng.Normal();
    l[i] = 2 * (shape == Shape::kOutliers || std::abs(normal) < 3.5f ? normal : normal / 10);
  }
  if (shape == Shape::kPeaked) {
    for (int i = 0; i < b.vocab; ++i) l[i] = 0.7f * l[i] - 3;
    for (int k = 0; k < 40; ++k) l[rng.Below(b.vocab)] = 18.0f - 0.4f * float(k) + rng.Uniform();
  }
  if (shape == Shape::kTies) {
    for (int i = 0; i < b.vocab; ++i) l[i] = std::round(l[i] * 2) / 2;
  }
  if (shape == Shape::kBad) {
    for (int i = 0; i < b.vocab; i += 3) l[i] = i % 2 == 0 ? NAN : -INFINITY;
    l[rng.Below(b.vocab)] = INFINITY;
    l[rng.Below(b.vocab)] = -0.0f;
  }
  if (shape == Shape::kMasked) {
    for (int i = 0; i < b.vocab; ++i) {
      if (rng.Below(8) != 0) l[i] = rng.Below(2) == 0 ? -INFINITY : -1e9f;
    }
    l[rng.Below(b.vocab)] = 1.0f;
  }
}

std::vector<TokenId> RandomIds(int count, int vocab, Rng& rng) {
  std::set<TokenId> ids;
  for (int i = 0; i < count; ++i) ids.insert(rng.Below(static_cast<uint32_t>(vocab)));
  return {ids.begin(), ids.end()};
}

// A random mix of settings; `kind` makes sure that each appears alone too.
void FillSettings(Batch& b, int i, int kind, Rng& rng) {
  SampleRow& r = b.rows[i];
  r.seed = rng.Next(), r.counter = rng.Below(100000);
  r.temperature = kind == 0 ? 0.0f : 0.3f + 1.2f * rng.Uniform();
  const auto some = [&](int alone) { return kind == alone || (kind >= 12 && rng.Below(3) == 0); };
  if (some(2)) r.top_k = 1 + rng.Below(rng.Below(4) == 0 ? uint32_t(b.vocab) : 100);
  if (some(3)) r.top_p = rng.Below(5) == 0 ? 0.9999999f : 0.05f + 0.94f * rng.Uniform();
  if (some(4)) r.min_p = 0.3f * rng.Uniform() * rng.Uniform();
  if (some(5)) r.typical_p = 0.1f + 0.89f * rng.Uniform();
  if (some(6)) {
    for (const TokenId id : RandomIds(20, b.vocab, rng))
      b.bias[i].push_back({id, 5 * rng.Normal()});
  }
  if (some(7)) b.allowed[i] = RandomIds(1 + int(rng.Below(2000)), b.vocab, rng);
  if (some(8)) b.banned[i] = RandomIds(30, b.vocab, rng);
  if (some(9)) {
    for (const TokenId id : RandomIds(600, b.vocab, rng)) {
      b.counts[i].push_back({id, rng.Below(3), rng.Below(3)});
    }
    r.repetition_penalty = 0.8f + rng.Uniform();
    r.presence_penalty = 2 * rng.Uniform() - 1, r.frequency_penalty = rng.Uniform();
  }
  if (some(10)) {
    r.want_logprob = true, r.top_logprobs = rng.Below(4) == 0 ? 128 : rng.Below(20);
    for (int k = 0; k < 10; ++k) b.ids[i].push_back(rng.Below(uint32_t(b.vocab)));
  }
  if (some(11)) r.forced = rng.Below(uint32_t(b.vocab));
  b.slots[i].slot = 2 * i;
  if (rng.Below(2) == 0) {
    b.slots[i].pending = 2 * i + 1;
    b.last_token[2 * i + 1] = int32_t(rng.Below(uint32_t(b.vocab)));
    if (!b.counts[i].empty() && rng.Below(2) == 0) {
      b.last_token[2 * i + 1] = int32_t(b.counts[i][b.counts[i].size() / 2].id);
    }
  }
}

void Bind(Batch& b) {
  for (size_t i = 0; i < b.rows.size(); ++i) {
    SampleRow& r = b.rows[i];
    r.logits = b.Row(int(i));
    r.counts = b.counts[i], r.bias = b.bias[i], r.allowed = b.allowed[i];
    r.banned = b.banned[i], r.logprob_ids = b.ids[i];
  }
}

// The CPU's answer; a pending token is one more entry of the counts there.
SampleResult Reference(const Batch& b, int i, TokenLogprob* top) {
  SampleRow row = b.rows[i];
  std::vector<TokenCount> counts(row.counts.begin(), row.counts.end());
  if (b.slots[i].pending >= 0) {
    const TokenId id = TokenId(b.last_token[b.slots[i].pending]);
    const auto at = std::lower_bound(counts.begin(), counts.end(), id,
                                     [](const TokenCount& c, TokenId t) { return c.id < t; });
    if (at != counts.end() && at->id == id) {
      ++at->in_output;
    } else {
      counts.insert(at, {id, 0, 1});
    }
  }
  row.counts = counts;
  std::vector<double> scratch(cpu::SampleScratchBytes(b.vocab) / 8 + 8);
  SampleResult result;
  cpu::SampleRowToToken(cpu::kAvx2Sample, row, b.vocab,
                        reinterpret_cast<std::byte*>(scratch.data()), &result, top);
  return result;
}

struct DeviceBatch {
  DeviceBuffer<float> logits;
  DeviceBuffer<uint8_t> packed;
  DeviceBuffer<SampleResult> results;
  DeviceBuffer<TokenLogprob> top;
  DeviceBuffer<int32_t> last_token;
  DeviceBuffer<uint8_t> workspace;
  SampleArgs args;

  static std::vector<uint8_t> Pack(const Batch& b) {
    std::vector<uint8_t> bytes(PackedSampleBytes(b.rows, b.vocab));
    PackSampleRows(b.rows, b.slots, b.vocab,
                   {reinterpret_cast<std::byte*>(bytes.data()), bytes.size()});
    return bytes;
  }
  explicit DeviceBatch(const Batch& b)
      : logits(b.logits),
        packed(Pack(b)),
        results(b.rows.size()),
        top(b.rows.size() * kTopStride),
        last_token(b.last_token),
        workspace(OneBlockWorkspaceBytes(int32_t(b.rows.size()), b.vocab)) {
    args.logits = logits.get(), args.logits_stride = b.stride;
    args.rows = int32_t(b.rows.size()), args.vocab = b.vocab;
    args.packed = reinterpret_cast<const std::byte*>(packed.get());
    args.results = results.get(), args.top = top.get(), args.top_stride = kTopStride;
    args.last_token = last_token.get();
    args.workspace = reinterpret_cast<std::byte*>(workspace.get());
  }
};

struct Score {
  int rows = 0, other_token = 0, wrong = 0;
};

bool SameLogprob(float got, float want) {
  return got == want || std::abs(double(got) - want) <= 1e-4;
}

void Compare(const Batch& b, const DeviceBatch& d, Score& score) {
  const auto results = d.results.Download();
  const auto tops = d.top.Download();
  const auto last = d.last_token.Download();
  bool intact = d.results.CanaryIntact() && d.top.CanaryIntact() && d.last_token.CanaryIntact();
  for (size_t i = 0; i < b.rows.size(); ++i) {
    const SampleRow& row = b.rows[i];
    std::vector<TokenLogprob> top(kTopStride);
    const SampleResult want = Reference(b, int(i), top.data());
    const SampleResult& got = results[i];
    ++score.rows;
    bool fine = intact && got.token < TokenId(b.vocab) && last[2 * i] == int32_t(got.token);
    const bool report =
        row.want_logprob || row.top_logprobs > 0 || !row.logprob_ids.empty() || row.forced >= 0;
    if (got.token != want.token) {
      ++score.other_token;
      std::printf("      row %zu: token %u, the CPU's %u (T %g k %u p %g min %g typical %g)\n", i,
                  got.token, want.token, row.temperature, row.top_k, row.top_p, row.min_p,
                  row.typical_p);
    } else {
      fine = fine && got.is_argmax == want.is_argmax && got.rank == want.rank &&
             SameLogprob(got.logprob, want.logprob);
    }
    const size_t listed =
        report ? std::min<size_t>(row.top_logprobs, b.vocab) + row.logprob_ids.size() : 0;
    for (size_t k = 0; k < listed; ++k) {
      const TokenLogprob& t = tops[i * kTopStride + k];
      fine = fine && t.id == top[k].id && SameLogprob(t.logprob, top[k].logprob);
    }
    if (!fine) {
      ++score.wrong;
      std::printf("      row %zu: rank %u / %u, logprob %g / %g, argmax %d / %d\n", i, got.rank,
                  want.rank, got.logprob, want.logprob, got.is_argmax, want.is_argmax);
    }
  }
}

using Launcher = cudaError_t (*)(const SampleArgs&, cudaStream_t);

void CheckVocab(Report& report, int vocab, int rows, const char* name, Launcher launch,
                uint64_t seed) {
  Rng rng(seed);
  Batch b(rows, vocab);
  for (int i = 0; i < rows; ++i) {
    FillLogits(b, i, static_cast<Shape>(rng.Below(kShapes)), rng);
    FillSettings(b, i, i % 20, rng);
  }
  for (int i = 0; i < vocab; ++i) b.Row(rows - 1)[i] = rows % 2 == 0 ? NAN : -INFINITY;
  Bind(b);
  DeviceBatch d(b);
  Score score;
  CHECK_CUDA(launch(d.args, nullptr));
  CHECK_CUDA(cudaDeviceSynchronize());
  Compare(b, d, score);
  d.results.Poison(), d.top.Poison(), d.last_token.Upload(b.last_token);
  Graph graph([&](cudaStream_t s) { CHECK_CUDA(launch(d.args, s)); });
  CHECK_CUDA(cudaDeviceSynchronize());
  graph.Run();
  Compare(b, d, score);
  report.Case(score.wrong == 0 && score.other_token * 1000 <= score.rows,
              "%s vocab %d: %d rows, %d with another token than the CPU", name, vocab, score.rows,
              score.other_token);
}

void Bench() {
  std::printf("%s\n", DeviceName().c_str());
  struct Setting {
    const char* name;
    float temperature, top_p, min_p, typical_p, repetition;
    uint32_t top_k, logprobs;
  };
  const Setting settings[] = {{"greedy", 0, 1, 0, 1, 1, 0, 0},
                              {"temperature 1", 1, 1, 0, 1, 1, 0, 0},
                              {"top-k 50", 1, 1, 0, 1, 1, 50, 0},
                              {"top-p 0.9", 1, 0.9f, 0, 1, 1, 0, 0},
                              {"top-p 0.9, top-k 50", 1, 0.9f, 0, 1, 1, 50, 0},
                              {"min-p 0.05", 1, 1, 0.05f, 1, 1, 0, 0},
                              {"typical 0.9", 1, 1, 0, 0.9f, 1, 0, 0},
                              {"top-p 0.9, repetition 1.1", 1, 0.9f, 0, 1, 1.1f, 0, 0},
                              {"greedy, 5 logprobs", 0, 1, 0, 1, 1, 0, 5}};
  const int vocab = 128256;
  for (const Shape shape : {Shape::kFlat, Shape::kPeaked}) {
    for (const int rows : {1, 8, 64}) {
      Rng rng(21);
      Batch b(rows, vocab);
      for (int i = 0; i < rows; ++i) FillLogits(b, i, shape, rng);
      for (const Setting& s : settings) {
        for (int i = 0; i < rows; ++i) {
          b.rows[i] = SampleRow{};
          b.rows[i].temperature = s.temperature, b.rows[i].top_p = s.top_p;
          b.rows[i].min_p = s.min_p, b.rows[i].typical_p = s.typical_p, b.rows[i].top_k = s.top_k;
          b.rows[i].repetition_penalty = s.repetition, b.rows[i].top_logprobs = s.logprobs;
          b.rows[i].seed = rng.Next();
          b.counts[i].clear();
          if (s.repetition != 1) {
            for (const TokenId id : RandomIds(2000, vocab, rng)) b.counts[i].push_back({id, 1, 1});
          }
          b.slots[i].slot = i;
        }
        Bind(b);
        DeviceBatch d(b);
        constexpr int kRepeats = 20;
        Graph graph([&](cudaStream_t stream) {
          for (int k = 0; k < kRepeats; ++k) CHECK_CUDA(LaunchSample(d.args, stream));
        });
        std::printf("%-7s %3d rows  %-28s %8.1f us\n", shape == Shape::kFlat ? "flat" : "peaked",
                    rows, s.name, graph.MedianMs() * 1e3 / kRepeats);
      }
    }
  }
}

}  // namespace
}  // namespace tessera::check

int main(int argc, char** argv) {
  using namespace tessera::check;  // NOLINT(google-build-using-namespace)
  if (argc > 1 && std::strcmp(argv[1], "--bench") == 0) {
    Bench();
    return 0;
  }
  Report report;
  uint64_t seed = 100;
  for (const int vocab : {1, 5, 64, 65, 1000, 32000, 50257, 128256, 262144}) {
    CheckVocab(report, vocab, vocab < 1000 ? 100 : 240, "clusters", LaunchSample, ++seed);
  }
  for (const int vocab : {5, 1000, 50257}) {
    CheckVocab(report, vocab, 100, "one block", LaunchSampleOneBlock, ++seed);
  }
  return report.Finish();
}
