// Zoo::Compose: a chain from blocks of existing chains, checked to fit.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_objects.h"
#include "blockzoo/zoo_references.h"

namespace tessera::blockzoo {
namespace {

constexpr int64_t kMaxAttribute = (int64_t{1} << 31) - 1;

class Composer {
 public:
  explicit Composer(const ZooLayout& layout) : layout_(layout), reader_(layout) {}

  StatusOr<ChainManifest> Run(const ComposeSpec& spec) {
    if (spec.pieces.empty()) return Bad("there are no pieces");
    for (const ComposePiece& piece : spec.pieces) TESSERA_RETURN_IF_ERROR(Append(piece));
    TESSERA_RETURN_IF_ERROR(CheckEnds());
    chain_.name = spec.name;
    // Entries that no block names still need a value; the first piece's does no harm.
    for (std::optional<RotarySettings>& rotary : rotary_) {
      chain_.rotary.push_back(rotary.value_or(RotarySettings{}));
    }
    return std::move(chain_);
  }

 private:
  static Status Bad(absl::string_view why) {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "the chain cannot be composed", .why = std::string(why)});
  }

  Status Append(const ComposePiece& piece) {
    TESSERA_ASSIGN_OR_RETURN(const ChainManifest from, ReadChain(layout_, piece.chain));
    const size_t end = piece.end == ComposePiece::kToEnd ? from.blocks.size() : piece.end;
    if (piece.begin >= end || end > from.blocks.size()) {
      return Bad(absl::StrCat(piece.chain, " has blocks 0 to ", from.blocks.size(),
                              ", the piece asks for ", piece.begin, " to ", end));
    }
    if (origin_.empty()) {
      chain_ = from;
      chain_.blocks.clear();
      chain_.rotary.clear();
      chain_.provenance = {{"format", "composed"}};
      chain_.source.clear();
    }
    TESSERA_RETURN_IF_ERROR(CheckAgrees(from));
    for (size_t i = piece.begin; i < end; ++i) {
      TESSERA_RETURN_IF_ERROR(AppendBlock(from, i));
    }
    absl::StrAppend(&origin_, origin_.empty() ? "" : " + ", piece.chain, "[", piece.begin, ":", end,
                    "]@", RevisionOf(from).Short());
    chain_.provenance["source"] = origin_;
    chain_.max_context = std::min(chain_.max_context, from.max_context);
    return absl::OkStatus();
  }

  Status CheckAgrees(const ChainManifest& from) const {
    if (from.width != chain_.width) {
      return Bad(absl::StrCat(from.name, " has width ", from.width, ", the first piece has ",
                              chain_.width));
    }
    for (const char* name :
         {"tokenizer.json", "tokenizer.model", "gguf_vocabulary.json", "byte_vocabulary.json"}) {
      const auto ours = chain_.assets.find(name);
      const auto theirs = from.assets.find(name);
      const bool equal = ours == chain_.assets.end()
                             ? theirs == from.assets.end()
                             : theirs != from.assets.end() && theirs->second == ours->second;
      if (!equal) return Bad(absl::StrCat(from.name, " has another tokenizer (", name, ")"));
    }
    return absl::OkStatus();
  }

  Status AppendBlock(const ChainManifest& from, size_t position) {
    const std::string where = absl::StrCat(from.name, "[", position, "]");
    TESSERA_ASSIGN_OR_RETURN(const BlockManifest* block, reader_.Get(from.blocks[position]));
    const StatusOr<int64_t> width = block->attributes.Integer("width", 1, kMaxAttribute);
    if (!width.ok()) return Annotate(width.status(), where);
    if (static_cast<uint64_t>(*width) != chain_.width) {
      return Bad(absl::StrCat(where, " has width ", *width, ", the chain has ", chain_.width));
    }
    if (block->attributes.Has("vocab")) {
      const StatusOr<int64_t> vocab = block->attributes.Integer("vocab", 1, kMaxAttribute);
      if (!vocab.ok()) return Annotate(vocab.status(), where);
      if (chain_.blocks.empty()) chain_.vocab = static_cast<uint64_t>(*vocab);
      if (static_cast<uint64_t>(*vocab) != chain_.vocab) {
        return Bad(absl::StrCat(where, " has a vocabulary of ", *vocab, ", the embedding has ",
                                chain_.vocab));
      }
    }
    if (block->attributes.Has("rotary")) {
      TESSERA_RETURN_IF_ERROR(AddRotary(from, where, *block));
    }
    types_.push_back(block->type);
    chain_.blocks.push_back(from.blocks[position]);
    return absl::OkStatus();
  }

  Status AddRotary(const ChainManifest& from, const std::string& where,
                   const BlockManifest& block) {
    const StatusOr<int64_t> index =
        block.attributes.Integer("rotary", 0, static_cast<int64_t>(from.rotary.size()) - 1);
    if (!index.ok()) return Annotate(index.status(), where);
    const auto at = static_cast<size_t>(*index);
    if (rotary_.size() <= at) rotary_.resize(at + 1);
    if (!rotary_[at].has_value()) rotary_[at] = from.rotary[at];
    if (*rotary_[at] == from.rotary[at]) return absl::OkStatus();
    return Bad(absl::StrCat(where, " needs other rotary settings than the blocks before it"));
  }

  Status CheckEnds() const {
    if (types_.front() != "embedding") {
      return Bad(absl::StrCat("the first block is ", types_.front(), ", it must be embedding"));
    }
    if (types_.back() != "lm_head") {
      return Bad(absl::StrCat("the last block is ", types_.back(), ", it must be lm_head"));
    }
    for (size_t i = 1; i + 1 < types_.size(); ++i) {
      if (types_[i] == "embedding" || types_[i] == "lm_head") {
        return Bad(absl::StrCat("block ", i, " of the new chain is ", types_[i],
                                ", which may only be at an end"));
      }
    }
    return absl::OkStatus();
  }

  const ZooLayout& layout_;
  BlockReader reader_;
  ChainManifest chain_;
  std::vector<std::optional<RotarySettings>> rotary_;
  std::vector<std::string> types_;
  std::string origin_;
};

}  // namespace

StatusOr<ChainManifest> Zoo::Compose(const ComposeSpec& spec) {
  TESSERA_RETURN_IF_ERROR(CheckChainName(spec.name));
  TESSERA_ASSIGN_OR_RETURN(const FileLock lock,
                           LockForWriting(absl::StrCat("compose ", spec.name)));
  TESSERA_ASSIGN_OR_RETURN(const ChainManifest chain, Composer(layout_).Run(spec));
  TESSERA_ASSIGN_OR_RETURN(const NameState state, CheckExisting(chain, spec.existing));
  if (state != NameState::kSame) TESSERA_RETURN_IF_ERROR(WriteChain(chain));
  return chain;
}

}  // namespace tessera::blockzoo
