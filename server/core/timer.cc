#include "server/core/timer.h"

namespace tessera::server {

Timer::Timer() : thread_([this] { Run(); }) {}

Timer::~Timer() { Stop(); }

void Timer::Stop() {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  calls_.clear();
  times_.clear();
}

Timer::Ticket Timer::At(TimePoint at, std::function<void()> call) {
  Ticket ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return 0;
    ticket = next_++;
    times_.emplace(ticket, at);
    calls_.emplace(std::pair(at, ticket), std::move(call));
  }
  changed_.notify_all();
  return ticket;
}

void Timer::Cancel(Ticket ticket) {
  std::function<void()> dropped;  // destroyed outside the lock: it may own much
  const std::lock_guard lock(mutex_);
  const auto time = times_.find(ticket);
  if (time == times_.end()) return;
  const auto call = calls_.find({time->second, ticket});
  dropped = std::move(call->second);
  calls_.erase(call);
  times_.erase(time);
}

void Timer::Run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (calls_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const auto first = calls_.begin();
    const TimePoint at = first->first.first;
    if (std::chrono::steady_clock::now() < at) {
      changed_.wait_until(lock, at);
      continue;
    }
    const std::function<void()> call = std::move(first->second);
    times_.erase(first->first.second);
    calls_.erase(first);
    lock.unlock();
    call();
    lock.lock();
  }
}

}  // namespace tessera::server
