// Zoo::Quantize: a chain whose matrices have another element type, with its loss stated.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "blockzoo/quantizer.h"
#include "blockzoo/zoo.h"
#include "blockzoo/zoo_objects.h"
#include "blockzoo/zoo_references.h"
#include "kernels/weight_codec.h"

namespace tessera::blockzoo {
namespace {

using kernels::DType;

std::string LossText(double loss) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.5f", loss);
  return text;
}

// Makes the blocks of one chain anew. What the zoo has already is found by its content.
class Requantizer {
 public:
  Requantizer(const QuantizeOptions& options, const ZooLayout& layout, WeightCache& weights,
              ObjectWriter& writer)
      : options_(options), reader_(layout), weights_(weights), writer_(writer) {}

  StatusOr<std::vector<Digest>> Run(const ChainManifest& chain, QuantizeReport& report) {
    TESSERA_RETURN_IF_ERROR(AddReferences(chain, reader_, used_));
    report.source_bytes = used_.TensorBytesInAll();
    std::vector<Digest> blocks;
    for (size_t i = 0; i < chain.blocks.size(); ++i) {
      TESSERA_ASSIGN_OR_RETURN(const BlockManifest* block, reader_.Get(chain.blocks[i]));
      BlockManifest made = *block;
      for (TensorRef& ref : made.tensors) {
        const std::string where = absl::StrCat("block ", i, " (", block->type, ") ", ref.role);
        const Status status = Convert(block->type, where, ref, report);
        if (!status.ok()) return Annotate(status, where);
      }
      blocks.push_back(IdentityOf(made));
      TESSERA_RETURN_IF_ERROR(
          writer_.Put(ObjectKind::kBlock, blocks.back(), BytesOf(CanonicalText(made))));
    }
    for (const auto& [digest, bytes] : bytes_) report.bytes += bytes;
    if (report.tensors > 0) report.mean_error = sum_ / static_cast<double>(report.tensors);
    return blocks;
  }

 private:
  // What a tensor becomes; its own type where it stays.
  DType TargetOf(const std::string& type, const TensorRef& ref) const {
    const DType wanted = WantedFor(type, ref);
    const bool whole = ref.shape.back() % kernels::InfoOf(wanted).block_elements == 0;
    return whole || wanted == ref.dtype ? wanted : kernels::WithBlocksOf32(wanted);
  }

  DType WantedFor(const std::string& type, const TensorRef& ref) const {
    // A norm of each head is a matrix that no product reads.
    if (ref.shape.size() != 2 || absl::EndsWith(ref.role, "_norm")) return ref.dtype;
    // What weighs experts is small, and another choice of them costs more than it saves.
    if (ref.role == "router" || ref.role == "shared_gate_weight") return ref.dtype;
    const bool ends = type == "embedding" || type == "lm_head";
    if (!ends) return options_.to;
    switch (options_.head) {
      case QuantizedHead::kKeep:
        return ref.dtype;
      case QuantizedHead::kBF16:
        return DType::kBF16;
      case QuantizedHead::kQuantized:
        break;
    }
    return type == "lm_head" ? options_.to : DType::kBF16;
  }

  Status Convert(const std::string& type, const std::string& where, TensorRef& ref,
                 QuantizeReport& report) {
    const DType to = TargetOf(type, ref);
    const uint64_t source_bytes = used_.tensors.at(ref.tensor);
    const auto [known, fresh] = made_.try_emplace({ref.tensor, to});
    if (fresh) {
      known->second = ref.tensor;
      if (to != ref.dtype) {
        TESSERA_ASSIGN_OR_RETURN(known->second, Store(where, ref, to, report));
      }
      if (done_.insert(ref.tensor).second) done_bytes_ += source_bytes;
      if (options_.progress) options_.progress(done_bytes_, report.source_bytes);
    }
    ref.tensor = known->second;
    ref.dtype = to;
    TESSERA_ASSIGN_OR_RETURN(bytes_[ref.tensor], TensorBytes(ref.dtype, ref.shape));
    return absl::OkStatus();
  }

  StatusOr<Digest> Store(const std::string& where, const TensorRef& ref, DType to,
                         QuantizeReport& report) {
    TESSERA_ASSIGN_OR_RETURN(const WeightHandle source, weights_.Canonical(ref));
    TESSERA_ASSIGN_OR_RETURN(const QuantizedTensor made,
                             QuantizeTensor(ref, {source.data(), source.size()}, to));
    TensorHasher hasher(to, ref.shape);
    hasher.Add(made.bytes->bytes());
    const Digest digest = hasher.Finish();
    TESSERA_RETURN_IF_ERROR(writer_.Put(ObjectKind::kTensor, digest, made.bytes->bytes()));
    ++report.tensors;
    if (to == kernels::WithBlocksOf32(options_.to) && to != options_.to) {
      ++report.fallback_tensors;
      report.fallback_type = kernels::InfoOf(to).name;
    }
    sum_ += made.relative_error;
    if (made.relative_error >= report.worst_error) {
      report.worst_error = made.relative_error;
      report.worst_tensor = where;
    }
    return digest;
  }

  const QuantizeOptions& options_;
  BlockReader reader_;
  WeightCache& weights_;
  ObjectWriter& writer_;
  References used_;
  std::map<std::pair<Digest, DType>, Digest> made_;
  std::map<Digest, uint64_t> bytes_;  // of the new chain's distinct tensors
  std::set<Digest> done_;
  uint64_t done_bytes_ = 0;
  double sum_ = 0;
};

Status CheckTarget(DType to) {
  if (kernels::HasEncoder(to)) return absl::OkStatus();
  return Error(
      absl::StatusCode::kInvalidArgument,
      {.what = absl::StrCat("no chain can be quantized to ", kernels::InfoOf(to).name),
       .why = "the types are BF16, GGUF's block formats and those that keep codes and scales "
              "apart"});
}

}  // namespace

StatusOr<QuantizeReport> Zoo::Quantize(const QuantizeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  TESSERA_RETURN_IF_ERROR(CheckChainName(options.name));
  TESSERA_RETURN_IF_ERROR(CheckTarget(options.to));
  TESSERA_ASSIGN_OR_RETURN(const FileLock lock,
                           LockForWriting(absl::StrCat("quantize ", options.source)));
  TESSERA_ASSIGN_OR_RETURN(const ChainManifest source, ReadChain(layout_, options.source));
  QuantizeReport report;
  ObjectWriter writer(layout_, disk_);
  Requantizer requantizer(options, layout_, weights_, writer);
  report.chain = source;
  report.chain.name = options.name;
  report.chain.source.clear();
  TESSERA_ASSIGN_OR_RETURN(report.chain.blocks, requantizer.Run(source, report));
  report.chain.provenance["quantized_from"] =
      absl::StrCat(source.name, "@", RevisionOf(source).Short());
  report.chain.provenance["quantized_to"] = kernels::InfoOf(options.to).name;
  report.chain.provenance["quantization_loss"] = absl::StrCat(
      "relative L2 error of ", report.tensors, " tensors: mean ", LossText(report.mean_error),
      ", worst ", LossText(report.worst_error), " (", report.worst_tensor, ")");
  if (report.fallback_tensors > 0) {
    report.chain.provenance["quantized_fallback"] =
        absl::StrCat(report.fallback_tensors, " tensors in ", report.fallback_type);
  }
  TESSERA_ASSIGN_OR_RETURN(const NameState state, CheckExisting(report.chain, options.existing));
  TESSERA_RETURN_IF_ERROR(writer.Commit());
  if (state != NameState::kSame) TESSERA_RETURN_IF_ERROR(WriteChain(report.chain));
  report.new_bytes = writer.new_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace tessera::blockzoo
