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

void WorkPool::Post(std::function<void()> job) {
  bool wake = false;
  bool run_here = false;
  {
    const std::lock_guard lock(mutex_);
    run_here = stopping_;
    if (!run_here) jobs_.push_back(std::move(job));
    wake = idle_ > 0;
  }
  if (run_here) {
    job();
  } else if (wake) {
    ready_.notify_one();
  }
}

bool WorkPool::Offer(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || jobs_.size() >= options_.max_offered) return false;
    jobs_.push_back(std::move(job));
  }
  ready_.notify_one();
  return true;
}

void WorkPool::Run() {
  while (true) {
    std::function<void()> job;
    {
      std::unique_lock lock(mutex_);
      ++idle_;
      ready_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      --idle_;
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace tessera::server
