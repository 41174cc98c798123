#include "blockzoo/import/tensor_taker.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {

TensorTaker::TensorTaker(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
  for (std::string& name : checkpoint.TensorNames()) all_.insert(std::move(name));
  left_ = all_;
}

bool TensorTaker::Has(absl::string_view name) const { return all_.contains(std::string(name)); }

StatusOr<CheckpointTensor> TensorTaker::Take(const std::string& name, const Shape& shape) {
  TESSERA_ASSIGN_OR_RETURN(CheckpointTensor tensor, checkpoint_.Tensor(name));
  if (tensor.shape != shape) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat("the tensor ", name, " has the wrong shape"),
                  .why = absl::StrCat("it is ", ShapeText(tensor.shape),
                                      ", the model's settings ask for ", ShapeText(shape))});
  }
  left_.erase(name);
  return tensor;
}

Status TensorTaker::AddPart(BlockPlan& block, const char* role, const std::string& name,
                            const Shape& shape) {
  TESSERA_ASSIGN_OR_RETURN(CheckpointTensor tensor, Take(name, shape));
  block.tensors.push_back({role, std::move(tensor)});
  return absl::OkStatus();
}

Status TensorTaker::AddPartIfThere(BlockPlan& block, const char* role, const std::string& name,
                                   const Shape& shape) {
  return Has(name) ? AddPart(block, role, name, shape) : absl::OkStatus();
}

void TensorTaker::IgnoreEndingWith(absl::string_view suffix) {
  std::erase_if(left_, [suffix](const std::string& name) { return absl::EndsWith(name, suffix); });
}

void TensorTaker::IgnoreStartingWith(absl::string_view prefix) {
  std::erase_if(left_,
                [prefix](const std::string& name) { return absl::StartsWith(name, prefix); });
}

Status TensorTaker::CheckNothingLeft() const {
  if (left_.empty()) return absl::OkStatus();
  constexpr size_t kNamed = 5;
  std::string names;
  size_t named = 0;
  for (const std::string& name : left_) {
    if (named == kNamed) break;
    absl::StrAppend(&names, named++ == 0 ? "" : ", ", name);
  }
  if (left_.size() > kNamed) absl::StrAppend(&names, " and ", left_.size() - kNamed, " more");
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = "the model has tensors that its architecture does not know",
                .where = names,
                .why = "leaving them out would change what the model computes"});
}

}  // namespace tessera::blockzoo
