// What an architecture cuts with: each tensor is taken once or more, with its shape checked, and at
// the end what nobody took is named.
#pragma once

#include <set>
#include <string>

#include "absl/strings/string_view.h"
#include "blockzoo/import/architecture.h"
#include "blockzoo/import/checkpoint.h"
#include "blockzoo/import/tensor_forms.h"

namespace tessera::blockzoo {

// One thread; the checkpoint must outlive it.
class TensorTaker {
 public:
  explicit TensorTaker(const Checkpoint& checkpoint);

  [[nodiscard]] bool Has(absl::string_view name) const;
  // NOT_FOUND or INVALID_ARGUMENT with the tensor's name when it is missing or of another shape.
  [[nodiscard]] StatusOr<CheckpointTensor> Take(const std::string& name, const Shape& shape);
  // Adds `role` to `block`.
  [[nodiscard]] Status AddPart(BlockPlan& block, const char* role, const std::string& name,
                               const Shape& shape);
  [[nodiscard]] Status AddPartIfThere(BlockPlan& block, const char* role, const std::string& name,
                                      const Shape& shape);
  void Ignore(const std::string& name) { left_.erase(name); }
  void IgnoreEndingWith(absl::string_view suffix);
  void IgnoreStartingWith(absl::string_view prefix);
  // INVALID_ARGUMENT naming the first few of the tensors that were neither taken nor ignored.
  [[nodiscard]] Status CheckNothingLeft() const;

 private:
  const Checkpoint& checkpoint_;
  std::set<std::string> all_;
  std::set<std::string> left_;
};

}  // namespace tessera::blockzoo
