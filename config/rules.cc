#include "config/rules.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"

namespace tessera {
namespace {

constexpr absl::string_view kUnix = "unix:";

struct HostPort {
  std::string host;
  int port = 0;
};

// "HOST:PORT" or "[V6]:PORT"; nothing if it is neither.
std::optional<HostPort> SplitAddress(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos || colon == 0) return std::nullopt;
  HostPort parts;
  absl::string_view host = address.substr(0, colon);
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
  } else if (absl::StrContains(host, ":")) {
    return std::nullopt;
  }
  const absl::string_view port = address.substr(colon + 1);
  if (host.empty() || port.empty() ||
      port.find_first_not_of("0123456789") != absl::string_view::npos ||
      !absl::SimpleAtoi(port, &parts.port) || parts.port > 65535) {
    return std::nullopt;
  }
  parts.host = std::string(host);
  return parts;
}

bool IsLoopback(absl::string_view host) {
  return host == "localhost" || host == "::1" || absl::StartsWith(host, "127.");
}

// The network listeners: their fields and addresses.
std::vector<std::pair<std::string, std::string>> Listeners(const Settings& settings) {
  return {{"listen.grpc.address", settings.listen.grpc.address},
          {"listen.http.address", settings.listen.http.address},
          {"listen.metrics.address", settings.listen.metrics.address}};
}

void AddressesAreWellFormed(const Settings& settings, const RuleReport& report) {
  for (const auto& [field, address] : Listeners(settings)) {
    const bool is_grpc = field == "listen.grpc.address";
    if (address.empty()) {
      if (is_grpc) report(field, "must not be empty", "give HOST:PORT or unix:PATH");
      continue;
    }
    if (is_grpc && absl::StartsWith(address, kUnix) && address.size() > kUnix.size()) continue;
    if (!SplitAddress(address)) {
      report(field, absl::StrCat("must be HOST:PORT, not ", Quoted(address)),
             "such as 127.0.0.1:8080 or [::1]:8080");
    }
  }
}

void AdminAddressIsLocal(const Settings& settings, const RuleReport& report) {
  const std::string& address = settings.listen.admin.address;
  if (address.empty()) return;
  // The kernel's bound for a socket's path, with its closing zero byte.
  constexpr size_t kMaxSocketPath = 107;
  if (!absl::StartsWith(address, kUnix) || address.size() == kUnix.size()) {
    report("listen.admin.address", absl::StrCat("must be unix:PATH, not ", Quoted(address)),
           "administration is never on a network port");
  } else if (address.size() - kUnix.size() > kMaxSocketPath) {
    report("listen.admin.address",
           absl::StrCat("has a path longer than ", kMaxSocketPath, " bytes"),
           "choose a shorter one");
  }
}

void AddressesDiffer(const Settings& settings, const RuleReport& report) {
  std::map<std::string, std::string> taken;
  for (const auto& [field, address] : Listeners(settings)) {
    const std::optional<HostPort> parts = SplitAddress(address);
    // Port 0 asks the system for a free one.
    if (!parts || parts->port == 0) continue;
    const auto [at, is_new] = taken.emplace(address, field);
    if (!is_new) report(field, absl::StrCat("is the same address as ", at->second), "");
  }
}

void PublicAddressesAreMeant(const Settings& settings, const RuleReport& report) {
  if (settings.listen.insecure_public) return;
  for (const auto& [field, address] : Listeners(settings)) {
    const std::optional<HostPort> parts = SplitAddress(address);
    if (absl::StartsWith(address, kUnix) || !parts || IsLoopback(parts->host)) continue;
    report(field,
           absl::StrCat("can be reached by other machines, and callers are not authenticated"),
           "use 127.0.0.1, or set listen.insecure_public: true if the network is trusted");
  }
}

void VersionIsSupported(const Settings& settings, const RuleReport& report) {
  if (settings.version <= kSettingsVersion) return;
  report("version",
         absl::StrCat(settings.version, " is newer than this program understands (",
                      kSettingsVersion, ")"),
         "install a newer release, or write the settings for this one");
}

void StepHoldsAllRunning(const Settings& settings, const RuleReport& report) {
  if (settings.engine.max_batch_tokens == 0) return;
  if (settings.engine.max_running <= settings.engine.max_batch_tokens) return;
  report("engine.max_running",
         absl::StrCat("must not exceed engine.max_batch_tokens (", settings.engine.max_batch_tokens,
                      "): a step needs a token for each running sequence"),
         absl::StrCat("set engine.max_batch_tokens to ", settings.engine.max_running, " or more"));
}

void WaitEndsBeforeRequest(const Settings& settings, const RuleReport& report) {
  if (settings.admission.max_wait <= settings.limits.max_request_time) return;
  report("admission.max_wait",
         absl::StrCat("must not exceed limits.max_request_time (",
                      FormatValue(settings.limits.max_request_time), ")"),
         "lower the one or raise the other");
}

void KeepaliveTimeoutIsShorter(const Settings& settings, const RuleReport& report) {
  const KeepaliveSettings& keepalive = settings.listen.grpc.keepalive;
  if (keepalive.timeout <= keepalive.time) return;
  report("listen.grpc.keepalive.timeout",
         absl::StrCat("must not exceed listen.grpc.keepalive.time (", FormatValue(keepalive.time),
                      ")"),
         "");
}

void StoreHasRoot(const Settings& settings, const RuleReport& report) {
  if (settings.store.root.empty())
    report("store.root", "must not be empty", "name the zoo's folder");
}

void ModelsAreNamedOnce(const Settings& settings, const RuleReport& report) {
  std::map<std::string, size_t> seen;
  for (size_t i = 0; i < settings.models.size(); ++i) {
    const std::string& name = settings.models[i].name;
    const std::string path = absl::StrCat("models[", i, "]");
    if (name.empty()) {
      report(path, "has no name", "add `name: ...`");
      continue;
    }
    const auto [at, is_new] = seen.emplace(name, i);
    if (is_new) continue;
    report(path + ".name",
           absl::StrCat(Quoted(name), " is also the name of models[", at->second, "]"),
           "give each model a name of its own");
  }
}

void ChatTemplatesAreNamed(const Settings& settings, const RuleReport& report) {
  for (size_t i = 0; i < settings.models.size(); ++i) {
    const std::string& value = settings.models[i].chat_template;
    if (value == "artifact" || value == "none" || absl::StrContains(value, "/")) continue;
    report(absl::StrCat("models[", i, "].chat_template"),
           absl::StrCat("must be artifact, none or a path, not ", Quoted(value)),
           "write a path with a slash, such as ./chat.jinja");
  }
}

constexpr SettingsRule kRules[] = {
    {"VersionIsSupported", VersionIsSupported},
    {"AddressesAreWellFormed", AddressesAreWellFormed},
    {"AdminAddressIsLocal", AdminAddressIsLocal},
    {"AddressesDiffer", AddressesDiffer},
    {"PublicAddressesAreMeant", PublicAddressesAreMeant},
    {"KeepaliveTimeoutIsShorter", KeepaliveTimeoutIsShorter},
    {"StepHoldsAllRunning", StepHoldsAllRunning},
    {"WaitEndsBeforeRequest", WaitEndsBeforeRequest},
    {"StoreHasRoot", StoreHasRoot},
    {"ModelsAreNamedOnce", ModelsAreNamedOnce},
    {"ChatTemplatesAreNamed", ChatTemplatesAreNamed},
};

}  // namespace

std::span<const SettingsRule> SettingsRules() { return kRules; }

}  // namespace tessera
