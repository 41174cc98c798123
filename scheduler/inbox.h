// The bridge from the server to the engine: a bounded queue of submissions and an
// unbounded-by-contract set of small control messages.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "config/foundation/status.h"
#include "scheduler/request.h"
#include "scheduler/stream_mailbox.h"

namespace tessera::scheduler {

struct Submission {
  GenerationRequest request;
  std::shared_ptr<StreamMailbox> mailbox;
};

// Thread-safe. Room for a request is reserved at the first check and held until the request is
// retired, so that what was accepted is never refused later.
class Inbox {
 public:
  struct Limits {
    uint32_t max_requests = 512;           // accepted and not yet running
    uint64_t max_prompt_tokens = 400'000;  // of those requests
  };
  explicit Inbox(const Limits& limits);

  // Live settings.
  void SetLimits(const Limits& limits);

  // Reserves room for a request before it is tokenized: UNAVAILABLE at once when full. Each OK must
  // be followed by one Submit or one CancelReservation.
  [[nodiscard]] Status Reserve();
  void CancelReservation();
  // Uses a reservation. UNAVAILABLE (the reservation is given back) when the waiting prompt tokens
  // would exceed the bound or the inbox is closed; the mailbox then gets nothing.
  [[nodiscard]] Status Submit(Submission submission);

  // The request is no longer wanted: cannot be refused, may be called for ids that are gone.
  void PostRelease(RequestId id);
  // Runs on the engine thread between steps.
  void PostCall(std::function<void()> call);
  // Wakes the engine.
  void Wake();
  // New submissions are refused as UNAVAILABLE; those inside stay.
  void CloseToSubmissions();

  // Engine side. Everything since the last call, by swap.
  struct Batch {
    std::vector<Submission> submissions;
    std::vector<RequestId> releases;
    std::vector<std::function<void()>> calls;
    void Clear();
  };
  void Take(Batch& batch);
  // As Take, but sleeps until there is something or `until`.
  void WaitAndTake(Batch& batch, TimePoint until);
  // A request left the waiting line (it runs, was refused or was released).
  void NoteAdmitted(uint64_t prompt_tokens);

  [[nodiscard]] uint32_t waiting_requests() const;
  [[nodiscard]] uint64_t waiting_prompt_tokens() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable ready_;
  Limits limits_;
  Batch pending_;
  bool woken_ = false;
  bool closed_ = false;
  uint32_t waiting_requests_ = 0;  // reserved, pending or waiting in the engine
  uint64_t waiting_prompt_tokens_ = 0;
};

}  // namespace tessera::scheduler
