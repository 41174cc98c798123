// How a chain gives back the files that it was imported from. Each file is a sequence of segments:
// bytes that a stored tensor has too, and literal bytes, which an asset keeps (headers, padding,
// scales in another type, tensors that the chain ignores). So the tensors are stored once, and the
// file comes back byte for byte.
//
// In ChainManifest::source, the name of each file maps to the asset with its literal bytes in
// order, and kSourceRecordName to this record's text. A file that the record does not name is all
// literal.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "blockzoo/import/checkpoint.h"
#include "blockzoo/manifest.h"

namespace tessera::blockzoo {

// No plain file name has a slash.
inline constexpr const char* kSourceRecordName = "/record";

struct SourceSegment {
  uint64_t literal_bytes = 0;  // before the tensor's
  TensorRef tensor;            // without a role
  uint64_t offset = 0;         // in the tensor's canonical bytes
  uint64_t bytes = 0;
  std::string arrangement;  // code_arrangement.h; where it is set, the bytes are all codes
};

struct SourceRecord {
  std::string format;  // Checkpoint::format()
  // Tensor bytes by file; what follows the last segment is literal.
  std::map<std::string, std::vector<SourceSegment>> files;
};

// JSON. `ParseSourceRecord` gives INVALID_ARGUMENT with the file and the reason when the text is
// none, a name is no plain file name, or a segment leaves its tensor.
[[nodiscard]] std::string TextOf(const SourceRecord& record);
[[nodiscard]] StatusOr<SourceRecord> ParseSourceRecord(absl::string_view text);

// Whether a directory may get a file of this name.
[[nodiscard]] bool IsPlainFileName(absl::string_view name);

// Collects where the stored tensors lie in the files. One thread.
class SourceRecorder {
 public:
  SourceRecorder(std::string format, std::vector<CheckpointFile> files) : files_(std::move(files)) {
    record_.format = std::move(format);
  }

  // `tensor` is stored as `digest`.
  void Add(const CheckpointTensor& tensor, const Digest& digest);
  // Whether some of `bytes` are not in a stored tensor.
  [[nodiscard]] bool Lacks(std::span<const std::byte> bytes) const;

  struct Recorded {
    SourceRecord record;
    std::map<std::string, std::string> literals;  // by file, the bytes of its asset
  };
  // RESOURCE_EXHAUSTED with the reason when the literal bytes would be a second copy of tensors.
  [[nodiscard]] StatusOr<Recorded> Finish() &&;

 private:
  void AddSpan(std::span<const std::byte> bytes, SourceSegment segment);

  std::vector<CheckpointFile> files_;
  SourceRecord record_;
  std::map<const std::byte*, SourceSegment> found_;  // by place in a file
};

}  // namespace tessera::blockzoo
