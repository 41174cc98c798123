// A unary call that runs several requests and answers when all have ended. Only for sources that
// see gRPC.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "server/core/collector.h"
#include "server/grpc/status_translator.h"

namespace tessera::server {

// Lives until OnDone.
class BatchCall final : public grpc::ServerUnaryReactor,
                        public std::enable_shared_from_this<BatchCall> {
 public:
  // Gets all outputs in the order of the specs; fills the response and returns the call's status.
  using Complete = std::function<Status(std::vector<CollectedOutput>)>;

  static grpc::ServerUnaryReactor* Begin(Frontend* frontend, std::vector<GenerationSpec> specs,
                                         Complete complete) {
    auto call = std::make_shared<BatchCall>();
    call->self_ = call;
    call->complete_ = std::move(complete);
    call->outputs_.resize(specs.size());
    call->open_ = specs.size();
    for (size_t i = 0; i < specs.size(); ++i) call->StartOne(frontend, i, std::move(specs[i]));
    if (specs.empty()) call->FinishOne();
    return call.get();
  }

  void OnCancel() override {
    std::vector<std::shared_ptr<RequestHandle>> handles;
    {
      const std::lock_guard lock(mutex_);
      handles.swap(handles_);
      cancelled_ = true;
      if (!closed_) {
        closed_ = true;
        Finish(grpc::Status::CANCELLED);
      }
    }
    for (const auto& handle : handles) handle->Cancel();
  }

  void OnDone() override { const std::shared_ptr<BatchCall> self = std::move(self_); }

 private:
  void StartOne(Frontend* frontend, size_t index, GenerationSpec spec) {
    StatusOr<std::shared_ptr<RequestHandle>> handle = StartCollected(
        *frontend, std::move(spec), [weak = weak_from_this(), index](CollectedOutput output) {
          if (const auto call = weak.lock()) call->OnOutput(index, std::move(output));
        });
    if (!handle.ok()) {
      CollectedOutput output;
      output.error = handle.status();
      OnOutput(index, std::move(output));
      return;
    }
    const std::lock_guard lock(mutex_);
    if (cancelled_) {
      (*handle)->Cancel();
    } else {
      handles_.push_back(std::move(*handle));
    }
  }

  void OnOutput(size_t index, CollectedOutput output) {
    {
      const std::lock_guard lock(mutex_);
      outputs_[index] = std::move(output);
      if (--open_ > 0) return;
    }
    FinishOne();
  }

  void FinishOne() {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    Finish(ToGrpc(complete_(std::move(outputs_)), ""));
  }

  std::mutex mutex_;
  std::shared_ptr<BatchCall> self_;
  Complete complete_;
  std::vector<std::shared_ptr<RequestHandle>> handles_;
  std::vector<CollectedOutput> outputs_;
  size_t open_ = 0;
  bool cancelled_ = false;
  bool closed_ = false;
};

}  // namespace tessera::server
