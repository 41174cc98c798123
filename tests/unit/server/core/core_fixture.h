// What tests of the server's core share: a tokenizer of bytes, models without a chain, and a source
// of models whose loads a test holds up, fails and counts.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/core/model_registry.h"
#include "server/core/zoo_model_source.h"
#include "server/text/tokenizer.h"
#include "server/text/utf8.h"

namespace tessera::testing {

inline constexpr TokenId kEndToken = 256;   // the control token <end>
inline constexpr TokenId kToolToken = 257;  // the user-defined token <tool>
inline constexpr uint32_t kByteVocab = 264;

// Token b writes byte b; a text is as many tokens as it has bytes.
inline std::shared_ptr<const server::Tokenizer> ByteTokenizer() {
  server::GgufVocabulary vocabulary;
  vocabulary.model = "gpt2";
  vocabulary.pre = "gpt-2";
  for (int b = 0; b < 256; ++b) {
    AppendUtf8(server::ByteToSymbol(static_cast<uint8_t>(b)), &vocabulary.tokens.emplace_back());
    vocabulary.token_types.push_back(1);
  }
  vocabulary.tokens.push_back("<end>");
  vocabulary.token_types.push_back(3);
  vocabulary.tokens.push_back("<tool>");
  vocabulary.token_types.push_back(4);
  // A byte-level vocabulary has merges; this one joins bytes that no text of a test holds.
  std::string zero, one;
  AppendUtf8(server::ByteToSymbol(0), &zero);
  AppendUtf8(server::ByteToSymbol(1), &one);
  vocabulary.tokens.push_back(zero + one);
  vocabulary.token_types.push_back(1);
  vocabulary.merges = {zero + " " + one};
  vocabulary.eos_token_id = kEndToken;
  auto tokenizer = server::TokenizerFromGgufVocabulary(vocabulary);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

// A model that can do everything but run.
inline std::unique_ptr<server::LoadedModel> MakeByteModel(const std::string& name = "bytes") {
  auto model = std::make_unique<server::LoadedModel>();
  model->name = name;
  model->revision = "r1";
  model->tokenizer = ByteTokenizer();
  model->vocab = kByteVocab;
  model->max_context = 512;
  model->tokens = std::make_shared<const scheduler::TokenTable>(
      server::MakeTokenTable(*model->tokenizer, model->vocab));
  model->end_token_ids = {kEndToken};
  return model;
}

inline std::vector<TokenId> ByteIds(absl::string_view text) {
  std::vector<TokenId> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

inline server::Condition ConditionOf(const Status& status) {
  return server::ReportOf(status).details.condition;
}

// Models "a" and "b" (or others), each load a new one. Thread-safe.
class FakeSource : public server::ModelSource {
 public:
  explicit FakeSource(std::vector<std::string> names = {"a", "b"}) : names_(std::move(names)) {}

  std::vector<std::string> Names() override {
    const std::lock_guard lock(mutex_);
    return names_;
  }
  StatusOr<server::ModelSummary> Describe(const std::string&) override {
    return server::ModelSummary{.revision = "described"};
  }

  StatusOr<std::unique_ptr<server::LoadedModel>> Load(const std::string& name, ChainId id,
                                                      const Progress& progress) override {
    int number = 0;
    {
      std::unique_lock lock(mutex_);
      number = ++loads_[name];
      changed_.notify_all();
      changed_.wait(lock, [this] { return !held_; });
    }
    progress(1, 4);
    {
      std::unique_lock lock(mutex_);
      if (const auto failing = failures_.find(name); failing != failures_.end()) {
        return failing->second;
      }
      if (live_ >= capacity_) return absl::ResourceExhaustedError("no room");
    }
    StatusOr<std::unique_ptr<server::LoadedModel>> model = Make(name, id);
    if (!model.ok()) return model.status();
    (*model)->revision = absl::StrCat(name, number);
    const std::lock_guard lock(mutex_);
    ++live_;
    return model;
  }

  void Remove(std::unique_ptr<server::LoadedModel> model) override {
    Removed(*model);
    const std::lock_guard lock(mutex_);
    --live_;
    removed_.push_back(model->revision);
    changed_.notify_all();
  }

  // Loads wait until Release.
  void Hold() {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  void Release() {
    const std::lock_guard lock(mutex_);
    held_ = false;
    changed_.notify_all();
  }
  void WaitForLoad(const std::string& name, int number) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(30), [&] { return loads_[name] >= number; }));
  }
  void Fail(const std::string& name, Status status) {
    const std::lock_guard lock(mutex_);
    failures_[name] = std::move(status);
  }
  void Mend(const std::string& name) {
    const std::lock_guard lock(mutex_);
    failures_.erase(name);
  }
  void set_capacity(int models) {
    const std::lock_guard lock(mutex_);
    capacity_ = models;
  }
  int loads(const std::string& name) {
    const std::lock_guard lock(mutex_);
    return loads_[name];
  }
  std::vector<std::string> removed() {
    const std::lock_guard lock(mutex_);
    return removed_;
  }

 protected:
  virtual StatusOr<std::unique_ptr<server::LoadedModel>> Make(const std::string& name, ChainId id) {
    auto model = std::make_unique<server::LoadedModel>();
    model->name = name;
    model->chain_id = id;
    return model;
  }
  virtual void Removed(const server::LoadedModel&) {}

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> names_;
  std::map<std::string, int> loads_;
  std::map<std::string, Status> failures_;
  std::vector<std::string> removed_;
  int live_ = 0;
  int capacity_ = 1000;
  bool held_ = false;
};

}  // namespace tessera::testing
