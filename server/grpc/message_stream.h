// A server stream that anyone may send into. Only for sources that see gRPC.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

namespace tessera::server {

// Thread-safe. Lives until gRPC is done with it and nobody holds it; what is sent after that is
// dropped. For streams with few messages: nothing bounds what waits.
template <typename Response>
class MessageStream final : public grpc::ServerWriteReactor<Response> {
 public:
  static std::shared_ptr<MessageStream> Make() {
    auto stream = std::make_shared<MessageStream>();
    stream->self_ = stream;
    return stream;
  }

  void Send(Response message) {
    const std::lock_guard lock(mutex_);
    if (end_ || closed_) return;
    messages_.push_back(std::move(message));
    Pump();
  }
  // Closes once all messages are written.
  void End(grpc::Status status) {
    const std::lock_guard lock(mutex_);
    if (end_ || closed_) return;
    end_ = std::move(status);
    Pump();
  }
  [[nodiscard]] bool closed() {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    messages_.pop_front();
    if (!ok) Close(grpc::Status::CANCELLED);
    Pump();
  }
  void OnCancel() override {
    const std::lock_guard lock(mutex_);
    if (writing_) {
      end_ = grpc::Status::CANCELLED;  // the write fails now, and closes
    } else {
      Close(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override { const std::shared_ptr<MessageStream> self = std::move(self_); }

 private:
  void Close(const grpc::Status& status) {
    if (closed_) return;
    closed_ = true;
    this->Finish(status);
  }
  void Pump() {
    if (writing_ || closed_) return;
    if (!messages_.empty()) {
      writing_ = true;
      this->StartWrite(&messages_.front());
    } else if (end_) {
      Close(*end_);
    }
  }

  std::mutex mutex_;
  std::shared_ptr<MessageStream> self_;
  std::deque<Response> messages_;  // the first is being written
  std::optional<grpc::Status> end_;
  bool writing_ = false;
  bool closed_ = false;
};

}  // namespace tessera::server
