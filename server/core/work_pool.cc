#include "server/core/work_pool.h"

#include <utility>

namespace tessera::server {

WorkPool::WorkPool(const Options& options) : options_(options) {
  for (size_t i = 0; i < options.threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkPool::~WorkPool() { Stop(); }

void WorkPool::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void WorkPool::Post(std::function<void()> job) { PostAll({&job, 1}); }

void WorkPool::PostAll(std::span<std::function<void()>> jobs) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      for (std::function<void()>& job : jobs) jobs_.push_back(std::move(job));
      wake = TakeWake();
      jobs = {};
    }
  }
  for (const std::function<void()>& job : jobs) job();
  if (wake) ready_.notify_one();
}

bool WorkPool::Offer(std::function<void()> job) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || jobs_.size() >= options_.max_offered) return false;
    jobs_.push_back(std::move(job));
    wake = TakeWake();
  }
  if (wake) ready_.notify_one();
  return true;
}

// One thread is woken at a time, and wakes the next when it finds more than it takes: whoever posts
// many jobs at once pays for one wake.
bool WorkPool::TakeWake() {
  if (jobs_.empty() || idle_ == 0 || waking_) return false;
  waking_ = true;
  return true;
}

void WorkPool::Run() {
  while (true) {
    std::function<void()> job;
    bool wake = false;
    {
      std::unique_lock lock(mutex_);
      while (!stopping_ && jobs_.empty()) {
        ++idle_;
        ready_.wait(lock);
        --idle_;
        waking_ = false;
      }
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      wake = TakeWake();
    }
    if (wake) ready_.notify_one();
    job();
  }
}

}  // namespace tessera::server
