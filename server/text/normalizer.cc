#include "server/text/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/edits.h>
#include <unicode/normalizer2.h>
#include <unicode/uniset.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/unicode_classes.h"
#include "server/text/utf8.h"

namespace tessera::server {

Status CheckNormalizedBytes(size_t bytes) {
  if (bytes <= kMaxNormalizedBytes) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted,
               {"text grows too long when it is normalized", "", absl::StrCat(bytes, " bytes"),
                absl::StrCat("normalized text has at most ", kMaxNormalizedBytes, " bytes")});
}

namespace {

Status IcuError(UErrorCode code) {
  return Error(absl::StatusCode::kInternal,
               {"Unicode normalization failed", "", u_errorName(code), ""});
}

// The filtered form of `base`: characters of Unicode 9 only.
const icu::Normalizer2* OfUnicode9(const icu::Normalizer2& base, UErrorCode& code) {
  static const auto* known = [&code] {
    auto* set = new icu::UnicodeSet(UNICODE_STRING_SIMPLE("[:age=9.0:]"), code);
    return static_cast<const icu::UnicodeSet*>(set->freeze());
  }();
  return U_SUCCESS(code) ? new icu::FilteredNormalizer2(base, *known) : nullptr;
}

class UnicodeStep : public NormalizerStep {
 public:
  UnicodeStep(UnicodeForm form, UnicodeVersion version) : form_(form) {
    newest_ = Instance(code_);
    if (version == UnicodeVersion::k9 && U_SUCCESS(code_)) {
      filtered_.reset(OfUnicode9(*newest_, code_));
    }
  }

  Status Apply(FragmentPlace place, AlignedText* text) const override {
    if (U_FAILURE(code_)) return IcuError(code_);
    if (IsPlain(text->text)) return absl::OkStatus();
    UErrorCode code = U_ZERO_ERROR;
    const icu::StringPiece input(text->text.data(), static_cast<int32_t>(text->text.size()));
    // What is normalized for the newest version is so for older ones.
    if (newest_->isNormalizedUTF8(input, code)) return absl::OkStatus();
    const icu::Normalizer2* normalizer = filtered_ != nullptr ? filtered_.get() : newest_;
    std::string result;
    icu::StringByteSink<std::string> sink(&result);
    icu::Edits edits;
    normalizer->normalizeUTF8(0, input, sink, text->tracked() ? &edits : nullptr, code);
    if (U_FAILURE(code)) return IcuError(code);
    TESSERA_RETURN_IF_ERROR(CheckNormalizedBytes(result.size()));
    if (!text->tracked()) {
      text->text = std::move(result);
      return absl::OkStatus();
    }
    TextEditor editor(*text);
    icu::Edits::Iterator it = edits.getFineIterator();
    while (it.next(code)) {
      const size_t old_bytes = static_cast<size_t>(it.oldLength());
      if (it.hasChange()) {
        editor.Replace(old_bytes, absl::string_view(result).substr(
                                      it.destinationIndex(), static_cast<size_t>(it.newLength())));
      } else {
        editor.Keep(old_bytes);
      }
    }
    AlignedText rewritten = std::move(editor).Finish();
    *text = std::move(rewritten);
    return absl::OkStatus();
  }

 private:
  const icu::Normalizer2* Instance(UErrorCode& code) const {
    switch (form_) {
      case UnicodeForm::kNfc:
        return icu::Normalizer2::getNFCInstance(code);
      case UnicodeForm::kNfd:
        return icu::Normalizer2::getNFDInstance(code);
      case UnicodeForm::kNfkc:
        return icu::Normalizer2::getNFKCInstance(code);
      case UnicodeForm::kNfkd:
        return icu::Normalizer2::getNFKDInstance(code);
    }
    return nullptr;
  }

  // Whether every character is below the first one that the form changes.
  [[nodiscard]] bool IsPlain(absl::string_view text) const {
    // Lead bytes: U+0300 for NFC, U+00C0 for NFD, U+0080 for the compatibility forms.
    const uint8_t lead =
        form_ == UnicodeForm::kNfc ? 0xCC : (form_ == UnicodeForm::kNfd ? 0xC3 : 0x80);
    return std::all_of(text.begin(), text.end(),
                       [lead](char c) { return static_cast<uint8_t>(c) < lead; });
  }

  UnicodeForm form_;
  UErrorCode code_ = U_ZERO_ERROR;
  const icu::Normalizer2* newest_ = nullptr;
  std::unique_ptr<const icu::Normalizer2> filtered_;
};

class PrependStep : public NormalizerStep {
 public:
  PrependStep(std::string prefix, PrependTo to) : prefix_(std::move(prefix)), to_(to) {}

  Status Apply(FragmentPlace place, AlignedText* text) const override {
    if (text->text.empty()) return absl::OkStatus();
    if (to_ == PrependTo::kFirstFragment && place != FragmentPlace::kFirst) {
      return absl::OkStatus();
    }
    TextEditor editor(*text);
    editor.Replace(0, prefix_);
    AlignedText rewritten = std::move(editor).Finish();
    *text = std::move(rewritten);
    return absl::OkStatus();
  }

 private:
  std::string prefix_;
  PrependTo to_;
};

class ReplaceStep : public NormalizerStep {
 public:
  ReplaceStep(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  Status Apply(FragmentPlace place, AlignedText* text) const override {
    const absl::string_view subject = text->text;
    TextEditor editor(*text);
    size_t from = 0;
    size_t grown = subject.size();
    while (from <= subject.size()) {
      TESSERA_ASSIGN_OR_RETURN(const Regex::Match match, pattern_.Find(subject, from));
      if (!match.found) break;
      grown += content_.size();
      TESSERA_RETURN_IF_ERROR(CheckNormalizedBytes(grown));
      editor.Keep(match.begin - editor.position());
      editor.Replace(match.end - match.begin, content_);
      from = match.end;
      if (match.begin == match.end) {
        if (from >= subject.size()) break;
        from += DecodeUtf8(subject, from).length;
      }
    }
    AlignedText rewritten = std::move(editor).Finish();
    *text = std::move(rewritten);
    return absl::OkStatus();
  }

 private:
  Regex pattern_;
  std::string content_;
};

// A step that maps one character at a time; an empty result drops the character.
class CharacterStep : public NormalizerStep {
 public:
  Status Apply(FragmentPlace place, AlignedText* text) const override {
    TextEditor editor(*text);
    std::string mapped;
    size_t grown = 0;
    for (size_t pos = 0; pos < text->text.size();) {
      const CodePoint code = DecodeUtf8(text->text, pos);
      mapped.clear();
      Map(code.value, &mapped);
      grown += mapped.size();
      TESSERA_RETURN_IF_ERROR(CheckNormalizedBytes(grown));
      if (absl::string_view(text->text).substr(pos, code.length) == mapped) {
        editor.Keep(code.length);
      } else {
        editor.Replace(code.length, mapped);
      }
      pos += code.length;
    }
    AlignedText rewritten = std::move(editor).Finish();
    *text = std::move(rewritten);
    return absl::OkStatus();
  }

 protected:
  virtual void Map(char32_t code, std::string* out) const = 0;
};

class LowercaseStep : public CharacterStep {
 protected:
  void Map(char32_t code, std::string* out) const override {
    // The one character whose full lower case has two characters.
    if (code == 0x130) {
      out->append("i\xCC\x87");
      return;
    }
    AppendUtf8(LowerCaseOf(code), out);
  }
};

class RemoveStep : public CharacterStep {
 public:
  explicit RemoveStep(uint32_t classes) : classes_(classes) {}

 protected:
  void Map(char32_t code, std::string* out) const override {
    if ((ClassesOf(code) & classes_) == 0) AppendUtf8(code, out);
  }

 private:
  uint32_t classes_;
};

class NmtStep : public CharacterStep {
 protected:
  void Map(char32_t code, std::string* out) const override {
    const bool dropped = (code >= 0x01 && code <= 0x08) || code == 0x0B ||
                         (code >= 0x0E && code <= 0x1F) || code == 0x7F || code == 0x8F ||
                         code == 0x9F;
    if (dropped) return;
    const bool space = code == 0x09 || code == 0x0A || code == 0x0C || code == 0x0D ||
                       code == 0x1680 || (code >= 0x200B && code <= 0x200F) || code == 0x2028 ||
                       code == 0x2029 || code == 0x2581 || code == 0xFEFF || code == 0xFFFD;
    AppendUtf8(space ? U' ' : code, out);
  }
};

class ByteSymbolsStep : public CharacterStep {
 protected:
  void Map(char32_t code, std::string* out) const override {
    std::string bytes;
    AppendUtf8(code, &bytes);
    for (const char byte : bytes) AppendUtf8(ByteToSymbol(static_cast<uint8_t>(byte)), out);
  }
};

class CleanStep : public CharacterStep {
 public:
  explicit CleanStep(const BertNormalizerOptions& options) : options_(options) {}

 protected:
  void Map(char32_t code, std::string* out) const override {
    if (options_.clean_text) {
      const uint32_t classes = ClassesOf(code);
      const bool line = code == '\t' || code == '\n' || code == '\r';
      if (!line && (code == 0 || code == 0xFFFD || (classes & kBertControl) != 0)) return;
      if ((classes & kWhiteSpace) != 0) {
        out->push_back(' ');
        return;
      }
    }
    if (options_.handle_chinese_chars && IsIdeograph(code)) {
      out->push_back(' ');
      AppendUtf8(code, out);
      out->push_back(' ');
      return;
    }
    AppendUtf8(code, out);
  }

 private:
  static bool IsIdeograph(char32_t code) {
    static constexpr std::pair<char32_t, char32_t> kRanges[] = {
        {0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
        {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    for (const auto& [first, last] : kRanges) {
      if (code >= first && code <= last) return true;
    }
    return false;
  }

  BertNormalizerOptions options_;
};

class BertStep : public NormalizerStep {
 public:
  explicit BertStep(const BertNormalizerOptions& options) {
    steps_.push_back(std::make_unique<CleanStep>(options));
    if (options.strip_accents) {
      steps_.push_back(MakeUnicodeStep(UnicodeForm::kNfd, UnicodeVersion::k9));
      steps_.push_back(MakeRemoveStep(kBertMark));
    }
    if (options.lowercase) steps_.push_back(MakeLowercaseStep());
  }

  Status Apply(FragmentPlace place, AlignedText* text) const override {
    return Normalize(steps_, place, text);
  }

 private:
  NormalizerSteps steps_;
};

class StripStep : public NormalizerStep {
 public:
  explicit StripStep(StripSides sides) : sides_(sides) {}

  Status Apply(FragmentPlace place, AlignedText* text) const override {
    const absl::string_view view = text->text;
    size_t first = view.size();
    size_t last = view.size();
    bool seen = false;
    for (size_t pos = 0; pos < view.size();) {
      const CodePoint code = DecodeUtf8(view, pos);
      if ((ClassesOf(code.value) & kWhiteSpace) == 0) {
        if (!seen) first = pos;
        seen = true;
        last = pos + code.length;
      }
      pos += code.length;
    }
    const size_t begin = sides_ == StripSides::kRight ? 0 : first;
    size_t end = sides_ == StripSides::kLeft ? view.size() : last;
    if (!seen) end = begin;
    TextEditor editor(*text);
    editor.Replace(begin, "");
    editor.Keep(end - begin);
    editor.Replace(view.size() - end, "");
    AlignedText rewritten = std::move(editor).Finish();
    *text = std::move(rewritten);
    return absl::OkStatus();
  }

 private:
  StripSides sides_;
};

}  // namespace

std::unique_ptr<NormalizerStep> MakeUnicodeStep(UnicodeForm form, UnicodeVersion version) {
  return std::make_unique<UnicodeStep>(form, version);
}
std::unique_ptr<NormalizerStep> MakePrependStep(std::string prefix, PrependTo to) {
  return std::make_unique<PrependStep>(std::move(prefix), to);
}
std::unique_ptr<NormalizerStep> MakeReplaceStep(Regex pattern, std::string content) {
  return std::make_unique<ReplaceStep>(std::move(pattern), std::move(content));
}
std::unique_ptr<NormalizerStep> MakeLowercaseStep() { return std::make_unique<LowercaseStep>(); }
std::unique_ptr<NormalizerStep> MakeStripStep(StripSides sides) {
  return std::make_unique<StripStep>(sides);
}
std::unique_ptr<NormalizerStep> MakeRemoveStep(uint32_t classes) {
  return std::make_unique<RemoveStep>(classes);
}
std::unique_ptr<NormalizerStep> MakeNmtStep() { return std::make_unique<NmtStep>(); }
std::unique_ptr<NormalizerStep> MakeByteSymbolsStep() {
  return std::make_unique<ByteSymbolsStep>();
}
std::unique_ptr<NormalizerStep> MakeBertStep(const BertNormalizerOptions& options) {
  return std::make_unique<BertStep>(options);
}

Status Normalize(const NormalizerSteps& steps, FragmentPlace place, AlignedText* text) {
  for (const auto& step : steps) TESSERA_RETURN_IF_ERROR(step->Apply(place, text));
  return absl::OkStatus();
}

}  // namespace tessera::server
