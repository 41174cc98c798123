// A unary call that runs several requests and answers when all have ended. Only for sources that
// see gRPC.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "server/core/batch.h"
#include "server/grpc/status_translator.h"

namespace tessera::server {

// Lives until OnDone.
class BatchCall final : public grpc::ServerUnaryReactor,
                        public std::enable_shared_from_this<BatchCall> {
 public:
  // Gets all outputs in the order of the specs; fills the response and returns the call's status.
  using Complete = std::function<Status(std::vector<CollectedOutput>)>;

  static grpc::ServerUnaryReactor* Begin(Frontend* frontend, std::vector<GenerationSpec> specs,
                                         Batch::Failure failure, Batch::Order order,
                                         Complete complete) {
    auto call = std::make_shared<BatchCall>();
    call->self_ = call;
    call->complete_ = std::move(complete);
    std::shared_ptr<Batch> batch =
        Batch::Start(frontend, std::move(specs), failure, order,
                     [weak = std::weak_ptr<BatchCall>(call)](std::vector<CollectedOutput> outputs) {
                       if (const auto self = weak.lock()) self->FinishWith(std::move(outputs));
                     });
    const std::lock_guard lock(call->mutex_);
    if (call->closed_) {
      batch->Cancel();
    } else {
      call->batch_ = std::move(batch);
    }
    return call.get();
  }

  void OnCancel() override {
    std::shared_ptr<Batch> batch;
    {
      const std::lock_guard lock(mutex_);
      batch.swap(batch_);
      if (closed_) return;
      closed_ = true;
      Finish(grpc::Status::CANCELLED);
    }
    if (batch) batch->Cancel();
  }

  void OnDone() override { const std::shared_ptr<BatchCall> self = std::move(self_); }

 private:
  void FinishWith(std::vector<CollectedOutput> outputs) {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
    closed_ = true;
    Finish(ToGrpc(complete_(std::move(outputs)), ""));
  }

  std::mutex mutex_;
  std::shared_ptr<BatchCall> self_;
  Complete complete_;
  std::shared_ptr<Batch> batch_;
  bool closed_ = false;
};

}  // namespace tessera::server
