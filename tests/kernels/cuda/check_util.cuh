// What the device checks share: random inputs, device buffers with canaries, comparison with a
// float64 reference, graph capture and timing. A check is one program without a test framework:
// it prints a line a case and ends with "N passed, N failed"; with --bench it times instead.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace tessera::check {

inline void Require(cudaError_t error, const char* what, const char* file, int line) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, cudaGetErrorString(error));
  std::exit(2);
}
#define CHECK_CUDA(expr) ::tessera::check::Require((expr), #expr, __FILE__, __LINE__)

// A fixed-seed generator (splitmix64).
class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  // [0, bound)
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>((Next() >> 32) * bound >> 32); }
  // [0, 1)
  float Uniform() { return static_cast<float>(Next() >> 40) * 0x1p-24f; }
  // Sum of four uniforms, unit variance, and one in 512 ten times as large.
  float Normal() {
    const uint64_t bits = Next();
    const int32_t sum = static_cast<int32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) +
                                             (bits >> 32 & 0xffff) + (bits >> 48));
    const float value = static_cast<float>(sum - 131070) * (1.7320508f / 65536.0f);
    return Below(512) == 0 ? 10 * value : value;
  }

 private:
  uint64_t state_;
};

// Device memory of `count` elements with a canary behind them. Never freed early: a check is short.
template <typename T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t count) : count_(count) {
    CHECK_CUDA(cudaMalloc(&data_, count * sizeof(T) + kCanaryBytes));
    Poison();
  }
  explicit DeviceBuffer(const std::vector<T>& host) : DeviceBuffer(host.size()) { Upload(host); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { cudaFree(data_); }

  [[nodiscard]] T* get() const { return data_; }
  [[nodiscard]] size_t size() const { return count_; }
  // Every byte 0xff: a NaN in each float format, and the canary.
  void Poison() { CHECK_CUDA(cudaMemset(data_, 0xff, count_ * sizeof(T) + kCanaryBytes)); }
  void Upload(const std::vector<T>& host) {
    CHECK_CUDA(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  [[nodiscard]] std::vector<T> Download() const {
    std::vector<T> host(count_);
    CHECK_CUDA(cudaMemcpy(host.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }
  [[nodiscard]] bool CanaryIntact() const {
    uint8_t tail[kCanaryBytes];
    CHECK_CUDA(cudaMemcpy(tail, data_ + count_, kCanaryBytes, cudaMemcpyDeviceToHost));
    return std::all_of(tail, tail + kCanaryBytes, [](uint8_t byte) { return byte == 0xff; });
  }

 private:
  static constexpr size_t kCanaryBytes = 256;
  T* data_ = nullptr;
  size_t count_;
};

inline uint16_t ToBf16(float value) {
  const __nv_bfloat16 rounded = __float2bfloat16_rn(value);
  uint16_t bits;
  std::memcpy(&bits, &rounded, sizeof(bits));
  return bits;
}
inline float BitsToFloat(uint16_t bf16) {
  const uint32_t bits = uint32_t{bf16} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Distances of `got` from `want`: relative L2, and the largest |got - want| over the root mean
// square of `want`. A not-a-number in `got` makes both infinite.
struct Distance {
  double l2 = 0;
  double max = 0;
};
template <typename Got, typename Want>
Distance Compare(const Got* got, const Want* want, size_t count) {
  double error = 0, norm = 0, largest = 0;
  for (size_t i = 0; i < count; ++i) {
    const double difference = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    if (!std::isfinite(difference)) return {INFINITY, INFINITY};
    error += difference * difference;
    norm += static_cast<double>(want[i]) * static_cast<double>(want[i]);
    largest = std::max(largest, std::abs(difference));
  }
  if (norm == 0) return {error == 0 ? 0 : INFINITY, largest};
  return {std::sqrt(error / norm), largest / std::sqrt(norm / static_cast<double>(count))};
}

// Counts cases and prints a line for each.
class Report {
 public:
  void Case(bool passed, const char* format, ...) __attribute__((format(printf, 3, 4))) {
    va_list arguments;
    va_start(arguments, format);
    std::printf("%s  ", passed ? "ok  " : "FAIL");
    std::vprintf(format, arguments);
    std::printf("\n");
    va_end(arguments);
    ++(passed ? passed_ : failed_);
  }
  // The last line; returns main's exit code.
  [[nodiscard]] int Finish() const {
    std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  int passed_ = 0;
  int failed_ = 0;
};

// What `record` launches on a stream, as a graph that can be launched again.
class Graph {
 public:
  explicit Graph(const std::function<void(cudaStream_t)>& record) {
    CHECK_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    CHECK_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    record(stream_);
    cudaGraph_t graph;
    CHECK_CUDA(cudaStreamEndCapture(stream_, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&graph_, graph, 0));
    CHECK_CUDA(cudaGraphDestroy(graph));
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() {
    cudaGraphExecDestroy(graph_);
    cudaStreamDestroy(stream_);
  }
  void Launch() { CHECK_CUDA(cudaGraphLaunch(graph_, stream_)); }
  // After everything that other streams were given, uploads and poison included.
  void Run() {
    CHECK_CUDA(cudaDeviceSynchronize());
    Launch();
    CHECK_CUDA(cudaStreamSynchronize(stream_));
  }
  // Median milliseconds of `replays` launches, after two that are not counted.
  double MedianMs(int replays = 20) {
    cudaEvent_t begin, end;
    CHECK_CUDA(cudaEventCreate(&begin));
    CHECK_CUDA(cudaEventCreate(&end));
    std::vector<float> times;
    for (int i = -2; i < replays; ++i) {
      CHECK_CUDA(cudaEventRecord(begin, stream_));
      Launch();
      CHECK_CUDA(cudaEventRecord(end, stream_));
      CHECK_CUDA(cudaEventSynchronize(end));
      float ms;
      CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
      if (i >= 0) times.push_back(ms);
    }
    CHECK_CUDA(cudaEventDestroy(begin));
    CHECK_CUDA(cudaEventDestroy(end));
    std::nth_element(times.begin(), times.begin() + replays / 2, times.end());
    return times[replays / 2];
  }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_;
};

// Bytes read plus bytes written a second by a device-to-device copy of `bytes`. Not through a
// graph: a graph's copy node takes the copy engine, which reaches two thirds of the memory's speed.
inline double CopyBandwidth(size_t bytes = size_t{4} << 30) {
  void *from, *to;
  CHECK_CUDA(cudaMalloc(&from, bytes));
  CHECK_CUDA(cudaMalloc(&to, bytes));
  CHECK_CUDA(cudaMemset(from, 0x5a, bytes));
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = -2; i < 11; ++i) {
    CHECK_CUDA(cudaEventRecord(begin));
    CHECK_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice));
    CHECK_CUDA(cudaEventRecord(end));
    CHECK_CUDA(cudaEventSynchronize(end));
    float ms;
    CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 0) times.push_back(ms);
  }
  CHECK_CUDA(cudaEventDestroy(begin));
  CHECK_CUDA(cudaEventDestroy(end));
  CHECK_CUDA(cudaFree(from));
  CHECK_CUDA(cudaFree(to));
  std::nth_element(times.begin(), times.begin() + 5, times.end());
  return 2.0 * static_cast<double>(bytes) / (times[5] * 1e-3);
}

inline std::string DeviceName() {
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  return properties.name;
}

}  // namespace tessera::check
