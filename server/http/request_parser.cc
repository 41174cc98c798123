#include "server/http/request_parser.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tessera::server {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

// "0", and the empty line after it.
constexpr size_t kShortestLastChunk = 5;

absl::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

// Collects one request. A refusal is kept as Failure, and Beast is told to stop with any error.
class Collector final : public http::basic_parser<true> {
 public:
  explicit Collector(const HttpLimits& limits) : limits_(limits) {
    eager(true);
    header_limit(static_cast<uint32_t>(limits.max_header_bytes));
    body_limit(limits.max_body_bytes);
  }

  HttpRequest request;
  std::optional<RequestParser::Failure> failure;
  bool expects_continue = false;

 private:
  void Refuse(int status, std::string message, beast::error_code& ec) {
    failure = RequestParser::Failure{status, std::move(message)};
    ec = http::error::bad_value;
  }

  void on_request_impl(http::verb, beast::string_view method, beast::string_view target,
                       int version, beast::error_code& ec) override {
    if (target.size() > limits_.max_target_bytes) {
      return Refuse(414,
                    absl::StrCat("the request target has ", target.size(), " bytes, at most ",
                                 limits_.max_target_bytes, " are taken"),
                    ec);
    }
    request.method = std::string(View(method));
    request.target = std::string(View(target));
    request.version = version;
  }

  void on_response_impl(int, beast::string_view, int, beast::error_code&) override {}

  void on_field_impl(http::field field, beast::string_view name, beast::string_view value,
                     beast::error_code& ec) override {
    if (++fields_ > limits_.max_headers) {
      return Refuse(431, absl::StrCat("more than ", limits_.max_headers, " headers"), ec);
    }
    if (body_begun_) {
      return;  // trailers carry nothing that is used here
    }
    has_length_ |= field == http::field::content_length;
    has_transfer_encoding_ |= field == http::field::transfer_encoding;
    hosts_ += field == http::field::host ? 1 : 0;
    if (field == http::field::expect) {
      expects_continue = absl::EqualsIgnoreCase(View(value), "100-continue");
    }
    request.headers.emplace_back(absl::AsciiStrToLower(View(name)), std::string(View(value)));
  }

  void on_header_impl(beast::error_code& ec) override {
    if (has_length_ && has_transfer_encoding_) {
      return Refuse(400, "content-length and transfer-encoding together are ambiguous", ec);
    }
    if (has_transfer_encoding_ && !chunked()) {
      return Refuse(400, "the only transfer-encoding taken is chunked", ec);
    }
    if (hosts_ > 1 || (hosts_ == 0 && request.version >= 11)) {
      return Refuse(400, "exactly one host header is required", ec);
    }
    if (request.version != 11 && request.version != 10) {
      return Refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken here", ec);
    }
    request.connection =
        keep_alive() ? HttpRequest::Connection::kKeepAlive : HttpRequest::Connection::kClose;
  }

  void on_body_init_impl(const boost::optional<std::uint64_t>&, beast::error_code&) override {
    body_begun_ = true;
  }

  size_t Append(beast::string_view bytes, beast::error_code& ec) {
    expects_continue &= bytes.empty();  // the body comes anyway
    if (bytes.size() > limits_.max_body_bytes - request.body.size()) {
      ec = http::error::body_limit;
      return 0;
    }
    request.body.append(bytes.data(), bytes.size());
    return bytes.size();
  }

  size_t on_body_impl(beast::string_view body, beast::error_code& ec) override {
    return Append(body, ec);
  }
  void on_chunk_header_impl(std::uint64_t, beast::string_view, beast::error_code&) override {}
  size_t on_chunk_body_impl(std::uint64_t, beast::string_view body,
                            beast::error_code& ec) override {
    return Append(body, ec);
  }
  void on_finish_impl(beast::error_code&) override { expects_continue = false; }

  const HttpLimits& limits_;
  size_t fields_ = 0;
  int hosts_ = 0;
  bool has_length_ = false;
  bool has_transfer_encoding_ = false;
  bool body_begun_ = false;
};

RequestParser::Failure FailureOf(const beast::error_code& ec, const HttpLimits& limits) {
  if (ec == http::error::body_limit) {
    return {413, absl::StrCat("the body exceeds ", limits.max_body_bytes, " bytes")};
  }
  if (ec == http::error::header_limit) {
    return {431, absl::StrCat("the headers exceed ", limits.max_header_bytes, " bytes")};
  }
  if (ec == http::error::bad_version) {
    return {505, "only HTTP/1.1 and HTTP/1.0 are spoken here"};
  }
  return {400, absl::StrCat("not a valid HTTP request: ", ec.message())};
}

}  // namespace

struct RequestParser::Impl {
  explicit Impl(const HttpLimits& l) : limits(l) { collector.emplace(limits); }
  HttpLimits limits;
  std::optional<Collector> collector;
  Failure failure;
};

RequestParser::RequestParser(const HttpLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
RequestParser::~RequestParser() = default;

RequestParser::State RequestParser::Feed(absl::string_view data, size_t* consumed) {
  *consumed = 0;
  Collector& collector = *impl_->collector;
  while (!collector.is_done()) {
    const absl::string_view rest = data.substr(*consumed);
    // Beast takes it for granted that at least this much is there when it looks at a last chunk
    // again; with less, no chunked body can end.
    if (collector.is_header_done() && collector.chunked() && absl::StartsWith(rest, "0") &&
        rest.size() < kShortestLastChunk) {
      return State::kNeedMore;
    }
    beast::error_code ec;
    const size_t used = collector.put(boost::asio::const_buffer(rest.data(), rest.size()), ec);
    *consumed += used;
    if (ec == http::error::need_more || (!ec && used == 0 && !collector.is_done())) {
      // Chunk lines and trailers have no limit in Beast: an unfinished element is a bounded one.
      if (data.size() - *consumed > impl_->limits.max_header_bytes) {
        impl_->failure = {431, "a line of the request is too long"};
        return State::kFailed;
      }
      return State::kNeedMore;
    }
    if (ec) {
      impl_->failure = collector.failure ? *collector.failure : FailureOf(ec, impl_->limits);
      return State::kFailed;
    }
  }
  return State::kComplete;
}

HttpRequest RequestParser::Take() {
  HttpRequest request = std::move(impl_->collector->request);
  impl_->collector.emplace(impl_->limits);
  return request;
}

bool RequestParser::TakeContinue() {
  Collector& collector = *impl_->collector;
  if (!collector.is_header_done() || !collector.expects_continue) {
    return false;
  }
  collector.expects_continue = false;
  return true;
}

bool RequestParser::started() const { return impl_->collector->got_some(); }

const RequestParser::Failure& RequestParser::failure() const { return impl_->failure; }

}  // namespace tessera::server
