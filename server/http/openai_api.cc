#include "server/http/openai_api.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "config/foundation/log.h"
#include "config/foundation/text.h"
#include "server/http/openai_embeddings.h"
#include "server/http/openai_error.h"
#include "server/http/openai_generation.h"
#include "server/http/openai_request.h"
#include "server/http/openai_text.h"

namespace tessera::server {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr size_t kMaxRequestIdBytes = 96;
constexpr absl::string_view kModelPrefix = "/v1/models/";

// A client's id is taken over when it can go into a header and a log as it is.
bool IsGoodRequestId(absl::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

// Without a type it can only be meant as JSON, unless a browser sends it for a foreign page.
bool IsJsonType(const HttpRequest& request) {
  const absl::string_view type = request.Header("content-type");
  if (type.empty()) return request.Header("origin").empty();
  const std::string media = absl::AsciiStrToLower(
      absl::StripAsciiWhitespace(type.substr(0, std::min(type.find(';'), type.size()))));
  return media == "application/json" ||
         (absl::StartsWith(media, "application/") && absl::EndsWith(media, "+json"));
}

// "%2F" to "/"; what is no escape stays.
std::string DecodePercent(absl::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t byte = 0;
    if (text[i] == '%' && i + 2 < text.size() && absl::ascii_isxdigit(text[i + 1]) &&
        absl::ascii_isxdigit(text[i + 2]) && absl::SimpleHexAtoi(text.substr(i + 1, 2), &byte)) {
      decoded.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      decoded.push_back(text[i]);
    }
  }
  return decoded;
}

class Api {
 public:
  Api(Frontend* frontend, SettingsStore* settings)
      : frontend_(frontend), settings_(settings), started_(SystemClock().UnixSeconds()) {
    std::random_device device;
    random_.seed((static_cast<uint64_t>(device()) << 32) | device());
  }

  void Handle(const std::shared_ptr<Exchange>& exchange) {
    const HttpRequest& request = exchange->request();
    const std::string unique = absl::StrCat(absl::Hex(Random(), absl::kZeroPad16));
    const absl::string_view wanted = request.Header("x-request-id");
    Call call{exchange, IsGoodRequestId(wanted) ? std::string(wanted) : "req-" + unique,
              IsGoodRequestId(wanted) ? std::string(wanted) : unique};
    const std::string path(request.path());
    if (path == "/v1/models" || absl::StartsWith(path, kModelPrefix)) {
      if (request.method != "GET" && request.method != "HEAD") return RefuseMethod(call, "GET");
      return path == "/v1/models" ? ListModels(call) : ShowModel(call, path);
    }
    for (const Route& route : kRoutes) {
      if (path != route.path) continue;
      if (request.method != "POST") return RefuseMethod(call, "POST");
      if (!IsJsonType(request)) {
        return Respond(call, OpenAiRefusal(415, "unsupported_media_type",
                                           "the content-type must be application/json"));
      }
      return (this->*route.serve)(call);
    }
    Respond(call,
            OpenAiRefusal(
                404, "not_found",
                absl::StrCat("there is no ", Quoted(path),
                             " here; there are /v1/models, /v1/completions, "
                             "/v1/chat/completions, /v1/embeddings, /tokenize, /detokenize and "
                             "/health")));
  }

 private:
  struct Call {
    std::shared_ptr<Exchange> exchange;
    std::string request_id;
    std::string unique;  // part of the answer's id
  };
  struct Route {
    absl::string_view path;
    void (Api::*serve)(const Call& call);
  };
  static const Route kRoutes[5];

  uint64_t Random() {
    const std::lock_guard lock(mutex_);
    return random_();
  }

  static void Respond(const Call& call, HttpResponse response) {
    response.headers.emplace_back("x-request-id", call.request_id);
    call.exchange->Respond(std::move(response));
  }

  static void RefuseMethod(const Call& call, const std::string& allowed) {
    HttpResponse response =
        OpenAiRefusal(405, "method_not_allowed",
                      absl::StrCat(call.exchange->request().path(), " takes ", allowed, " only"));
    response.headers.emplace_back("allow", allowed);
    Respond(call, std::move(response));
  }

  [[nodiscard]] OrderedJson ModelJson(const ModelInfo& info) const {
    return {{"id", info.name},
            {"object", "model"},
            {"created", info.model ? info.model->loaded_unix_seconds : started_},
            {"owned_by", "tessera"},
            {"root", info.name},
            {"parent", nullptr},
            {"max_model_len", info.model ? info.model->max_context : info.summary.max_context}};
  }

  void ListModels(const Call& call) {
    OrderedJson data = OrderedJson::array();
    for (const ModelInfo& info : frontend_->registry().List()) data.push_back(ModelJson(info));
    const OrderedJson body = {{"object", "list"}, {"data", std::move(data)}};
    Respond(call, OpenAiJson(body.dump(-1, ' ', false, OrderedJson::error_handler_t::replace)));
  }

  void ShowModel(const Call& call, const std::string& path) {
    const std::string name = DecodePercent(absl::string_view(path).substr(kModelPrefix.size()));
    for (const ModelInfo& info : frontend_->registry().List()) {
      if (info.name != name) continue;
      return Respond(call, OpenAiJson(ModelJson(info).dump(-1, ' ', false,
                                                           OrderedJson::error_handler_t::replace)));
    }
    Respond(call, OpenAiErrorResponse(ModelNotFound(name), OpenAiEndpoint::kCompletions));
  }

  void Complete(const Call& call) { Generate(call, OpenAiEndpoint::kCompletions, "cmpl-"); }
  void Chat(const Call& call) { Generate(call, OpenAiEndpoint::kChat, "chatcmpl-"); }

  void Generate(const Call& call, OpenAiEndpoint endpoint, const char* prefix) {
    StatusOr<OpenAiRequest> request = ParseOpenAiRequest(endpoint, call.exchange->request().body,
                                                         LimitsOf(settings_->Current()->limits));
    if (!request.ok()) return Respond(call, OpenAiErrorResponse(request.status(), endpoint));
    if (request->unknown_fields > 0) {
      LogInfo("fields_ignored",
              {{"request", call.request_id}, {"warnings", request->unknown_fields}});
    }
    ServeGeneration(frontend_, call.exchange, std::move(*request), call.request_id,
                    prefix + call.unique);
  }

  void Embed(const Call& call) {
    ServeEmbeddings(frontend_, *settings_, call.exchange, call.request_id);
  }
  void Tokenize(const Call& call) {
    ServeTokenize(frontend_, *settings_, call.exchange, call.request_id);
  }
  void Detokenize(const Call& call) {
    ServeDetokenize(frontend_, *settings_, call.exchange, call.request_id);
  }

  Frontend* const frontend_;
  SettingsStore* const settings_;
  const int64_t started_;
  std::mutex mutex_;
  std::mt19937_64 random_;  // guarded by mutex_
};

const Api::Route Api::kRoutes[5] = {{"/v1/completions", &Api::Complete},
                                    {"/v1/chat/completions", &Api::Chat},
                                    {"/v1/embeddings", &Api::Embed},
                                    {"/tokenize", &Api::Tokenize},
                                    {"/detokenize", &Api::Detokenize}};

}  // namespace

HttpServer::Handler MakeOpenAiApi(Frontend* frontend, SettingsStore* settings) {
  auto api = std::make_shared<Api>(frontend, settings);
  return [api](const std::shared_ptr<Exchange>& exchange) { api->Handle(exchange); };
}

}  // namespace tessera::server
