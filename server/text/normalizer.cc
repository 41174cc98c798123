#include "server/text/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/edits.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"

namespace tessera::server {
namespace {

Status CheckGrowth(size_t bytes) {
  if (bytes <= kMaxNormalizedBytes) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted,
               {"text grows too long when it is normalized", "", absl::StrCat(bytes, " bytes"),
                absl::StrCat("normalized text has at most ", kMaxNormalizedBytes, " bytes")});
}

Status IcuError(UErrorCode code) {
  return Error(absl::StatusCode::kInternal,
               {"Unicode normalization failed", "", u_errorName(code), ""});
}

class UnicodeStep : public NormalizerStep {
 public:
  explicit UnicodeStep(UnicodeForm form) : form_(form) {}

  Status Apply(FragmentPlace place, AlignedText* text) const override {
    UErrorCode code = U_ZERO_ERROR;
    const icu::Normalizer2* normalizer = Instance(code);
    if (U_FAILURE(code)) return IcuError(code);
    const icu::StringPiece input(text->text.data(), static_cast<int32_t>(text->text.size()));
    if (normalizer->isNormalizedUTF8(input, code)) return absl::OkStatus();
    std::string result;
    icu::StringByteSink<std::string> sink(&result);
    icu::Edits edits;
    normalizer->normalizeUTF8(0, input, sink, text->tracked() ? &edits : nullptr, code);
    if (U_FAILURE(code)) return IcuError(code);
    TESSERA_RETURN_IF_ERROR(CheckGrowth(result.size()));
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

  UnicodeForm form_;
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
      TESSERA_RETURN_IF_ERROR(CheckGrowth(grown));
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
      TESSERA_RETURN_IF_ERROR(CheckGrowth(grown));
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
    AppendUtf8(static_cast<char32_t>(u_tolower(static_cast<UChar32>(code))), out);
  }
};

class StripAccentsStep : public CharacterStep {
 protected:
  void Map(char32_t code, std::string* out) const override {
    if (u_charType(static_cast<UChar32>(code)) != U_NON_SPACING_MARK) AppendUtf8(code, out);
  }
};

class CleanStep : public CharacterStep {
 public:
  explicit CleanStep(const BertNormalizerOptions& options) : options_(options) {}

 protected:
  void Map(char32_t code, std::string* out) const override {
    if (options_.clean_text) {
      if (code == '\t' || code == '\n' || code == '\r' ||
          u_isUWhiteSpace(static_cast<UChar32>(code))) {
        out->push_back(' ');
        return;
      }
      if (code == 0 || code == 0xFFFD || IsControl(code)) return;
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
  static bool IsControl(char32_t code) {
    switch (u_charType(static_cast<UChar32>(code))) {
      case U_CONTROL_CHAR:
      case U_FORMAT_CHAR:
      case U_PRIVATE_USE_CHAR:
      case U_UNASSIGNED:
        return true;
      default:
        return false;
    }
  }

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
      steps_.push_back(MakeUnicodeStep(UnicodeForm::kNfd));
      steps_.push_back(MakeStripAccentsStep());
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
      if (!u_isUWhiteSpace(static_cast<UChar32>(code.value))) {
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

class CollapseSpacesStep : public NormalizerStep {
 public:
  Status Apply(FragmentPlace place, AlignedText* text) const override {
    const absl::string_view view = text->text;
    const size_t last = view.find_last_not_of(' ');
    const size_t end = last == view.npos ? 0 : last + 1;
    TextEditor editor(*text);
    bool after_space = true;
    for (size_t pos = 0; pos < end; ++pos) {
      const bool space = view[pos] == ' ';
      if (space && after_space) {
        editor.Replace(1, "");
      } else {
        editor.Keep(1);
      }
      after_space = space;
    }
    editor.Replace(view.size() - end, "");
    AlignedText rewritten = std::move(editor).Finish();
    *text = std::move(rewritten);
    return absl::OkStatus();
  }
};

}  // namespace

std::unique_ptr<NormalizerStep> MakeUnicodeStep(UnicodeForm form) {
  return std::make_unique<UnicodeStep>(form);
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
std::unique_ptr<NormalizerStep> MakeStripAccentsStep() {
  return std::make_unique<StripAccentsStep>();
}
std::unique_ptr<NormalizerStep> MakeBertStep(const BertNormalizerOptions& options) {
  return std::make_unique<BertStep>(options);
}
std::unique_ptr<NormalizerStep> MakeCollapseSpacesStep() {
  return std::make_unique<CollapseSpacesStep>();
}

Status Normalize(const NormalizerSteps& steps, FragmentPlace place, AlignedText* text) {
  for (const auto& step : steps) TESSERA_RETURN_IF_ERROR(step->Apply(place, text));
  return absl::OkStatus();
}

}  // namespace tessera::server
