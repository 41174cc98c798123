#include "server/cli/plan_sequences.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"

namespace tessera::server::cli {

StatusOr<SequenceGroup> ParseSequenceGroup(absl::string_view text, SequenceGroup::Phase phase) {
  SequenceGroup group;
  group.phase = phase;
  const size_t equals = text.rfind('=');
  bool readable = equals != absl::string_view::npos && equals > 0;
  if (readable) {
    group.chain = std::string(text.substr(0, equals));
    const absl::string_view figures = text.substr(equals + 1);
    const size_t star = figures.find('*');
    readable = absl::SimpleAtoi(figures.substr(0, star), &group.tokens) && group.tokens > 0;
    if (star != absl::string_view::npos) {
      readable =
          readable && absl::SimpleAtoi(figures.substr(star + 1), &group.count) && group.count > 0;
    }
  }
  if (readable) return group;
  return Error(absl::StatusCode::kInvalidArgument,
               {.what = absl::StrCat(Quoted(text), " does not say which sequences"),
                .where = phase == SequenceGroup::Phase::kDecode ? "--decode" : "--prefill",
                .why = "it must be CHAIN=TOKENS or CHAIN=TOKENS*COUNT, both at least 1",
                .fix = "for example smollm2=100*4"});
}

StatusOr<std::vector<SequenceGroup>> ParseSequenceGroups(const std::vector<std::string>& decode,
                                                         const std::vector<std::string>& prefill) {
  std::vector<SequenceGroup> groups;
  for (const std::string& text : decode) {
    TESSERA_ASSIGN_OR_RETURN(SequenceGroup group,
                             ParseSequenceGroup(text, SequenceGroup::Phase::kDecode));
    groups.push_back(std::move(group));
  }
  for (const std::string& text : prefill) {
    TESSERA_ASSIGN_OR_RETURN(SequenceGroup group,
                             ParseSequenceGroup(text, SequenceGroup::Phase::kPrefill));
    groups.push_back(std::move(group));
  }
  uint64_t count = 0;
  for (const SequenceGroup& group : groups) count += group.count;
  if (count == 0) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "there are no sequences to plan for",
                  .fix = "give some: --decode CHAIN=TOKENS*COUNT, --prefill CHAIN=TOKENS*COUNT"});
  }
  if (count > kMaxPlanSequences) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = absl::StrCat(count, " sequences are too many to plan for"),
                  .fix = absl::StrCat("give at most ", kMaxPlanSequences)});
  }
  return groups;
}

}  // namespace tessera::server::cli
