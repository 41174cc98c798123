#define PCRE2_CODE_UNIT_WIDTH 8
#include "server/text/regex.h"

#include <pcre2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "config/foundation/check.h"
#include "server/text/regex_syntax.h"

namespace tessera::server {
namespace {

constexpr size_t kMaxPatternBytes = 16 * 1024;
constexpr uint32_t kMatchLimit = 4'000'000;
constexpr uint32_t kDepthLimit = 20'000;
constexpr uint32_t kHeapLimitKib = 16 * 1024;
constexpr size_t kJitStackBytes = 1024 * 1024;

// What a thread needs to search; patterns here have no groups whose text is asked for.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr);

  Scratch() {
    TESSERA_CHECK(data != nullptr && context != nullptr);
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_depth_limit(context, kDepthLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (stack != nullptr) pcre2_jit_stack_free(stack);
  }
};

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

std::string Message(int code) {
  PCRE2_UCHAR buffer[160];
  const int length = pcre2_get_error_message(code, buffer, sizeof(buffer));
  return length > 0 ? std::string(reinterpret_cast<char*>(buffer), length) : absl::StrCat(code);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::unique_ptr<Code> code, std::string pattern)
    : code_(std::move(code)), pattern_(std::move(pattern)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

namespace {

Status CheckLength(absl::string_view pattern) {
  if (pattern.size() <= kMaxPatternBytes) return absl::OkStatus();
  return Error(absl::StatusCode::kInvalidArgument,
               {"tokenizer pattern is too long", "", absl::StrCat(pattern.size(), " bytes"),
                absl::StrCat("patterns have at most ", kMaxPatternBytes, " bytes")});
}

StatusOr<pcre2_code*> CompileWith(absl::string_view pattern, uint32_t options) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   options, &error, &offset, nullptr);
  if (code == nullptr) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"tokenizer pattern does not compile", absl::StrCat("pattern byte ", offset),
                  Message(error), "the pattern must be one that PCRE2 accepts"});
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT the interpreter is used
  return code;
}

}  // namespace

StatusOr<Regex> Regex::Compile(absl::string_view pattern, PatternEngine engine) {
  TESSERA_RETURN_IF_ERROR(CheckLength(pattern));
  TESSERA_ASSIGN_OR_RETURN(const std::string translated, ToLibrarySyntax(pattern));
  auto owned = std::make_unique<Code>();
  TESSERA_ASSIGN_OR_RETURN(
      owned->code,
      CompileWith(translated, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C));
  Regex regex(std::move(owned), std::string(pattern));
  if (engine == PatternEngine::kScanner) regex.scanner_ = FindScanner(pattern);
  return regex;
}

Regex Regex::FromScanner(SplitScanner scanner) {
  Regex regex(nullptr, "");
  regex.scanner_ = scanner;
  return regex;
}

StatusOr<Regex> Regex::CompileLiteral(absl::string_view text) {
  if (text.empty()) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {"tokenizer pattern is empty", "", "an empty text is found everywhere",
                  "give the text to look for"});
  }
  TESSERA_RETURN_IF_ERROR(CheckLength(text));
  auto owned = std::make_unique<Code>();
  TESSERA_ASSIGN_OR_RETURN(owned->code, CompileWith(text, PCRE2_UTF | PCRE2_LITERAL));
  return Regex(std::move(owned), std::string(text));
}

StatusOr<Regex::Match> Regex::Find(absl::string_view subject, size_t from) const {
  if (scanner_ != nullptr) return scanner_(subject, from);
  Scratch& scratch = ThreadScratch();
  const int count =
      pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(), from,
                  PCRE2_NO_UTF_CHECK, scratch.data, scratch.context);
  if (count == PCRE2_ERROR_NOMATCH) return Match{};
  if (count < 0) {
    return Error(absl::StatusCode::kResourceExhausted,
                 {"tokenizer pattern could not be matched", "", Message(count),
                  "shorten runs of one kind of character in the text"});
  }
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.data);
  // \K can put the start behind the end; such a match splits nothing.
  if (range[0] > range[1] || range[0] < from) return Match{};
  return Match{true, range[0], range[1]};
}

}  // namespace tessera::server
