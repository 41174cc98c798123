#include "config/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/rules.h"

namespace tessera {
namespace {

LoadOutcome Load(absl::string_view yaml, const Overrides& overrides = {}) {
  return LoadSettingsText(yaml, TextFormat::kYaml, "t.yaml", overrides);
}

// The only problem of `yaml`.
std::string Problem1(absl::string_view yaml) {
  const LoadOutcome outcome = Load(yaml);
  EXPECT_EQ(outcome.problems.size(), 1u) << yaml << "\n" << ProblemsText(outcome.problems);
  EXPECT_EQ(outcome.settings, nullptr);
  return outcome.problems.empty() ? "" : outcome.problems[0].Text();
}

TEST(LoaderTest, DefaultsAreValid) {
  const LoadOutcome outcome = LoadSettings("", {});
  ASSERT_TRUE(outcome.ok()) << ProblemsText(outcome.problems);
  EXPECT_EQ(outcome.settings->listen.grpc.address, "127.0.0.1:50051");
  EXPECT_EQ(outcome.settings->listen.http.address, "127.0.0.1:8080");
  EXPECT_TRUE(outcome.origins.empty());
  EXPECT_TRUE(outcome.status().ok());
}

TEST(LoaderTest, ReadsEveryKindOfValue) {
  const LoadOutcome outcome = Load(R"(
version: 1
server: { name: gpu-a, drain_timeout: 1.5m }
listen: { grpc: { max_message: 32MiB, max_connection_age: off }, http: { address: "" } }
engine: { threads: auto, memory: 2GiB, memory_fraction: 0.75, kv: { dtype: bf16, key_statistics: true }, deterministic: on_request }
models:
  - name: small
    preload: true
    max_context: 2048
    defaults: { temperature: 0, top_k: null }
  - { name: copy, chain: small }
log: { level: warning, format: json }
)");
  ASSERT_TRUE(outcome.ok()) << ProblemsText(outcome.problems);
  const Settings& s = *outcome.settings;
  EXPECT_EQ(s.server.name, "gpu-a");
  EXPECT_EQ(s.server.drain_timeout, std::chrono::seconds(90));
  EXPECT_EQ(s.listen.grpc.max_message, MiB(32));
  EXPECT_EQ(s.listen.grpc.max_connection_age, Duration(0));
  EXPECT_EQ(s.listen.http.address, "");
  EXPECT_EQ(s.engine.threads, 0);
  EXPECT_EQ(s.engine.memory, GiB(2));
  EXPECT_EQ(s.engine.memory_fraction, 0.75);
  EXPECT_EQ(s.engine.kv.dtype, KvDtype::kBf16);
  EXPECT_TRUE(s.engine.kv.key_statistics);
  EXPECT_EQ(s.engine.deterministic, DeterministicMode::kOnRequest);
  ASSERT_EQ(s.models.size(), 2u);
  EXPECT_EQ(s.models[0].defaults.temperature, 0.0);
  EXPECT_FALSE(s.models[0].defaults.top_k.has_value());
  EXPECT_EQ(s.FindModel("copy")->ChainName(), "small");
  EXPECT_EQ(s.models[0].ChainName(), "small");
  EXPECT_EQ(s.FindModel("none"), nullptr);
  EXPECT_EQ(s.log.level, LogLevel::kWarning);
}

// YAML has a boolean of that name.
TEST(LoaderTest, DeterministicModeMayBeOff) {
  const LoadOutcome outcome = Load("engine: { deterministic: off }");
  ASSERT_TRUE(outcome.ok()) << ProblemsText(outcome.problems);
  EXPECT_EQ(outcome.settings->engine.deterministic, DeterministicMode::kOff);
}

TEST(LoaderTest, UnknownSettingsNameTheNearest) {
  EXPECT_EQ(Problem1("admission:\n  max_waiting_token: 5\n"),
            "t.yaml:2:3: admission: unknown setting \"max_waiting_token\" (did you mean "
            "`max_waiting_tokens`?)");
  EXPECT_EQ(Problem1("sever: {}\n"),
            "t.yaml:1:1: unknown setting \"sever\" (did you mean `server`?)");
  EXPECT_TRUE(absl::StrContains(Problem1("limits: { drain_timeout: 5s }\n"),
                                "did you mean `server.drain_timeout`?"));
  EXPECT_TRUE(absl::StrContains(Problem1("xyzzy: 1\n"), "--print-config"));
}

TEST(LoaderTest, AllProblemsComeAtOnceWithTheirPlaces) {
  const LoadOutcome outcome = Load(
      "server:\n"
      "  drain_timeout: 30\n"
      "  nmae: x\n"
      "engine:\n"
      "  threads: -3\n"
      "  isa: sse2\n"
      "  kv: 7\n"
      "models:\n"
      "  - name: a\n"
      "  - name: a\n"
      "    preload: yes\n"
      "  - max_context: 9\n"
      "limits:\n"
      "  n:\n");
  std::vector<std::string> places;
  for (const Problem& problem : outcome.problems) {
    EXPECT_EQ(problem.file, "t.yaml") << problem.Text();
    places.push_back(absl::StrCat(problem.position.line, ":", problem.position.column));
  }
  EXPECT_EQ(places, (std::vector<std::string>{"2:18", "3:3", "5:12", "6:8", "7:7", "10:11", "11:14",
                                              "12:5", "12:18", "14:3"}))
      << ProblemsText(outcome.problems);
  EXPECT_EQ(
      outcome.problems[0].Text(),
      "t.yaml:2:18: server.drain_timeout: must be a time with its unit, such as 500ms, 30s or "
      "10m, not \"30\" (values: at most 1d)");
  EXPECT_TRUE(absl::StrContains(outcome.problems[3].message, "one of: auto, amx, avx512, avx2"));
  EXPECT_EQ(outcome.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(outcome.status().message(), "t.yaml:14:3: limits.n: has no value"));
}

TEST(LoaderTest, RangesAreChecked) {
  EXPECT_TRUE(absl::StrContains(Problem1("engine: { memory_fraction: 1.5 }"), "0.01 to 0.95"));
  EXPECT_TRUE(absl::StrContains(Problem1("limits: { n: 0 }"), "1 to 128"));
  EXPECT_TRUE(absl::StrContains(Problem1("listen: { grpc: { max_message: 16 } }"), "16MiB"));
  EXPECT_TRUE(absl::StrContains(Problem1("engine: { threads: 0x4 }"), "or `auto`"));
  EXPECT_TRUE(absl::StrContains(Problem1("models: { name: a }"), "must be a list"));
  EXPECT_TRUE(absl::StrContains(Problem1("models: [a]"), "must be a group of settings"));
  EXPECT_TRUE(absl::StrContains(Problem1("server: { name: [a] }"), "must be a plain value"));
  EXPECT_TRUE(absl::StrContains(Problem1("[]"), "must be a group of settings"));
}

TEST(LoaderTest, RulesAcrossFields) {
  EXPECT_TRUE(absl::StrContains(Problem1("version: 2"), "newer than this program understands"));
  EXPECT_TRUE(absl::StrContains(Problem1("listen: { grpc: { address: 0.0.0.0:50051 } }"),
                                "listen.insecure_public: true"));
  EXPECT_TRUE(Load("listen: { insecure_public: true, grpc: { address: 0.0.0.0:50051 } }").ok());
  EXPECT_TRUE(Load("listen: { grpc: { address: 'unix:/run/t.sock' } }").ok());
  EXPECT_TRUE(Load("listen: { http: { address: '[::1]:80' } }").ok());
  EXPECT_TRUE(absl::StrContains(Problem1("listen: { http: { address: '::1:80' } }"), "HOST:PORT"));
  EXPECT_TRUE(absl::StrContains(Problem1("listen: { http: { address: 'h:70000' } }"), "HOST:PORT"));
  EXPECT_TRUE(
      absl::StrContains(Problem1("listen: { grpc: { address: '' } }"), "must not be empty"));
  EXPECT_TRUE(absl::StrContains(Problem1("listen: { http: { address: 127.0.0.1:50051 } }"),
                                "same address"));
  EXPECT_TRUE(
      absl::StrContains(Problem1("listen: { admin: { address: 127.0.0.1:1 } }"), "unix:PATH"));
  EXPECT_TRUE(absl::StrContains(Problem1("engine: { max_running: 600, max_batch_tokens: 512 }"),
                                "max_batch_tokens"));
  EXPECT_TRUE(absl::StrContains(Problem1("admission: { max_wait: 11m }"), "max_request_time"));
  EXPECT_TRUE(absl::StrContains(Problem1("listen: { grpc: { keepalive: { timeout: 2m } } }"),
                                "keepalive.time"));
  EXPECT_TRUE(absl::StrContains(Problem1("store: { root: '' }"), "must not be empty"));
  EXPECT_TRUE(absl::StrContains(Problem1("models: [{name: a, chat_template: x}]"), "a path"));
  EXPECT_EQ(SettingsRules().size(), 11u) << "test every rule here";
}

TEST(LoaderTest, FlagsOutrankTheEnvironmentWhichOutranksTheFile) {
  const Overrides overrides = {
      {{"TESSERA_ADMISSION__MAX_WAIT", "20s"},
       {"TESSERA_SERVER__NAME", "from-env"},
       {"TESSERA_CPU_ISA", "avx2"},
       {"TESSERA_MODELS__0__PRELOAD", "true"}},
      {"server.name=from=flag", "models[1].name=b", "models[0].defaults.top_k=null"}};
  const LoadOutcome outcome = Load(
      "server: { name: from-file }\nadmission: { max_wait: 10s, max_waiting_requests: 9 }\n"
      "models:\n- {name: a, defaults: {top_k: 3}}\n",
      overrides);
  ASSERT_TRUE(outcome.ok()) << ProblemsText(outcome.problems);
  EXPECT_EQ(outcome.settings->server.name, "from=flag");
  EXPECT_EQ(outcome.settings->admission.max_wait, std::chrono::seconds(20));
  EXPECT_EQ(outcome.settings->admission.max_waiting_requests, 9);
  ASSERT_EQ(outcome.settings->models.size(), 2u);
  EXPECT_TRUE(outcome.settings->models[0].preload);
  EXPECT_FALSE(outcome.settings->models[0].defaults.top_k.has_value());
  EXPECT_EQ(outcome.origins.at("server.name").source, "flag server.name");
  EXPECT_EQ(outcome.origins.at("admission.max_wait").source, "env TESSERA_ADMISSION__MAX_WAIT");
  EXPECT_EQ(outcome.origins.at("admission.max_waiting_requests").source, "t.yaml");
}

TEST(LoaderTest, BadOverridesSayWhereTheyComeFrom) {
  const Overrides overrides = {{{"TESSERA_ADMISSION__MAX_WIAT", "20s"}, {"TESSERA_LIMITS__N", "x"}},
                               {"log.level=loud", "novalue", "models[3].name=x", "log.level.x=1"}};
  const LoadOutcome outcome = LoadSettings("", overrides);
  const std::string text = ProblemsText(outcome.problems);
  EXPECT_TRUE(absl::StrContains(text,
                                "env TESSERA_ADMISSION__MAX_WIAT: admission: unknown setting "
                                "\"max_wiat\" (did you mean `max_wait`?)"))
      << text;
  EXPECT_TRUE(absl::StrContains(text, "env TESSERA_LIMITS__N: limits.n: must be a whole number"))
      << text;
  EXPECT_TRUE(absl::StrContains(text, "flag log.level: log.level: must be one of")) << text;
  EXPECT_TRUE(absl::StrContains(text, "flag \"novalue\": must be NAME=VALUE")) << text;
  EXPECT_TRUE(absl::StrContains(text, "flag models[3].name: names entry 3 of a list with 0"))
      << text;
  EXPECT_TRUE(absl::StrContains(text, "flag log.level.x: leads into a plain value")) << text;
}

TEST(LoaderTest, DumpShowsOriginsAndReadsBack) {
  const Overrides overrides = {{{"TESSERA_LIMITS__N", "4"}}, {"log.level=debug"}};
  const LoadOutcome first = Load(
      "server:\n  name: \"a: # \\u00e9\"\nmodels:\n- {name: m, defaults: {top_p: 0.9}}\n- {name: "
      "'null'}\n",
      overrides);
  ASSERT_TRUE(first.ok()) << ProblemsText(first.problems);
  const std::string dump = Dump(*first.settings, first.origins);
  EXPECT_TRUE(absl::StrContains(dump, "name: \"a: # \xC3\xA9\"  # t.yaml:2\n")) << dump;
  EXPECT_TRUE(absl::StrContains(dump, "  n: 4  # env TESSERA_LIMITS__N\n")) << dump;
  EXPECT_TRUE(absl::StrContains(dump, "  level: debug  # flag log.level\n")) << dump;
  EXPECT_TRUE(absl::StrContains(dump, "  drain_timeout: 2m  # default\n")) << dump;
  EXPECT_TRUE(absl::StrContains(dump, "  - name: m  # t.yaml:4\n")) << dump;
  const LoadOutcome second = Load(dump);
  ASSERT_TRUE(second.ok()) << ProblemsText(second.problems) << dump;
  EXPECT_TRUE(Diff(*first.settings, *second.settings).empty());
}

TEST(LoaderTest, DiffSaysWhatIsLive) {
  const LoadOutcome a = Load("models: [{name: a}]");
  const LoadOutcome b = Load(
      "log: {level: error}\nengine: {threads: 2}\n"
      "models: [{name: a, defaults: {top_k: 5}}, {name: b}]");
  const std::vector<Change> changes = Diff(*a.settings, *b.settings);
  ASSERT_EQ(changes.size(), 4u);
  EXPECT_EQ(changes[0].field, "engine.threads");
  EXPECT_EQ(changes[0].before, "auto");
  EXPECT_EQ(changes[0].after, "2");
  EXPECT_EQ(changes[0].reload, Reload::kRestart);
  EXPECT_EQ(changes[1].field, "models");
  EXPECT_EQ(changes[1].reload, Reload::kRestart);
  EXPECT_EQ(changes[2].field, "models[0].defaults.top_k");
  EXPECT_EQ(changes[2].reload, Reload::kLive);
  EXPECT_EQ(changes[3].field, "log.level");
  EXPECT_EQ(changes[3].reload, Reload::kLive);
}

TEST(LoaderTest, ReferenceListsEverySetting) {
  const std::string page = SettingsReference();
  for (const char* row :
       {"| `engine.threads` | integer: 1 to 1024, or `auto` | `auto` | restart |",
        "| `limits.stop.bytes` | size: 1B to 64KiB | `256B` | live |",
        "| `models[].defaults.top_p` | number: 1e-06 to 1 | unset | live |",
        "| `log.level` | choice: debug, info, warning, error | `info` | live |"}) {
    EXPECT_TRUE(absl::StrContains(page, row)) << row << "\n" << page;
  }
}

TEST(LoaderTest, ReadsFilesByTheirName) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / absl::StrCat("tessera_loader_", getpid());
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "c.json") << R"({"server": {"name": "j"}})";
  std::ofstream(folder / "c.yaml") << "server: {name: y}\n";
  EXPECT_EQ(LoadSettings(folder / "c.json", {}).settings->server.name, "j");
  EXPECT_EQ(LoadSettings(folder / "c.yaml", {}).settings->server.name, "y");
  const LoadOutcome missing = LoadSettings(folder / "none.yaml", {});
  ASSERT_EQ(missing.problems.size(), 1u);
  EXPECT_TRUE(absl::StrContains(missing.problems[0].Text(), "there is no such file"));
  EXPECT_FALSE(LoadSettings(folder, {}).ok());
  std::ofstream(folder / "big.yaml") << std::string(kMaxTextBytes + 1, ' ');
  EXPECT_EQ(ReadSettingsFile(folder / "big.yaml").status().code(),
            absl::StatusCode::kInvalidArgument);
  std::filesystem::remove_all(folder);
}

TEST(LoaderTest, ProblemsAreBounded) {
  std::string text;
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&text, "key", i, ": 1\n");
  EXPECT_EQ(Load(text).problems.size(), kMaxProblems);
}

TEST(LoaderTest, EnvironmentOverridesComeFromTheProcess) {
  setenv("TESSERA_LIMITS__N", "3", 1);
  const auto found = EnvironmentOverrides();
  unsetenv("TESSERA_LIMITS__N");
  EXPECT_NE(std::find(found.begin(), found.end(),
                      std::make_pair(std::string("TESSERA_LIMITS__N"), std::string("3"))),
            found.end());
}

}  // namespace
}  // namespace tessera
