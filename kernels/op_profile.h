// Where a step's time goes, by op: filled by the catalog's kernels while a context has one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops/attention.h"
#include "kernels/ops/linear.h"

namespace tessera::kernels {

// What a launch cannot do without: bytes of weights or of keys and values that it reads, and
// operations on them (a multiply and an add are two). 0 where an op is neither.
struct OpWork {
  uint64_t bytes = 0;
  uint64_t ops = 0;
};

[[nodiscard]] OpWork WorkOf(const LinearOp::Desc& desc, const LinearOp::Params& params);
// Of dense rows; a listed row counts its entries as whole pages.
[[nodiscard]] OpWork WorkOf(const AttentionOp::Desc& desc, const AttentionOp::Params& params);
template <typename Desc, typename Params>
[[nodiscard]] OpWork WorkOf(const Desc& /*desc*/, const Params& /*params*/) {
  return {};
}

// For one thread. A launch that is counted allocates: this is for measurements alone.
class OpProfile {
 public:
  struct Line {
    std::string op;    // "linear"
    std::string what;  // Describe of its descriptor
    uint64_t calls = 0;
    uint64_t ns = 0;  // wall time inside the kernel
    OpWork work;
  };

  // A launch that ran from `begin_ns` to `end_ns` of Now().
  void Add(const char* op, std::string what, uint64_t begin_ns, uint64_t end_ns,
           const OpWork& work);

  // Most time first.
  [[nodiscard]] std::vector<Line> Sorted() const;
  // Time spent counting, which a step has on top.
  [[nodiscard]] uint64_t own_ns() const { return own_ns_; }

  [[nodiscard]] static uint64_t Now();

 private:
  std::vector<Line> lines_;
  uint64_t own_ns_ = 0;
};

}  // namespace tessera::kernels
