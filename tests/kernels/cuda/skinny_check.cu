// Checks kernels/cuda/linear/skinny.h against a float64 reference, and with --bench times it.
// Arguments: [--no-repeats] and weight types (BF16 ...; none: all), or --bench [TYPE [ROWS]] with a
// type's number. Without repeats it launches nothing hundreds of times, for tools that slow it
// down.
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/linear/skinny_int4.h"
#include "kernels/weight_planes.h"
#include "tests/kernels/cuda/check_util.cuh"
#include "tests/kernels/cuda/group_codes.cuh"
#include "tests/kernels/cuda/skinny_bench.cuh"
#include "tests/kernels/cuda/skinny_repeats.cuh"
#include "tests/kernels/cuda/skinny_weight.cuh"

namespace tessera::check {
namespace {

using kernels::DType;
using kernels::HasPlanes;
using kernels::PlanesOf;
using kernels::ScaleGroup;
using kernels::WeightPlanes;
using namespace kernels::cuda;  // NOLINT: the names under test

struct Case {
  const char* name;
  DType dtype;
  int in;
  std::vector<int> outs;
  int rows;
  SkinnyEpilogue epilogue = SkinnyEpilogue::kStore;
  bool extras = false;  // bias, addend, permuted rows of y
  bool norm = false;
  int samples = 0;  // outputs that are compared in each task; 0: all
  bool coded = false;
  bool bias = false;   // of the extras that alone
  bool keeps = false;  // rows of weights stay in one place, on 132 multiprocessors
};

bool IsGated(SkinnyEpilogue epilogue) {
  return epilogue == SkinnyEpilogue::kGatedSilu || epilogue == SkinnyEpilogue::kGatedGeluTanh;
}
bool IsFloat(SkinnyEpilogue epilogue) {
  return epilogue == SkinnyEpilogue::kStoreFloat || epilogue == SkinnyEpilogue::kResidual;
}

// One task of a case with its buffers.
struct TaskData {
  std::vector<Weight> weights;  // and up
  std::vector<float> bias[2];
  std::vector<uint16_t> addend[2];
  std::vector<std::unique_ptr<DeviceBuffer<float>>> device_bias;
  std::vector<std::unique_ptr<DeviceBuffer<uint16_t>>> device_addend;
  std::vector<float> y_before;                // kResidual
  std::unique_ptr<DeviceBuffer<uint32_t>> y;  // float32, or two bfloat16 a word
  int64_t stride = 0;
  int out = 0;
};

class CaseRun {
 public:
  CaseRun(const Case& c, SkinnyMethod method, std::byte* workspace)
      : case_(c), rng_(c.in * 131 + c.rows + 7919 * int(c.dtype) + c.outs[0]) {
    MakeInput();
    args_.workspace = workspace;
    args_.method = method;
    args_.dtype = c.dtype;
    args_.in = c.in;
    args_.rows = c.rows;
    args_.epilogue = c.epilogue;
    // Results are the same in either place.
    args_.place = c.rows % 2 == 0 ? SkinnyPlace::kAlone : SkinnyPlace::kBeside;
    args_.task_count = static_cast<int>(c.outs.size());
    if (c.extras) {
      for (int i = 0; i < c.rows; ++i) y_rows_.push_back((i * 5 + 3) % kYRows);
      device_y_rows_ = std::make_unique<DeviceBuffer<int32_t>>(y_rows_);
      args_.y_rows = device_y_rows_->get();
    }
    for (size_t i = 0; i < c.outs.size(); ++i) MakeTask(static_cast<int>(i));
  }

  // Launches directly and from a graph; the worst distance of both.
  Distance Run(std::string* problem) {
    if (case_.keeps && CurrentDeviceFacts().multiprocessors == 132 && !SkinnyKeepsRows(args_)) {
      *problem += " another kernel runs";
    }
    Prepare();
    CHECK_CUDA(LaunchSkinny(args_, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
    Distance worst = Verify(problem);
    Graph graph([&](cudaStream_t stream) { CHECK_CUDA(LaunchSkinny(args_, stream)); });
    for (int i = 0; i < 2; ++i) {
      Prepare();
      CHECK_CUDA(cudaDeviceSynchronize());
      graph.Run();
      const Distance again = Verify(problem);
      worst.l2 = std::max(worst.l2, again.l2);
      worst.max = std::max(worst.max, again.max);
    }
    return worst;
  }

 private:
  static constexpr int kYRows = 71;

  void MakeInput() {
    const size_t count = size_t(case_.rows) * case_.in;
    input_.resize(count);
    if (case_.coded) {
      std::vector<uint8_t> codes(count);
      const bool int8 = case_.dtype >= DType::kI4G128;
      for (size_t i = 0; i < count; ++i) {
        const auto code = static_cast<uint8_t>(rng_.Next() >> 56);
        if (int8) {
          const auto column = static_cast<int>(i % case_.in);
          codes[i - column + Int8PlaceOf(column)] = code;
          input_[i] = static_cast<int8_t>(code);
        } else {
          codes[i] = (code & 0x7f) == 0x7f ? code ^ 1 : code;
          input_[i] = E4m3ToFloat(codes[i]);
        }
      }
      codes_ = std::make_unique<DeviceBuffer<uint8_t>>(codes);
      MakeScales();
      args_.x_codes = {codes_->get(), scales_->get(),
                       int8          ? CodeKind::kInt8Groups
                       : case_.keeps ? CodeKind::kE4m3Groups
                                     : CodeKind::kE4m3Rows};
      return;
    }
    if (!case_.norm) {
      std::vector<uint16_t> bits(count);
      for (size_t i = 0; i < count; ++i) {
        bits[i] = ToBf16(rng_.Normal());
        input_[i] = BitsToFloat(bits[i]);
      }
      x_ = std::make_unique<DeviceBuffer<uint16_t>>(bits);
      args_.x = reinterpret_cast<const __nv_bfloat16*>(x_->get());
      factors_.assign(case_.rows, 1);
      return;
    }
    std::vector<float> gain(case_.in), residual(size_t(case_.rows + 3) * case_.in);
    for (float& g : gain) g = 0.5f + rng_.Uniform();
    for (float& r : residual) r = 3 * rng_.Normal();
    std::vector<int32_t> rows;
    for (int i = 0; i < case_.rows; ++i) rows.push_back((i * 2 + 1) % (case_.rows + 3));
    for (int i = 0; i < case_.rows; ++i) {
      double squares = 0;
      for (int k = 0; k < case_.in; ++k) {
        const float value = residual[size_t(rows[i]) * case_.in + k];
        squares += double{value} * value;
        input_[size_t(i) * case_.in + k] = BitsToFloat(ToBf16(value * gain[k]));
      }
      factors_.push_back(1 / std::sqrt(squares / case_.in + 1e-5f));
    }
    residual_ = std::make_unique<DeviceBuffer<float>>(residual);
    gain_ = std::make_unique<DeviceBuffer<float>>(gain);
    x_rows_ = std::make_unique<DeviceBuffer<int32_t>>(rows);
    args_.residual = residual_->get();
    args_.norm_weight = gain_->get();
    args_.x_rows = x_rows_->get();
  }

  // Of the rows' codes: a row's, or of each group of its columns.
  void MakeScales() {
    factors_.assign(case_.rows, 1);
    const int groups = case_.keeps ? (case_.in + kCodeGroup - 1) / kCodeGroup : 1;
    std::vector<float> scales(size_t(groups) * kCodeRows, NAN);
    for (int row = 0; row < case_.rows; ++row) {
      for (int group = 0; group < groups; ++group) {
        const float scale = 0.01f + 0.02f * rng_.Uniform();
        scales[size_t(group) * kCodeRows + row] = scale;
        if (!case_.keeps) factors_[row] = scale;
      }
      if (!case_.keeps) continue;
      for (int k = 0; k < case_.in; ++k) {
        input_[size_t(row) * case_.in + k] *= scales[size_t(k / kCodeGroup) * kCodeRows + row];
      }
    }
    scales_ = std::make_unique<DeviceBuffer<float>>(scales);
  }

  void MakeTask(int index) {
    TaskData& data = tasks_.emplace_back();
    SkinnyTask& task = args_.tasks[index];
    data.out = case_.outs[index];
    data.stride = (data.out + 5 + 7) / 8 * 8;
    for (int part = 0; part < (IsGated(case_.epilogue) ? 2 : 1); ++part) {
      data.weights.emplace_back(case_.dtype, data.out, case_.in, rng_);
      if (!case_.extras && !case_.bias) continue;
      for (int i = 0; i < data.out; ++i) data.bias[part].push_back(5 * rng_.Normal());
      data.device_bias.push_back(std::make_unique<DeviceBuffer<float>>(data.bias[part]));
      (part == 0 ? task.bias : task.up_bias) = data.device_bias.back()->get();
      if (!case_.extras) continue;
      for (int64_t i = 0; i < case_.rows * data.stride; ++i) {
        data.addend[part].push_back(ToBf16(5 * rng_.Normal()));
      }
      data.device_addend.push_back(std::make_unique<DeviceBuffer<uint16_t>>(data.addend[part]));
      (part == 0 ? task.addend : task.up_addend) =
          reinterpret_cast<const __nv_bfloat16*>(data.device_addend.back()->get());
    }
    data.y = std::make_unique<DeviceBuffer<uint32_t>>(kYRows * data.stride /
                                                      (IsFloat(case_.epilogue) ? 1 : 2));
    if (case_.epilogue == SkinnyEpilogue::kResidual) {
      for (int64_t i = 0; i < kYRows * data.stride; ++i) {
        data.y_before.push_back(10 * rng_.Normal());
      }
    }
    task.weight = data.weights[0].data();
    if (IsGated(case_.epilogue)) task.up = data.weights[1].data();
    task.addend_stride = data.stride;
    task.y = data.y->get();
    task.y_stride = data.stride;
    task.out = data.out;
  }

  void Prepare() {
    for (TaskData& data : tasks_) {
      data.y->Poison();
      if (data.y_before.empty()) continue;
      CHECK_CUDA(cudaMemcpy(data.y->get(), data.y_before.data(), data.y_before.size() * 4,
                            cudaMemcpyHostToDevice));
    }
  }

  double Product(const TaskData& data, int part, int token, int row) const {
    const double* w = &data.weights[part].values[size_t(row) * case_.in];
    const float* x = &input_[size_t(token) * case_.in];
    double sums[4] = {};
    for (int k = 0; k < case_.in; k += 4) {
      for (int i = 0; i < 4; ++i) sums[i] += w[k + i] * x[k + i];
    }
    double value = (sums[0] + sums[1] + sums[2] + sums[3]) * factors_[token];
    if (!data.bias[part].empty()) value += data.bias[part][row];
    if (case_.extras) value += BitsToFloat(data.addend[part][token * data.stride + row]);
    return value;
  }

  double Want(const TaskData& data, int token, int row, int64_t offset) const {
    const double value = Product(data, 0, token, row);
    if (case_.epilogue == SkinnyEpilogue::kResidual) return value + data.y_before[offset];
    if (!IsGated(case_.epilogue)) return value;
    const double up = Product(data, 1, token, row);
    if (case_.epilogue == SkinnyEpilogue::kGatedSilu) return value / (1 + std::exp(-value)) * up;
    const double inner = 0.7978845608028654 * (value + 0.044715 * value * value * value);
    return 0.5 * value * (1 + std::tanh(inner)) * up;
  }

  Distance Verify(std::string* problem) {
    Distance worst;
    for (TaskData& data : tasks_) {
      const std::vector<uint32_t> words = data.y->Download();
      if (!data.y->CanaryIntact()) *problem += " canary";
      const bool is_float = IsFloat(case_.epilogue);
      std::vector<double> got, want;
      std::vector<bool> written(kYRows * data.stride, false);
      Rng pick(11);
      for (int token = 0; token < case_.rows; ++token) {
        const int64_t y_row = y_rows_.empty() ? token : y_rows_[token];
        for (int row = 0; row < data.out; ++row) written[y_row * data.stride + row] = true;
        const int count = case_.samples == 0 ? data.out : case_.samples;
        for (int i = 0; i < count; ++i) {
          const int row = case_.samples == 0 ? i : static_cast<int>(pick.Below(data.out));
          const int64_t offset = y_row * data.stride + row;
          got.push_back(ValueOf(words, offset, is_float));
          want.push_back(WantOnce(data, token, row, offset));
        }
      }
      for (size_t i = 0; i < written.size(); ++i) {
        if (!written[i] && !Untouched(data, words, i, is_float)) {
          *problem += " wrote elsewhere";
          break;
        }
        if (written[i] && std::isnan(ValueOf(words, i, is_float))) {
          *problem += " unwritten";
          break;
        }
      }
      const Distance distance = Compare(got.data(), want.data(), got.size());
      worst.l2 = std::max(worst.l2, distance.l2);
      worst.max = std::max(worst.max, distance.max);
    }
    return worst;
  }

  // The reference of an output, computed once a case.
  double WantOnce(const TaskData& data, int token, int row, int64_t offset) {
    std::vector<double>& cache = want_[&data - tasks_.data()];
    if (cache.empty()) cache.assign(size_t(case_.rows) * data.out, NAN);
    double& value = cache[size_t(token) * data.out + row];
    if (std::isnan(value)) value = Want(data, token, row, offset);
    return value;
  }
  static double ValueOf(const std::vector<uint32_t>& words, int64_t offset, bool is_float) {
    if (is_float) {
      float value;
      std::memcpy(&value, &words[offset], 4);
      return value;
    }
    return BitsToFloat(static_cast<uint16_t>(words[offset / 2] >> (offset % 2 * 16)));
  }
  static bool Untouched(const TaskData& data, const std::vector<uint32_t>& words, int64_t offset,
                        bool is_float) {
    if (!data.y_before.empty()) return ValueOf(words, offset, true) == data.y_before[offset];
    return is_float ? words[offset] == 0xffffffffu
                    : (words[offset / 2] >> (offset % 2 * 16) & 0xffff) == 0xffff;
  }

  const Case case_;
  Rng rng_;
  SkinnyArgs args_;
  std::vector<float> input_;     // [rows, in], as it enters the product
  std::vector<double> factors_;  // of each row's sums
  std::unique_ptr<DeviceBuffer<uint16_t>> x_;
  std::unique_ptr<DeviceBuffer<uint8_t>> codes_;
  std::unique_ptr<DeviceBuffer<float>> residual_, gain_, scales_;
  std::unique_ptr<DeviceBuffer<int32_t>> x_rows_, device_y_rows_;
  std::vector<int32_t> y_rows_;
  std::vector<TaskData> tasks_;
  std::vector<double> want_[kSkinnyMaxTasks];
};

const char* FixedWord(SkinnyMethod method) {
  return method == SkinnyMethod::kFixed ? " fixed" : "";
}
// How rows come, to kernels of kF8Channel.
const char* CodedWord(bool coded) { return coded ? " coded" : ""; }

void RunCase(const Case& c, SkinnyMethod method, std::byte* workspace, Report& report) {
  CaseRun run(c, method, workspace);
  std::string problem;
  const Distance distance = run.Run(&problem);
  // Up to 8 rows are two 8-bit digits where codes are integers.
  const bool has_codes = c.dtype == DType::kI8Channel || c.dtype >= DType::kI4G128;
  const bool has_digits = has_codes && !c.coded && c.rows <= 8 && method == SkinnyMethod::kByRows;
  // The tensor cores keep some 14 bits of a sum of products of e4m3; those of integers are exact.
  const bool rounds = c.coded && c.dtype == DType::kF8Channel;
  const double l2_limit = !IsFloat(c.epilogue) ? 4e-3 : rounds ? 5e-4 : has_digits ? 5e-5 : 2e-5;
  const double max_limit = !IsFloat(c.epilogue) ? 0.15 : rounds ? 5e-2 : 2e-3;
  report.Case(distance.l2 <= l2_limit && distance.max <= max_limit && problem.empty(),
              "%s%s%s %s in %d out %d (%zu tasks) rows %d: l2 %.2e max %.2e%s", NameOf(c.dtype),
              FixedWord(method), CodedWord(c.coded), c.name, c.in, c.outs[0], c.outs.size(), c.rows,
              distance.l2, distance.max, problem.c_str());
}

// Row i of a launch of any size has the bits that it has in the largest launch of its class; by
// kFixed, in any launch.
void CheckInvariance(DType dtype, SkinnyMethod method, bool coded, int out, std::byte* workspace,
                     Report& report) {
  constexpr int kIn = 4096;
  Rng rng(5);
  Weight weight(dtype, out, kIn, rng);
  std::vector<uint16_t> bits(size_t{64} * kIn);
  // As codes none is not a number.
  for (uint16_t& b : bits) b = coded ? rng.Next() >> 48 & 0xbfbf : ToBf16(rng.Normal());
  DeviceBuffer<uint16_t> x(bits);
  DeviceBuffer<float> scales(std::vector<float>(64 * kIn / kCodeGroup, 0.5f));
  DeviceBuffer<float> y(size_t{64} * out);
  const auto run = [&](int first, int rows) {
    SkinnyArgs args;
    args.dtype = dtype;
    args.in = kIn;
    args.rows = rows;
    if (coded) {
      args.x_codes = {reinterpret_cast<uint8_t*>(x.get()) + int64_t{first} * kIn, scales.get()};
    } else {
      args.x = reinterpret_cast<const __nv_bfloat16*>(x.get()) + int64_t{first} * kIn;
    }
    args.task_count = 1;
    args.epilogue = SkinnyEpilogue::kStoreFloat;
    args.workspace = workspace;
    args.method = method;
    args.tasks[0].weight = weight.data();
    args.tasks[0].y = y.get();
    args.tasks[0].y_stride = out;
    args.tasks[0].out = out;
    if (coded) args.x_codes.kind = SkinnyKeepsCodes(args).value_or(CodeKind::kE4m3Rows);
    CHECK_CUDA(LaunchSkinny(args, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
    std::vector<float> all = y.Download();
    all.resize(size_t(rows) * out);
    return all;
  };
  const auto same = [&](const std::vector<float>& a, size_t a_row, const std::vector<float>& b,
                        size_t b_row, size_t rows) {
    return std::memcmp(&a[a_row * out], &b[b_row * out], rows * out * sizeof(float)) == 0;
  };
  bool within = true, across = true;
  const std::vector<float> all = run(0, 64);
  const int classes[][3] = {{4, 1, 3}, {8, 5, 7}, {16, 9, 12}, {32, 17, 30}, {64, 33, 50}};
  if (dtype < DType::kI4G128) within = same(run(0, 4), 0, run(0, 8), 0, 4);
  for (const auto& sizes : classes) {
    const std::vector<float> largest = run(0, sizes[0]);
    across = across && same(all, 0, largest, 0, sizes[0]);
    for (int i = 1; i < 3; ++i) {
      within = within && same(run(0, sizes[i]), 0, largest, 0, sizes[i]);
      within = within &&
               same(run(sizes[0] - sizes[i], sizes[i]), 0, largest, sizes[0] - sizes[i], sizes[i]);
    }
    within = within && same(run(0, sizes[0]), 0, largest, 0, sizes[0]);
  }
  report.Case(within && (across || method == SkinnyMethod::kByRows),
              "%s%s%s: a row's bits in any launch of its class%s", NameOf(dtype), FixedWord(method),
              CodedWord(coded), across ? ", and in any launch" : "");
}

// Weights whose rows stay in one place: every width of the tiles that there are kernels for.
void CheckWhole(DType dtype, std::byte* workspace, Report& report) {
  constexpr auto kStore = SkinnyEpilogue::kStore, kFloat = SkinnyEpilogue::kStoreFloat;
  constexpr auto kResidual = SkinnyEpilogue::kResidual, kSilu = SkinnyEpilogue::kGatedSilu;
  constexpr auto kGelu = SkinnyEpilogue::kGatedGeluTanh;
  Case cases[] = {{"whole", dtype, 192, {8300}, 33, kGelu},
                  {"whole", dtype, 704, {10400}, 24, kGelu},
                  {"whole", dtype, 192, {12500}, 40, kSilu},
                  {"whole", dtype, 704, {14336}, 64, kSilu},
                  {"whole", dtype, 64, {16640}, 20, kSilu},
                  {"pair", dtype, 192, {2052}, 50, kFloat},
                  {"pair", dtype, 256, {2560}, 16, kFloat},
                  {"pair", dtype, 1152, {3168}, 64, kResidual},
                  {"pair", dtype, 1152, {3588}, 7, kResidual},
                  {"pair", dtype, 704, {4100}, 33, kResidual},
                  {"pair", dtype, 4096, {4096}, 8, kResidual},
                  {"pair", dtype, 14336, {4096}, 17, kResidual},
                  {"pair", dtype, 192, {3584, 512, 512}, 3, kFloat},
                  {"pair", dtype, 320, {5120}, 11, kStore},
                  {"pair", dtype, 4096, {4096, 1024, 1024}, 64, kStore},
                  {"pair", dtype, 4096, {4096, 1024, 1024}, 1, kStore},
                  {"pair", dtype, 704, {4000, 1000, 1028}, 32, kStore},
                  {"pair", dtype, 256, {7168}, 5, kFloat},
                  {"pair", dtype, 64, {8192, 4}, 40, kFloat}};
  Case bias = {"pair bias", dtype, 640, {3072, 600}, 21, kStore};
  bias.bias = true;
  // By tiles where they are of bf16.
  Case few = {"few gated", dtype, 704, {14336}, 3, kSilu};
  const auto run = [&](Case& c, bool keeps) {
    c.samples = 40;
    c.coded = dtype == DType::kF8Channel;
    c.keeps = keeps;
    RunCase(c, SkinnyMethod::kByRows, workspace, report);
  };
  for (Case& c : cases) run(c, true);
  run(bias, true);
  run(few, dtype == DType::kF8Channel);
  CheckInvariance(dtype, SkinnyMethod::kByRows, dtype == DType::kF8Channel, 4160, workspace,
                  report);
}

// The same of int4 weights, whose rows of x are int8.
void CheckWholeInt4(DType dtype, bool repeats, std::byte* workspace, Report& report) {
  constexpr auto kStore = SkinnyEpilogue::kStore, kFloat = SkinnyEpilogue::kStoreFloat;
  constexpr auto kResidual = SkinnyEpilogue::kResidual, kSilu = SkinnyEpilogue::kGatedSilu;
  constexpr auto kGelu = SkinnyEpilogue::kGatedGeluTanh;
  Case cases[] = {{"whole", dtype, 256, {10396}, 11, kGelu},
                  {"whole", dtype, 384, {12600}, 3, kSilu},
                  {"whole", dtype, 640, {14336}, 64, kSilu},
                  {"whole", dtype, 128, {16640}, 30, kSilu},
                  {"pair", dtype, 384, {2100}, 5, kFloat},
                  {"pair", dtype, 640, {3136}, 33, kResidual},
                  {"pair", dtype, 4096, {4096}, 8, kResidual},
                  {"pair", dtype, 14336, {4096}, 17, kResidual},
                  {"pair", dtype, 256, {5120}, 16, kStore},
                  {"pair", dtype, 4096, {4096, 1024, 1024}, 64, kStore},
                  {"pair", dtype, 4096, {4096, 1024, 1024}, 1, kFloat},
                  {"pair", dtype, 256, {7168}, 25, kFloat},
                  {"pair", dtype, 128, {8192, 4}, 40, kFloat}};
  Case bias = {"pair bias", dtype, 768, {3072, 1024}, 21, kFloat};
  bias.bias = true;
  const auto run = [&](Case& c) {
    c.samples = 40;
    c.coded = c.keeps = true;
    RunCase(c, SkinnyMethod::kByRows, workspace, report);
  };
  for (Case& c : cases) run(c);
  run(bias);
  if (!repeats) return;
  CheckRepeats(dtype, SkinnyMethod::kByRows, true, CodedWord(true), workspace, report);
}

constexpr DType kTypes[] = {DType::kBF16,       DType::kF8Channel, DType::kF8Block128,
                            DType::kI8Channel,  DType::kI4G128,    DType::kI4G64,
                            DType::kI4G128Zero, DType::kI4G64Zero};

// The types of these names; all without any.
std::vector<DType> TypesOf(std::span<char*> names) {
  if (names.empty()) return {std::begin(kTypes), std::end(kTypes)};
  std::vector<DType> types;
  for (const char* name : names) {
    const auto* const type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](DType known) {
      return std::strcmp(kernels::InfoOf(known).name, name) == 0;
    });
    if (type == std::end(kTypes)) {
      std::fprintf(stderr, "skinny_check: no weight type %s here\n", name);
      std::exit(2);
    }
    types.push_back(*type);
  }
  return types;
}

void Checks(std::span<const DType> types, bool repeats, std::byte* workspace, Report& report) {
  for (const DType dtype : types) {
    const bool wide = ScaleGroup(dtype) == 128 && dtype != DType::kF8Block128;
    const int narrow = wide ? 128 : 64, odd = wide ? 640 : 704, deep = wide ? 4224 : 4160;
    const Case cases[] = {
        {"least", dtype, narrow, {1}, 1},
        {"one row", dtype, odd, {300}, 1},
        {"odd", dtype, odd, {257}, 3, SkinnyEpilogue::kStoreFloat, true},
        {"eight", dtype, 1024, {512, 128, 129}, 8, SkinnyEpilogue::kStore, true},
        {"norm", dtype, 1024, {384, 77}, 7, SkinnyEpilogue::kStoreFloat, false, true},
        {"norm gated", dtype, odd, {333}, 1, SkinnyEpilogue::kGatedSilu, true, true},
        {"residual", dtype, odd, {191}, 11, SkinnyEpilogue::kResidual, true},
        {"gated", dtype, 512, {200, 65}, 16, SkinnyEpilogue::kGatedGeluTanh, true},
        {"wide", dtype, odd, {130, 3, 260, 64}, 29, SkinnyEpilogue::kStoreFloat},
        {"gated", dtype, 384, {96}, 32, SkinnyEpilogue::kGatedSilu},
        {"most", dtype, odd, {270}, 64, SkinnyEpilogue::kStoreFloat, true},
        {"residual", dtype, 256, {400}, 47, SkinnyEpilogue::kResidual, true},
        {"gated", dtype, 256, {140}, 64, SkinnyEpilogue::kGatedSilu, true},
        {"layer", dtype, 4096, {1024, 256, 256}, 4, SkinnyEpilogue::kStoreFloat, false, true, 40},
        {"layer", dtype, 4096, {4096}, 8, SkinnyEpilogue::kResidual, true, false, 40},
        {"layer", dtype, 4096, {3001}, 2, SkinnyEpilogue::kGatedSilu, true, true, 40},
        {"head", dtype, 512, {40007}, 1, SkinnyEpilogue::kStoreFloat, false, true, 40},
        {"deep", dtype, 14336, {320}, 5, SkinnyEpilogue::kResidual, false, false, 40},
        {"tall", dtype, 256, {20000}, 4, SkinnyEpilogue::kStoreFloat, false, false, 40},
        {"tall", dtype, 256, {20000}, 64, SkinnyEpilogue::kStore, false, false, 40},
        {"least", dtype, narrow, {1}, 17},
        {"least", dtype, narrow, {65}, 33},
        {"long", dtype, deep, {6001}, 17, SkinnyEpilogue::kStoreFloat, false, false, 40},
        {"long", dtype, deep, {6001}, 33, SkinnyEpilogue::kStoreFloat, false, false, 40},
    };
    for (const SkinnyMethod method : {SkinnyMethod::kByRows, SkinnyMethod::kFixed}) {
      for (const Case& c : cases) {
        if (method == SkinnyMethod::kByRows || !c.norm) RunCase(c, method, workspace, report);
      }
      CheckInvariance(dtype, method, false, 400, workspace, report);
      if (repeats) CheckRepeats(dtype, method, false, FixedWord(method), workspace, report);
    }
    if (dtype == DType::kBF16 || dtype == DType::kF8Channel) CheckWhole(dtype, workspace, report);
    if (dtype >= DType::kI4G128) CheckWholeInt4(dtype, repeats, workspace, report);
    if (dtype != DType::kF8Channel) continue;
    for (Case c : cases) {
      if (c.norm) continue;
      c.coded = true;
      RunCase(c, SkinnyMethod::kByRows, workspace, report);
    }
    CheckInvariance(dtype, SkinnyMethod::kByRows, true, 400, workspace, report);
    if (repeats) {
      CheckRepeats(dtype, SkinnyMethod::kByRows, true, CodedWord(true), workspace, report);
    }
  }
}

}  // namespace
}  // namespace tessera::check

int main(int argc, char** argv) {
  using namespace tessera::check;  // NOLINT: a program's main
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  DeviceBuffer<uint8_t> workspace(tessera::kernels::cuda::SkinnyWorkspaceBytes());
  CHECK_CUDA(cudaMemset(workspace.get(), 0, workspace.size()));
  auto* bytes = reinterpret_cast<std::byte*>(workspace.get());
  if (argc > 1 && std::strcmp(argv[1], "--bench") == 0) {
    return BenchSkinny(bytes, argc > 2 ? std::atoi(argv[2]) : 0, argc > 3 ? std::atoi(argv[3]) : 0);
  }
  const bool repeats = argc < 2 || std::strcmp(argv[1], "--no-repeats") != 0;
  Report report;
  Checks(TypesOf({argv + (repeats ? 1 : 2), argv + argc}), repeats, bytes, report);
  report.Case(workspace.CanaryIntact(), "workspace");
  return report.Finish();
}
