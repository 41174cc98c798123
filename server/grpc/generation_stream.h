// One server stream of generation. Only for sources that see gRPC.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <mutex>
#include <utility>

#include "server/core/frontend.h"
#include "server/grpc/response_translator.h"
#include "server/grpc/status_translator.h"

namespace tessera::server {

// Has at most one write under way, and takes output only between writes: while a reader is slow,
// output gathers in the mailbox, whose bound the engine watches. Lives until OnDone.
template <typename Response>
class GenerationStream final : public grpc::ServerWriteReactor<Response>,
                               public EventSink,
                               public std::enable_shared_from_this<GenerationStream<Response>> {
 public:
  // A stream that fails at once.
  static grpc::ServerWriteReactor<Response>* Refuse(const Status& status,
                                                    const std::string& request_id) {
    auto stream = std::make_shared<GenerationStream>();
    stream->self_ = stream;
    const std::lock_guard lock(stream->mutex_);
    stream->Close(ToGrpc(status, request_id));
    return stream.get();
  }

  static grpc::ServerWriteReactor<Response>* Begin(Frontend* frontend, GenerationSpec spec) {
    const std::string request_id = spec.request_id;
    auto stream = std::make_shared<GenerationStream>();
    stream->self_ = stream;
    StatusOr<std::shared_ptr<RequestHandle>> handle =
        frontend->Start(std::move(spec), stream->weak_from_this());
    const std::lock_guard lock(stream->mutex_);
    if (!handle.ok()) {
      stream->Close(ToGrpc(handle.status(), request_id));
    } else if (stream->cancelled_) {
      (*handle)->Cancel();
    } else {
      stream->handle_ = std::move(*handle);
    }
    return stream.get();
  }

  void OnReady(const std::shared_ptr<RequestHandle>& handle) override {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return;
    handle_ = handle;
    Pump();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    messages_.pop_front();
    if (!ok) Drop();
    if (cancelled_) {
      Close(grpc::Status::CANCELLED);
      return;
    }
    Pump();
  }

  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    Drop();
    // A write under way fails now, and closes.
    if (!writing_) Close(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    const std::shared_ptr<GenerationStream> self = std::move(self_);
    const std::lock_guard lock(mutex_);
    Drop();
  }

 private:
  void Drop() {
    cancelled_ = true;
    if (handle_) handle_->Cancel();
  }

  void Close(grpc::Status status) {
    if (closed_) return;
    closed_ = true;
    this->Finish(std::move(status));
  }

  void Pump() {
    if (writing_ || closed_) return;
    OutputBatch batch;
    while (messages_.empty() && !ended_) {
      if (!handle_->Take(batch)) return;
      ended_ = batch.ends();
      if (batch.error) end_ = ToGrpc(*batch.error, handle_->request_id());
      AppendMessages(std::move(batch), &seq_, &messages_);
    }
    if (messages_.empty()) {
      Close(std::move(end_));
      return;
    }
    writing_ = true;
    this->StartWrite(&messages_.front());
  }

  std::mutex mutex_;
  std::shared_ptr<GenerationStream> self_;
  std::shared_ptr<RequestHandle> handle_;
  std::deque<Response> messages_;  // the first is being written
  uint64_t seq_ = 0;
  grpc::Status end_;
  bool writing_ = false;
  bool ended_ = false;
  bool cancelled_ = false;
  bool closed_ = false;
};

}  // namespace tessera::server
