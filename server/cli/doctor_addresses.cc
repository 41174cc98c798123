// Checks of the addresses that a daemon would listen on.
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/cli/doctor_checks.h"
#include "server/http/host_port.h"

namespace tessera::server::cli {
namespace {

constexpr char kUnix[] = "unix:";

// Whether somebody answers on a Unix socket; nothing when the path is too long for one.
std::optional<bool> Answers(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return std::nullopt;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const bool answers =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return answers;
}

// The error of binding the address, 0 when it is free; the socket is closed again.
int BindError(const HostPort& address, std::string* why) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code =
      getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found);
  if (code != 0) {
    *why = gai_strerror(code);
    return EADDRNOTAVAIL;
  }
  int error = 0;
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  if (fd < 0) {
    error = errno;
  } else {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1) != 0) error = errno;
    close(fd);
  }
  freeaddrinfo(found);
  *why = std::strerror(error);
  return error;
}

Finding CheckSocket(const std::string& field, const std::string& path) {
  const std::optional<bool> answers = Answers(path);
  if (!answers) {
    return {Verdict::kFailure, "addresses",
            absl::StrCat(field, ": ", path, " is longer than a socket's path may be"),
            absl::StrCat("set ", field, " to unix:PATH with at most 107 bytes")};
  }
  if (*answers) {
    return {Verdict::kWarning, "addresses", absl::StrCat(field, ": a daemon answers on ", path),
            "that is fine unless you mean to start another one; see tessera ps"};
  }
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (access(folder.empty() ? "." : folder.c_str(), W_OK) != 0) {
    return {Verdict::kFailure, "addresses",
            absl::StrCat(field, ": ", folder.string(), ": ", std::strerror(errno)),
            absl::StrCat("set ", field, " to unix:PATH in a folder that may be written")};
  }
  return {Verdict::kGood, "addresses", absl::StrCat(field, ": unix:", path, " is free"), ""};
}

Finding CheckPort(const std::string& field, const std::string& text, bool daemon_runs) {
  const StatusOr<HostPort> address = ParseHostPort(text);
  if (!address.ok()) {
    return {Verdict::kFailure, "addresses", absl::StrCat(field, ": ", address.status().message()),
            "give HOST:PORT"};
  }
  std::string why;
  const int error = BindError(*address, &why);
  if (error == 0) {
    return {Verdict::kGood, "addresses", absl::StrCat(field, ": ", text, " is free"), ""};
  }
  if (error == EADDRINUSE && daemon_runs) {
    return {Verdict::kWarning, "addresses",
            absl::StrCat(field, ": ", text, " is in use while a daemon runs on this zoo"),
            "that is fine if it is that daemon's"};
  }
  const std::string fix =
      error == EADDRINUSE
          ? absl::StrCat("end what listens there (ss -ltnp), or set ", field, " to another port")
          : absl::StrCat("set ", field, " to an address of this machine, such as 127.0.0.1");
  return {Verdict::kFailure, "addresses", absl::StrCat(field, ": ", text, ": ", why), fix};
}

}  // namespace

std::vector<Finding> CheckAddresses(const Settings& settings) {
  const ListenSettings& listen = settings.listen;
  std::string admin(absl::StripPrefix(listen.admin.address, kUnix));
  if (admin.empty()) admin = absl::StrCat(settings.store.root, "/admin.sock");
  std::vector<Finding> findings = {CheckSocket("listen.admin.address", admin)};
  const bool daemon_runs = Answers(admin).value_or(false);
  const std::pair<const char*, const std::string*> ports[] = {
      {"listen.grpc.address", &listen.grpc.address},
      {"listen.http.address", &listen.http.address},
      {"listen.metrics.address", &listen.metrics.address}};
  for (const auto& [field, text] : ports) {
    if (text->empty()) continue;
    findings.push_back(absl::StartsWith(*text, kUnix)
                           ? CheckSocket(field, std::string(absl::StripPrefix(*text, kUnix)))
                           : CheckPort(field, *text, daemon_runs));
  }
  return findings;
}

}  // namespace tessera::server::cli
