// First come, first served.
#include <algorithm>
#include <deque>

#include "scheduler/policy.h"

namespace tessera::scheduler {
namespace {

class FirstComePolicy final : public WaitingPolicy {
 public:
  void Add(Sequence* sequence) override { line_.push_back(sequence); }

  void Return(Sequence* sequence) override {
    const auto at = std::find_if(line_.begin(), line_.end(),
                                 [&](const Sequence* other) { return Before(*sequence, *other); });
    line_.insert(at, sequence);
  }

  Sequence* Next() override { return line_.empty() ? nullptr : line_.front(); }

  void Remove(Sequence* sequence) override {
    if (!line_.empty() && line_.front() == sequence) {
      line_.pop_front();
      return;
    }
    std::erase(line_, sequence);
  }

  void ForEach(const std::function<void(Sequence*)>& visit) const override {
    for (Sequence* sequence : line_) visit(sequence);
  }

  size_t size() const override { return line_.size(); }

 private:
  static bool Before(const Sequence& a, const Sequence& b) {
    const uint64_t a_id = a.request->spec.id.value;
    const uint64_t b_id = b.request->spec.id.value;
    return a_id != b_id ? a_id < b_id : a.choice < b.choice;
  }

  std::deque<Sequence*> line_;
};

}  // namespace

std::unique_ptr<WaitingPolicy> MakeFirstComePolicy() { return std::make_unique<FirstComePolicy>(); }

}  // namespace tessera::scheduler
