#include "server/text/pretokenizer.h"

#include <utility>

#include "server/text/utf8.h"

namespace tessera::server {
namespace {

struct Part {
  ByteRange range;
  bool match = false;
};

class SplitStep : public PreTokenizerStep {
 public:
  SplitStep(Regex pattern, SplitBehavior behavior, SplitMatches matches)
      : pattern_(std::move(pattern)), behavior_(behavior), matches_(matches) {}

  Status Apply(FragmentPlace place, Pieces* pieces) const override {
    std::vector<ByteRange> out;
    out.reserve(pieces->ranges.size() + pieces->text.text.size() / 4);
    std::vector<Part> parts;
    for (const ByteRange piece : pieces->ranges) {
      parts.clear();
      TESSERA_RETURN_IF_ERROR(FindParts(pieces->text.text, piece, &parts));
      Arrange(parts, &out);
    }
    pieces->ranges = std::move(out);
    return absl::OkStatus();
  }

 private:
  Status FindParts(absl::string_view text, ByteRange piece, std::vector<Part>* parts) const {
    const absl::string_view subject = text.substr(piece.begin, piece.end - piece.begin);
    const bool inverted = matches_ == SplitMatches::kInverted;
    const auto add = [&](size_t begin, size_t end, bool match) {
      if (begin == end) return;
      parts->push_back(
          {{static_cast<uint32_t>(piece.begin + begin), static_cast<uint32_t>(piece.begin + end)},
           match != inverted});
    };
    size_t done = 0;
    size_t from = 0;
    while (from < subject.size()) {
      TESSERA_ASSIGN_OR_RETURN(const Regex::Match match, pattern_.Find(subject, from));
      if (!match.found) break;
      if (match.end == match.begin) {
        // An empty match cuts without taking anything.
        add(done, match.begin, false);
        done = match.begin;
        if (match.begin >= subject.size()) break;
        from = match.begin + DecodeUtf8(subject, match.begin).length;
        continue;
      }
      add(done, match.begin, false);
      add(match.begin, match.end, true);
      done = from = match.end;
    }
    add(done, subject.size(), false);
    return absl::OkStatus();
  }

  void Arrange(const std::vector<Part>& parts, std::vector<ByteRange>* out) const {
    const size_t first = out->size();
    bool join = false;  // whether the next part continues the last one
    for (size_t i = 0; i < parts.size(); ++i) {
      const Part& part = parts[i];
      const bool can_join = join && out->size() > first;
      join = false;
      switch (behavior_) {
        case SplitBehavior::kIsolated:
          out->push_back(part.range);
          break;
        case SplitBehavior::kRemoved:
          if (!part.match) out->push_back(part.range);
          break;
        case SplitBehavior::kMergedWithPrevious:
          if (part.match && i > 0 && !parts[i - 1].match) {
            out->back().end = part.range.end;
          } else {
            out->push_back(part.range);
          }
          break;
        case SplitBehavior::kMergedWithNext:
          if (!part.match && can_join) {
            out->back().end = part.range.end;
          } else {
            out->push_back(part.range);
          }
          join = part.match;
          break;
        case SplitBehavior::kContiguous:
          if (i > 0 && parts[i - 1].match == part.match) {
            out->back().end = part.range.end;
          } else {
            out->push_back(part.range);
          }
          break;
      }
    }
  }

  Regex pattern_;
  SplitBehavior behavior_;
  SplitMatches matches_;
};

// A step that rewrites the text of each piece.
class RewriteStep : public PreTokenizerStep {
 public:
  Status Apply(FragmentPlace place, Pieces* pieces) const override {
    TextEditor editor(pieces->text);
    std::vector<ByteRange> ranges;
    ranges.reserve(pieces->ranges.size());
    size_t written = 0;
    for (const ByteRange piece : pieces->ranges) {
      editor.Replace(piece.begin - editor.position(), "");
      const size_t begin = written;
      written += Rewrite(place, absl::string_view(pieces->text.text), piece, &editor);
      if (written > kMaxNormalizedBytes) {
        return Error(absl::StatusCode::kResourceExhausted,
                     {"text grows too long in pre-tokenization", "", "", "send a shorter text"});
      }
      ranges.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(written)});
    }
    editor.Replace(pieces->text.text.size() - editor.position(), "");
    AlignedText rewritten = std::move(editor).Finish();
    pieces->text = std::move(rewritten);
    pieces->ranges = std::move(ranges);
    return absl::OkStatus();
  }

 protected:
  // Moves `editor` from the piece's begin to its end and returns the bytes written.
  virtual size_t Rewrite(FragmentPlace place, absl::string_view text, ByteRange piece,
                         TextEditor* editor) const = 0;
};

class PrefixSpaceStep : public RewriteStep {
 protected:
  size_t Rewrite(FragmentPlace place, absl::string_view text, ByteRange piece,
                 TextEditor* editor) const override {
    const size_t length = piece.end - piece.begin;
    const bool add = length > 0 && text[piece.begin] != ' ';
    if (add) editor->Replace(0, " ");
    editor->Keep(length);
    return length + (add ? 1 : 0);
  }
};

class BytesToSymbolsStep : public RewriteStep {
 protected:
  size_t Rewrite(FragmentPlace place, absl::string_view text, ByteRange piece,
                 TextEditor* editor) const override {
    size_t written = 0;
    std::string symbol;
    for (uint32_t i = piece.begin; i < piece.end; ++i) {
      symbol.clear();
      AppendUtf8(ByteToSymbol(static_cast<uint8_t>(text[i])), &symbol);
      editor->Replace(1, symbol);
      written += symbol.size();
    }
    return written;
  }
};

class SymbolsToBytesStep : public RewriteStep {
 protected:
  size_t Rewrite(FragmentPlace place, absl::string_view text, ByteRange piece,
                 TextEditor* editor) const override {
    size_t written = 0;
    for (size_t pos = piece.begin; pos < piece.end;) {
      const CodePoint code = DecodeUtf8(text, pos);
      const std::optional<uint8_t> byte = SymbolToByte(code.value);
      // A later step may have written characters of its own.
      if (byte.has_value()) {
        const char raw = static_cast<char>(*byte);
        editor->Replace(code.length, absl::string_view(&raw, 1));
        ++written;
      } else {
        editor->Keep(code.length);
        written += code.length;
      }
      pos += code.length;
    }
    return written;
  }
};

class MetaspaceStep : public RewriteStep {
 public:
  MetaspaceStep(std::string replacement, PrependScheme scheme)
      : replacement_(std::move(replacement)), scheme_(scheme) {}

 protected:
  size_t Rewrite(FragmentPlace place, absl::string_view text, ByteRange piece,
                 TextEditor* editor) const override {
    const absl::string_view view = text.substr(piece.begin, piece.end - piece.begin);
    size_t written = 0;
    const bool wanted =
        scheme_ == PrependScheme::kAlways ||
        (scheme_ == PrependScheme::kFirst && place == FragmentPlace::kFirst && piece.begin == 0);
    const bool present =
        !view.empty() && (view[0] == ' ' || view.substr(0, replacement_.size()) == replacement_);
    if (wanted && !present && !view.empty()) {
      editor->Replace(0, replacement_);
      written += replacement_.size();
    }
    for (size_t pos = 0; pos < view.size();) {
      const size_t space = std::min(view.find(' ', pos), view.size());
      editor->Keep(space - pos);
      written += space - pos;
      pos = space;
      if (pos < view.size()) {
        editor->Replace(1, replacement_);
        written += replacement_.size();
        ++pos;
      }
    }
    return written;
  }

 private:
  std::string replacement_;
  PrependScheme scheme_;
};

}  // namespace

std::unique_ptr<PreTokenizerStep> MakeSplitStep(Regex pattern, SplitBehavior behavior,
                                                SplitMatches matches) {
  return std::make_unique<SplitStep>(std::move(pattern), behavior, matches);
}
std::unique_ptr<PreTokenizerStep> MakePrefixSpaceStep() {
  return std::make_unique<PrefixSpaceStep>();
}
std::unique_ptr<PreTokenizerStep> MakeBytesToSymbolsStep() {
  return std::make_unique<BytesToSymbolsStep>();
}
std::unique_ptr<PreTokenizerStep> MakeSymbolsToBytesStep() {
  return std::make_unique<SymbolsToBytesStep>();
}
std::unique_ptr<PreTokenizerStep> MakeMetaspaceStep(std::string replacement, PrependScheme scheme) {
  return std::make_unique<MetaspaceStep>(std::move(replacement), scheme);
}

StatusOr<Pieces> PreTokenize(const PreTokenizerSteps& steps, FragmentPlace place,
                             AlignedText text) {
  Pieces pieces;
  pieces.text = std::move(text);
  if (pieces.text.text.empty()) return pieces;
  pieces.ranges.push_back({0, static_cast<uint32_t>(pieces.text.text.size())});
  for (const auto& step : steps) TESSERA_RETURN_IF_ERROR(step->Apply(place, &pieces));
  return pieces;
}

}  // namespace tessera::server
