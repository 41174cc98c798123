#include "blockzoo/stacked_weight.h"

#include "absl/strings/str_cat.h"

namespace tessera::blockzoo {

StatusOr<StackedWeight> BindStackedWeight(const BindContext& context, const char* role,
                                          int32_t parts, int32_t out, int32_t in) {
  const uint64_t step = context.backend.LinearRowStep();
  if (parts > 1 && (step == 0 || static_cast<uint64_t>(out) % step != 0)) {
    return Error(
        absl::StatusCode::kUnimplemented,
        {.what = absl::StrCat("tensor \"", role, "\" of a block of type ", context.manifest.type,
                              " cannot be cut every ", out, " rows"),
         .why = step == 0 ? absl::StrCat("the backend ", context.backend.name(),
                                         " cuts no packed weights")
                          : absl::StrCat("the backend ", context.backend.name(),
                                         " cuts at multiples of ", step)});
  }
  const uint64_t rows = static_cast<uint64_t>(parts) * static_cast<uint64_t>(out);
  StackedWeight stacked;
  TESSERA_ASSIGN_OR_RETURN(stacked.all, BindWeight(context, role, rows, static_cast<uint64_t>(in)));
  TESSERA_ASSIGN_OR_RETURN(
      const kernels::WeightLayout layout,
      context.backend.LinearLayout(stacked.all.dtype, rows, static_cast<uint64_t>(in)));
  stacked.out = out;
  stacked.stride = layout.bytes / static_cast<uint64_t>(parts);
  return stacked;
}

}  // namespace tessera::blockzoo
