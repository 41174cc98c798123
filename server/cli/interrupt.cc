#include "server/cli/interrupt.h"

#include <csignal>
#include <ctime>
#include <utility>

namespace tessera::server::cli {
namespace {

sigset_t InterruptSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

InterruptWatcher::InterruptWatcher(std::function<void()> on_interrupt)
    : on_interrupt_(std::move(on_interrupt)) {
  const sigset_t set = InterruptSet();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] {
    const sigset_t waited = InterruptSet();
    const timespec poll{.tv_sec = 0, .tv_nsec = 50'000'000};
    while (!stopping_.load()) {
      if (sigtimedwait(&waited, nullptr, &poll) == SIGINT) {
        on_interrupt_();
      }
    }
  });
}

InterruptWatcher::~InterruptWatcher() {
  stopping_.store(true);
  thread_.join();
  const sigset_t set = InterruptSet();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace tessera::server::cli
