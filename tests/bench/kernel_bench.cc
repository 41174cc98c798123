// Times of the CPU kernels on the shapes of SmolLM2-135M, beside what the machine can read and
// multiply.
//
//   kernel_bench [threads] [amx|avx512|avx2] [forward|attention]
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/exec_context.h"

namespace tessera::kernels {
namespace {

constexpr int kHidden = 576, kKv = 192, kFfn = 1536, kVocab = 49152, kLayers = 30, kHeadDim = 64;
constexpr int kQHeads = 9, kKvHeads = 3, kContext = 128;

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The best of several runs: other work on the machine only ever adds.
double BestSeconds(int runs, const std::function<void()>& body) {
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    const double start = NowSeconds();
    body();
    best = std::min(best, NowSeconds() - start);
  }
  return best;
}

struct Aligned {
  explicit Aligned(size_t bytes)
      : data(static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096))),
        size(bytes) {
    std::memset(data, 0, bytes);
  }
  ~Aligned() { std::free(data); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  std::byte* data;
  size_t size;
};

__attribute__((target("avx2"))) int64_t SumBytes(const std::byte* p, size_t bytes) {
  __m256i sum[4] = {};
  for (size_t i = 0; i + 128 <= bytes; i += 128) {
    for (size_t j = 0; j < 4; ++j) {
      sum[j] = _mm256_add_epi64(
          sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(p + i + j * 32)));
    }
  }
  const __m256i all =
      _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  return _mm256_extract_epi64(all, 0) + _mm256_extract_epi64(all, 3);
}

double ReadGbps(ThreadPool& pool, size_t bytes) {
  Aligned data(bytes);
  volatile int64_t sink = 0;
  const int repeat = static_cast<int>(std::max<size_t>(1, (size_t{64} << 20) / bytes));
  const double seconds = BestSeconds(9, [&] {
    for (int i = 0; i < repeat; ++i) {
      pool.Run([&](int thread) {
        const Share share = ShareOf(static_cast<int64_t>(bytes / 4096), thread, pool.threads());
        sink = sink + SumBytes(data.data + share.begin * 4096,
                               static_cast<size_t>(share.end - share.begin) * 4096);
      });
    }
  });
  return static_cast<double>(bytes) * repeat / seconds * 1e-9;
}

// Multiply-adds of bytes a second when nothing but the dot product instruction runs: twelve chains
// in registers named by hand, because a compiler may keep an array of them in memory.
__attribute__((target("avx512f,avx512vnni"))) void DotLoop(int loops) {
  for (int i = 0; i < loops; ++i) {
#define TESSERA_DOT(n) "vpdpbusd %%zmm31, %%zmm31, %%zmm" #n "\n"
    __asm__ volatile(TESSERA_DOT(16) TESSERA_DOT(17) TESSERA_DOT(18) TESSERA_DOT(19) TESSERA_DOT(20)
                         TESSERA_DOT(21) TESSERA_DOT(22) TESSERA_DOT(23) TESSERA_DOT(24)
                             TESSERA_DOT(25) TESSERA_DOT(26) TESSERA_DOT(27)
                     :
                     :
                     : "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23",
                       "xmm24", "xmm25", "xmm26", "xmm27");
#undef TESSERA_DOT
  }
}

double DotPeakGops(ThreadPool& pool) {
  constexpr int kLoops = 20000;
  const double seconds = BestSeconds(500, [&] { pool.Run([](int) { DotLoop(kLoops); }); });
  return 12.0 * 64 * kLoops * pool.threads() / seconds * 1e-9;
}

// The same for multiply-adds of floats, 16 or 8 at a time: ten chains.
template <bool k512>
__attribute__((target("avx2,fma,avx512f"))) void FmaLoop(int loops) {
  for (int i = 0; i < loops; ++i) {
#define TESSERA_FMA(r, n) "vfmadd231ps %%" r "15, %%" r "15, %%" r #n "\n"
#define TESSERA_FMA2(r, n, m) TESSERA_FMA(r, n) TESSERA_FMA(r, m)
#define TESSERA_FMA4(r, n, m, o, p) TESSERA_FMA2(r, n, m) TESSERA_FMA2(r, o, p)
#define TESSERA_FMA8(r) TESSERA_FMA4(r, 0, 1, 2, 3) TESSERA_FMA4(r, 4, 5, 6, 7)
#define TESSERA_FMA10(r) TESSERA_FMA8(r) TESSERA_FMA2(r, 8, 9)
    if constexpr (k512) {
      __asm__ volatile(TESSERA_FMA10("zmm")
                       :
                       :
                       : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                         "xmm9");
    } else {
      __asm__ volatile(TESSERA_FMA10("ymm")
                       :
                       :
                       : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                         "xmm9");
    }
#undef TESSERA_FMA10
#undef TESSERA_FMA8
#undef TESSERA_FMA4
#undef TESSERA_FMA2
#undef TESSERA_FMA
  }
}

double FmaPeakGflops(ThreadPool& pool, bool wide) {
  constexpr int kLoops = 20000;
  const double seconds = BestSeconds(
      200, [&] { pool.Run([&](int) { wide ? FmaLoop<true>(kLoops) : FmaLoop<false>(kLoops); }); });
  return 2.0 * 10 * (wide ? 16 : 8) * kLoops * pool.threads() / seconds * 1e-9;
}

struct Weight {
  Weight(const Backend& backend, DType dtype, int out_rows, int in_columns)
      : out(out_rows),
        in(in_columns),
        packed(backend
                   .LinearLayout(dtype, static_cast<uint64_t>(out_rows),
                                 static_cast<uint64_t>(in_columns))
                   .value()
                   .bytes) {
    // Any bits do for the time, except scales that are denormal or not finite.
    auto* words = reinterpret_cast<uint16_t*>(packed.data);
    uint32_t state = 12345;
    for (size_t i = 0; i < packed.size / 2; ++i) {
      state = state * 1664525 + 1013904223;
      words[i] = static_cast<uint16_t>((state >> 16 & 0x3bff) | 0x0400);
    }
  }
  int out;
  int in;
  Aligned packed;
};

struct Bench {
  Bench(CpuIsa isa, int threads)
      : backend(MakeCpuBackend(isa).value()),
        pool({.threads = threads}),
        context(pool, backend->ScratchBytes({.max_width = kFfn,
                                             .max_head_dim = kHeadDim,
                                             .max_vocab = kVocab,
                                             .max_rows = 512})),
        x(size_t{512} * kFfn * 4),
        q(size_t{512} * kFfn),
        scale(size_t{512} * kFfn / 8),
        sum(size_t{512} * kFfn / 8),
        y(size_t{512} * kVocab * 4) {
    float* floats = reinterpret_cast<float*>(x.data);
    for (int i = 0; i < 512 * kFfn; ++i) floats[i] = static_cast<float>(i % 97 - 48) / 48;
  }

  template <typename Op>
  void Run(const typename Op::Desc& desc, const typename Op::Params& params) {
    (*backend->catalog().Find<Op>(desc))(context, params);
  }

  Activation View() {
    return {reinterpret_cast<float*>(x.data),
            {reinterpret_cast<int8_t*>(q.data), reinterpret_cast<float*>(scale.data),
             reinterpret_cast<int16_t*>(sum.data)}};
  }
  const float* X() { return reinterpret_cast<const float*>(x.data); }
  float* Y() { return reinterpret_cast<float*>(y.data); }

  void Quantize(int rows, int width) {
    Run<QuantizeRowsOp>({.width = width},
                        {.x = X(), .out = View().q8, .rows = rows, .width = width});
  }

  void Linear(DType dtype, std::initializer_list<const Weight*> weights, int rows,
              Epilogue epilogue) {
    LinearTask tasks[3];
    int64_t stride = 0;
    for (const Weight* w : weights) stride += w->out;
    size_t count = 0;
    int64_t column = 0;
    for (const Weight* w : weights) {
      tasks[count++] = {.weight = w->packed.data,
                        .y = Y() + column,
                        .y_stride = stride,
                        .out = w->out,
                        .row_count = rows};
      column += w->out;
    }
    const int in = (*weights.begin())->in;
    Run<LinearOp>({.weight = dtype, .in = in, .out = (*weights.begin())->out},
                  {.x = View(), .in = in, .tasks = {tasks, count}, .epilogue = epilogue});
  }

  std::unique_ptr<Backend> backend;
  ThreadPool pool;
  ExecContext context;
  Aligned x, q, scale, sum, y;
};

void OneShape(Bench& bench, DType dtype, int out, int in, int rows, double read_gbps, double peak) {
  // Copies enough to read from memory as a whole model would.
  const size_t bytes = Weight(*bench.backend, dtype, out, in).packed.size;
  const size_t copies = std::clamp<size_t>((size_t{96} << 20) / bytes, 1, 200);
  std::vector<std::unique_ptr<Weight>> weights;
  for (size_t i = 0; i < copies; ++i) {
    weights.push_back(std::make_unique<Weight>(*bench.backend, dtype, out, in));
  }
  bench.Quantize(rows, in);
  const double seconds = BestSeconds(rows >= 512 ? 3 : 7,
                                     [&] {
                                       for (const auto& w : weights) {
                                         bench.Linear(dtype, {w.get()}, rows, Epilogue::kStore);
                                       }
                                     }) /
                         static_cast<double>(copies);
  const double gbps = static_cast<double>(bytes) / seconds * 1e-9;
  const double gops = 1.0 * out * in * rows / seconds * 1e-9;
  std::printf(
      "linear %-5s [%5d,%4d] rows %3d  %9.2f us  %6.1f GB/s (%3.0f %% of read)  %7.0f GMAC/s",
      InfoOf(dtype).name, out, in, rows, seconds * 1e6, gbps, 100 * gbps / read_gbps, gops);
  if (IsBlockFormat(dtype) && peak > 0) std::printf(" (%3.0f %% of peak)", 100 * gops / peak);
  std::printf("\n");
}

struct Layer {
  Layer(const Backend& b, DType d)
      : q(b, d, kHidden, kHidden),
        k(b, d, kKv, kHidden),
        v(b, d, kKv, kHidden),
        o(b, d, kHidden, kHidden),
        gate(b, d, kFfn, kHidden),
        up(b, d, kFfn, kHidden),
        down(b, d, kHidden, kFfn) {}
  Weight q, k, v, o, gate, up, down;
};

// All kernels of one forward pass, in order, on weights of their own for each layer.
class Forward {
 public:
  Forward(Bench& bench, DType dtype) : bench_(bench), dtype_(dtype) {
    for (int i = 0; i < kLayers; ++i) {
      layers_.push_back(std::make_unique<Layer>(*bench.backend, dtype));
    }
    // SmolLM2's Q4_1 file stores the tied embedding as Q8_0.
    head_ = std::make_unique<Weight>(*bench.backend, DType::kQ8_0, kVocab, kHidden);
    kv_ = {DType::kF16, kKvHeads, kHeadDim, false};
    arena_ = std::make_unique<Aligned>(kv_.page_bytes() * 64);
    norm_.assign(kFfn, 1.0f);
    rotary_.assign(512 * kHeadDim / 2, 0.7f);
  }

  // `rows` tokens: a prefill chunk of one sequence, or one decode row of each of `rows` sequences.
  double Seconds(int rows, bool prefill) {
    Plan(rows, prefill);
    return BestSeconds(rows >= 512 ? 7 : 40, [&] { Once(rows, prefill ? 1 : rows); });
  }
  void Print(int rows, bool prefill) {
    std::fill(std::begin(part_), std::end(part_), 0.0);
    const double seconds = Seconds(rows, prefill);
    const int runs = rows >= 512 ? 7 : 40;
    std::printf("forward %-5s rows %3d (%s): %8.3f ms ", InfoOf(dtype_).name, rows,
                prefill ? "prefill" : "decode ", seconds * 1e3);
    const char* names[] = {"linear", "head", "attention", "quantize",
                           "norm",   "rope", "gate",      "sample"};
    for (int i = 0; i < 8; ++i) std::printf(" %s %.3f", names[i], part_[i] / runs * 1e3);
    std::printf("\n");
  }

 private:
  enum Part { kLinear, kHead, kAttention, kQuantize, kNorm, kRope, kGate, kSample };
  template <typename Body>
  void Time(Part part, Body body) {
    const double start = NowSeconds();
    body();
    part_[part] += NowSeconds() - start;
  }

  void Plan(int rows, bool prefill) {
    plan_.clear();
    page_.clear();
    slot_.clear();
    table_.clear();
    const auto unit = static_cast<uint32_t>(kv_.page_bytes() / kPageUnitBytes);
    for (uint32_t i = 0; i < 16; ++i) table_.push_back(PageId(i * unit));
    for (int i = 0; i < rows; ++i) {
      const int position = prefill ? i : kContext - 1;
      page_.push_back(table_[static_cast<size_t>(position / 64)]);
      slot_.push_back(static_cast<uint8_t>(position % 64));
      if (!prefill) {
        plan_.push_back(
            {.q_begin = i, .q_rows = 1, .position = position, .page_table = table_.data()});
      }
    }
    if (prefill) plan_.push_back({.q_rows = rows, .page_table = table_.data()});
  }

  void Normed(int rows) {
    const NormTask task = {norm_.data(), 0, rows};
    Time(kNorm, [&] {
      bench_.Run<NormOp>({.width = kHidden},
                         {.tasks = {&task, 1}, .x = bench_.X(), .y = bench_.Y(), .width = kHidden});
    });
    Time(kQuantize, [&] { bench_.Quantize(rows, kHidden); });
  }

  void Gate(int rows) {
    bench_.Run<GatedActivationOp>({}, {.gate = bench_.View().x,
                                       .up = bench_.View().x,
                                       .y = bench_.Y(),
                                       .rows = rows,
                                       .width = kFfn});
  }

  void Once(int rows, int logits_rows) {
    for (const auto& layer : layers_) {
      Normed(rows);
      Time(kLinear, [&] {
        bench_.Linear(dtype_, {&layer->q, &layer->k, &layer->v}, rows, Epilogue::kStore);
      });
      Time(kRope, [&] {
        bench_.Run<RopeAppendOp>({.kv = kv_, .q_heads = kQHeads, .rotary_dim = kHeadDim},
                                 {.kv = kv_,
                                  .rows = rows,
                                  .q_heads = kQHeads,
                                  .rotary_dim = kHeadDim,
                                  .q = bench_.Y(),
                                  .k = bench_.View().x,
                                  .v = bench_.View().x,
                                  .q_stride = kQHeads * kHeadDim,
                                  .kv_stride = kKv,
                                  .cosine = rotary_.data(),
                                  .sine = rotary_.data(),
                                  .arena = arena_->data,
                                  .page = page_.data(),
                                  .slot = slot_.data()});
      });
      Time(kAttention, [&] {
        bench_.Run<AttentionOp>({.kv = kv_, .q_heads = kQHeads}, {.kv = kv_,
                                                                  .q_heads = kQHeads,
                                                                  .scale = 0.125f,
                                                                  .q = bench_.View().x,
                                                                  .q_stride = kQHeads * kHeadDim,
                                                                  .out = bench_.Y(),
                                                                  .arena = arena_->data,
                                                                  .plan = {.rows = plan_}});
      });
      Time(kQuantize, [&] { bench_.Quantize(rows, kHidden); });
      Time(kLinear, [&] { bench_.Linear(dtype_, {&layer->o}, rows, Epilogue::kResidual); });
      Normed(rows);
      Time(kLinear, [&] {
        bench_.Linear(dtype_, {&layer->gate, &layer->up}, rows, Epilogue::kStore);
      });
      Time(kGate, [&] { Gate(rows); });
      Time(kQuantize, [&] { bench_.Quantize(rows, kFfn); });
      Time(kLinear, [&] { bench_.Linear(dtype_, {&layer->down}, rows, Epilogue::kResidual); });
    }
    Normed(logits_rows);
    Time(kHead, [&] { bench_.Linear(DType::kQ8_0, {head_.get()}, logits_rows, Epilogue::kStore); });
    std::vector<SampleRow> rows_to_sample;
    std::vector<SampleResult> results(static_cast<size_t>(logits_rows));
    for (int i = 0; i < logits_rows; ++i) {
      rows_to_sample.push_back({.logits = bench_.Y() + int64_t{i} * kVocab, .temperature = 0});
    }
    Time(kSample, [&] {
      bench_.Run<SampleOp>({.vocab = kVocab},
                           {.rows = rows_to_sample, .vocab = kVocab, .results = results.data()});
    });
  }

  Bench& bench_;
  DType dtype_;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::unique_ptr<Weight> head_;
  KvFormat kv_;
  std::unique_ptr<Aligned> arena_;
  std::vector<float> norm_, rotary_;
  std::vector<AttentionRow> plan_;
  std::vector<PageId> page_, table_;
  std::vector<uint8_t> slot_;
  double part_[8] = {};
};

// Attention of `rows` new tokens after a cached prefix, in turn over as many layers as a model has,
// so that pages come from where they lie in a real step; beside the peak of multiply-adds. Only
// what a row sees is counted.
void Attention(Bench& bench, double peak) {
  constexpr int kMost = 4160;
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32}) {
    const KvFormat kv = {dtype, kKvHeads, kHeadDim, false};
    const size_t pages = kMost / kPageTokens;
    Aligned arena(kv.page_bytes() * pages * kLayers);
    // Numbers of either sign, below one, whatever the type.
    std::minstd_rand random(1);
    for (size_t i = 0; i < arena.size; i += 2) {
      const auto bits = static_cast<uint16_t>((random() & 0x83ff) | 0x3800);
      std::memcpy(arena.data + i, &bits, 2);
    }
    std::vector<PageId> table;
    for (uint32_t i = 0; i < pages * kLayers; ++i) {
      table.push_back(PageId(i * static_cast<uint32_t>(kv.page_bytes() / kPageUnitBytes)));
    }
    for (const auto& [rows, position] : {std::pair{1, 1056},
                                         {1, 4095},
                                         {2, 1056},
                                         {3, 1056},
                                         {4, 1056},
                                         {32, 0},
                                         {32, 1024},
                                         {512, 512},
                                         {512, 3584}}) {
      const double all = BestSeconds(rows >= 512 ? 3 : 20, [&] {
        for (size_t layer = 0; layer < kLayers; ++layer) {
          const AttentionRow row = {
              .q_rows = rows, .position = position, .page_table = table.data() + layer * pages};
          bench.Run<AttentionOp>({.kv = kv, .q_heads = kQHeads}, {.kv = kv,
                                                                  .q_heads = kQHeads,
                                                                  .scale = 0.125f,
                                                                  .q = bench.View().x,
                                                                  .q_stride = kQHeads * kHeadDim,
                                                                  .out = bench.Y(),
                                                                  .arena = arena.data,
                                                                  .plan = {.rows = {&row, 1}}});
        }
      });
      const double seconds = all / kLayers;
      const double seen = rows * (position + 0.5 * (rows + 1));
      const double gflops = 4 * seen * kQHeads * kHeadDim / seconds * 1e-9;
      std::printf("attention %-4s rows %3d after %4d  %9.2f us  %6.1f GFLOP/s (%3.0f %% of %.0f)\n",
                  InfoOf(dtype).name, rows, position, seconds * 1e6, gflops, 100 * gflops / peak,
                  peak);
    }
  }
}

void Shapes(Bench& bench, double peak) {
  const double gbps = ReadGbps(bench.pool, size_t{96} << 20);
  std::printf("read, %d threads: 96 MB %.1f GB/s, 8 MB %.1f GB/s; dot peak %.0f GMAC/s\n",
              bench.pool.threads(), gbps, ReadGbps(bench.pool, size_t{8} << 20), peak);
  const int shapes[][2] = {{kHidden, kHidden}, {kFfn, kHidden}, {kHidden, kFfn}, {kVocab, kHidden}};
  for (const DType dtype : {DType::kQ4_1, DType::kQ8_0, DType::kF32}) {
    for (const auto& [out, in] : shapes) {
      for (const int rows : {1, 8, 32, 512}) {
        if (out == kVocab && rows > 32) continue;
        OneShape(bench, dtype, out, in, rows, gbps, peak);
      }
    }
  }
}

}  // namespace
}  // namespace tessera::kernels

int main(int argc, char** argv) {
  using namespace tessera::kernels;
  const int threads = argc > 1 ? std::atoi(argv[1]) : ThreadPool::UsableProcessors();
  const std::string wanted = argc > 2 ? argv[2] : "";
  CpuIsa isa = SupportedCpuIsas().front();
  for (const CpuIsa each : SupportedCpuIsas()) {
    if (wanted == NameOf(each)) isa = each;
  }
  Bench bench(isa, std::max(1, threads));
  std::printf("%s, %d threads\n", bench.backend->name().c_str(), bench.pool.threads());
  const double peak = __builtin_cpu_supports("avx512vnni") ? DotPeakGops(bench.pool) : 0;
  const std::string only = argc > 3 ? argv[3] : "";
  if (only.empty()) Shapes(bench, peak);
  if (only != "forward") Attention(bench, FmaPeakGflops(bench.pool, isa != CpuIsa::kAvx2));
  if (only == "attention") return 0;
  for (const DType dtype : {DType::kQ4_1, DType::kQ8_0}) {
    Forward forward(bench, dtype);
    forward.Print(1, false);
    forward.Print(8, false);
    forward.Print(512, true);
  }
  return 0;
}
