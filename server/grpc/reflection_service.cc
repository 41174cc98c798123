#include "server/grpc/reflection_service.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/support/server_callback.h>

#include <set>
#include <utility>

#include "grpc/reflection/v1/reflection.grpc.pb.h"

namespace tessera::server {
namespace {

namespace wire = grpc::reflection::v1;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

void NotFound(wire::ServerReflectionResponse* response) {
  response->mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
  response->mutable_error_response()->set_error_message("there is no such name");
}

// The file and all it needs, each once.
void AddFiles(const FileDescriptor* file, std::set<const FileDescriptor*>* seen,
              wire::FileDescriptorResponse* response) {
  if (!seen->insert(file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  response->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) AddFiles(file->dependency(i), seen, response);
}

void AnswerFile(const FileDescriptor* file, wire::ServerReflectionResponse* response) {
  if (file == nullptr) {
    NotFound(response);
    return;
  }
  std::set<const FileDescriptor*> seen;
  AddFiles(file, &seen, response->mutable_file_descriptor_response());
}

void Answer(const wire::ServerReflectionRequest& request, const std::vector<std::string>& services,
            wire::ServerReflectionResponse* response) {
  const DescriptorPool* pool = DescriptorPool::generated_pool();
  response->set_valid_host(request.host());
  *response->mutable_original_request() = request;
  switch (request.message_request_case()) {
    case wire::ServerReflectionRequest::kFileByFilename:
      AnswerFile(pool->FindFileByName(request.file_by_filename()), response);
      return;
    case wire::ServerReflectionRequest::kFileContainingSymbol:
      AnswerFile(pool->FindFileContainingSymbol(request.file_containing_symbol()), response);
      return;
    case wire::ServerReflectionRequest::kListServices:
      for (const std::string& name : services) {
        response->mutable_list_services_response()->add_service()->set_name(name);
      }
      return;
    case wire::ServerReflectionRequest::kAllExtensionNumbersOfType:
      // proto3 has no extensions, so a known type has none.
      if (pool->FindMessageTypeByName(request.all_extension_numbers_of_type()) == nullptr) {
        NotFound(response);
      } else {
        response->mutable_all_extension_numbers_response()->set_base_type_name(
            request.all_extension_numbers_of_type());
      }
      return;
    case wire::ServerReflectionRequest::kFileContainingExtension:
    case wire::ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      NotFound(response);
  }
}

class Stream final : public grpc::ServerBidiReactor<wire::ServerReflectionRequest,
                                                    wire::ServerReflectionResponse> {
 public:
  explicit Stream(const std::vector<std::string>* services) : services_(services) {
    StartRead(&request_);
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::OK);
      return;
    }
    response_.Clear();
    Answer(request_, *services_, &response_);
    StartWrite(&response_);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    StartRead(&request_);
  }
  void OnDone() override { delete this; }

 private:
  const std::vector<std::string>* const services_;
  wire::ServerReflectionRequest request_;
  wire::ServerReflectionResponse response_;
};

class ReflectionService final : public wire::ServerReflection::CallbackService {
 public:
  explicit ReflectionService(std::vector<std::string> services) : services_(std::move(services)) {}
  grpc::ServerBidiReactor<wire::ServerReflectionRequest, wire::ServerReflectionResponse>*
  ServerReflectionInfo(grpc::CallbackServerContext*) override {
    return new Stream(&services_);
  }

 private:
  const std::vector<std::string> services_;
};

}  // namespace

std::shared_ptr<grpc::Service> MakeReflectionService(std::vector<std::string> services) {
  return std::make_shared<ReflectionService>(std::move(services));
}

}  // namespace tessera::server
