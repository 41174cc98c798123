#include "blockzoo/rotary.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <string>

namespace tessera::blockzoo {
namespace {

struct Reference {
  const char* name;
  double scale;
  double frequencies[8];
};
constexpr Reference kReferences[] = {
#include "tests/unit/blockzoo/rotary_reference.inc"
};

// The settings of a case, and the context of its chain.
struct Case {
  RotarySettings settings;
  uint64_t context;
};

std::map<std::string, Case> Cases() {
  RotarySettings longrope{.dim = 16, .scaling = "longrope", .factor = 32, .original_context = 4096};
  for (int i = 0; i < 8; ++i) {
    longrope.short_factor.push_back(1.0 + 0.05 * i);
    longrope.long_factor.push_back(1.0 + 1.5 * i);
  }
  RotarySettings yarn{.dim = 16, .scaling = "yarn", .factor = 8, .original_context = 4096};
  RotarySettings whole = yarn;
  whole.factor = 32;
  whole.truncate = false;
  RotarySettings mscale = yarn;
  mscale.factor = 40;
  mscale.beta_fast = 16;
  mscale.beta_slow = 2;
  mscale.mscale = 0.8;
  mscale.mscale_all_dim = 0.5;
  const RotarySettings dynamic{
      .dim = 16, .scaling = "dynamic", .factor = 2, .original_context = 2048};
  RotarySettings llama3{.dim = 16, .scaling = "llama3", .factor = 8, .original_context = 8192};
  return {{"linear", {{.dim = 16, .scaling = "linear", .factor = 4}, 4096}},
          {"dynamic short", {dynamic, 1000}},
          {"dynamic long", {dynamic, 8192}},
          {"yarn", {yarn, 32768}},
          {"yarn whole", {whole, 131072}},
          {"yarn mscale", {mscale, 163840}},
          {"longrope short", {longrope, 4096}},
          {"longrope long", {longrope, 4097}},
          {"llama3", {llama3, 131072}}};
}

void ExpectTable(const RotaryTable& table, const Reference& reference) {
  EXPECT_NEAR(table.scale, reference.scale, 2e-7 * reference.scale);
  ASSERT_EQ(table.frequencies.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    // The reference is computed in float32.
    EXPECT_NEAR(table.frequencies[i], reference.frequencies[i], 4e-7 * reference.frequencies[i])
        << i;
  }
}

TEST(RotaryTest, MatchesTransformers) {
  const std::map<std::string, Case> cases = Cases();
  ASSERT_EQ(std::size(kReferences), cases.size());
  for (const Reference& reference : kReferences) {
    SCOPED_TRACE(reference.name);
    const Case& c = cases.at(reference.name);
    const StatusOr<RotaryTable> table = MakeRotaryTable(c.settings, c.context);
    ASSERT_TRUE(table.ok()) << table.status();
    ExpectTable(*table, reference);
  }
}

// Dynamic scaling of a chain of 8192 tokens stretches as NTK by 2 * 8192 / 2048 - 1 does.
TEST(RotaryTest, NtkIsDynamicAtOneLength) {
  const RotarySettings ntk{.dim = 16, .scaling = "ntk", .factor = 7};
  const Case dynamic = Cases().at("dynamic long");
  EXPECT_EQ(*MakeRotaryTable(ntk, 1), *MakeRotaryTable(dynamic.settings, dynamic.context));
}

TEST(RotaryTest, LengthReplacesTheChainsContext) {
  Case c = Cases().at("longrope short");
  c.settings.length = 5000;
  EXPECT_EQ(*MakeRotaryTable(c.settings, 10),
            *MakeRotaryTable(Cases().at("longrope long").settings, 4097));
}

TEST(RotaryTest, FactorsReplaceAndDivide) {
  RotarySettings settings = Cases().at("yarn").settings;
  settings.attention_factor = 1.5;
  const RotaryTable scaled = MakeRotaryTable(settings, 1).value();
  EXPECT_EQ(scaled.scale, 1.5f);
  settings.frequency_factors.assign(8, 4.0);
  const RotaryTable divided = MakeRotaryTable(settings, 1).value();
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_FLOAT_EQ(divided.frequencies[i] * 4, scaled.frequencies[i]);
  }
  const RotarySettings none{.dim = 16, .scaling = "none"};
  const RotarySettings empty{.dim = 16};
  EXPECT_EQ(*MakeRotaryTable(none, 1), *MakeRotaryTable(empty, 1));
}

TEST(RotaryTest, BadSettingsAreNamed) {
  struct Bad {
    const char* base;
    std::function<void(RotarySettings&)> damage;
    const char* named;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Bad bads[] = {
      {"linear", [](RotarySettings& s) { s.dim = 7; }, "dim"},
      {"linear", [](RotarySettings& s) { s.dim = 0; }, "dim"},
      {"linear", [](RotarySettings& s) { s.base = 1; }, "base"},
      {"linear", [](RotarySettings& s) { s.factor = 0; }, "factor"},
      {"linear", [=](RotarySettings& s) { s.factor = nan; }, "factor"},
      {"linear", [](RotarySettings& s) { s.attention_factor = -1; }, "attention_factor"},
      {"linear",
       [](RotarySettings& s) {
         s.frequency_factors = {1, 2};
       },
       "frequency_factors"},
      {"linear", [](RotarySettings& s) { s.frequency_factors.assign(8, 0.0); },
       "frequency_factors"},
      {"dynamic long", [](RotarySettings& s) { s.original_context = 0; }, "original_context"},
      {"dynamic long", [](RotarySettings& s) { s.dim = 2; }, "dim"},
      {"yarn", [](RotarySettings& s) { s.original_context = 0; }, "original_context"},
      {"yarn", [](RotarySettings& s) { s.beta_slow = 0; }, "beta_slow"},
      {"yarn", [](RotarySettings& s) { s.beta_fast = 0.5; }, "beta_fast"},
      {"longrope long", [](RotarySettings& s) { s.long_factor.clear(); }, "long_factor"},
      {"longrope short", [=](RotarySettings& s) { s.short_factor[2] = nan; }, "short_factor"},
      {"llama3", [](RotarySettings& s) { s.original_context = 0; }, "original_context"},
      {"llama3", [](RotarySettings& s) { s.low_freq_factor = 0; }, "low_freq_factor"},
      {"llama3", [](RotarySettings& s) { s.high_freq_factor = 1; }, "high_freq_factor"}};
  for (const Bad& bad : bads) {
    Case c = Cases().at(bad.base);
    bad.damage(c.settings);
    const Status status = MakeRotaryTable(c.settings, c.context).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.base << " " << bad.named;
    EXPECT_NE(status.message().find(bad.named), absl::string_view::npos) << status;
  }
  const Status unknown = MakeRotaryTable({.dim = 16, .scaling = "spiral"}, 1).status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(unknown.message().find("spiral"), absl::string_view::npos);
  EXPECT_NE(unknown.message().find("longrope"), absl::string_view::npos);
}

}  // namespace
}  // namespace tessera::blockzoo
