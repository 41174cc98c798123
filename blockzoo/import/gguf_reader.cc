#include "blockzoo/import/gguf_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tessera::blockzoo {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read in place");

constexpr absl::string_view kMagic = "GGUF";
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 65536;
constexpr absl::string_view kAlignmentKey = "general.alignment";

// Bytes of a scalar; 0: of variable size.
constexpr uint8_t kScalarBytes[kGgufTypeCount] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

struct GgmlType {
  uint32_t id;
  const char* name;
};

constexpr GgmlType kGgmlTypes[] = {
    {0, "F32"},       {1, "F16"},       {2, "Q4_0"},   {3, "Q4_1"},    {6, "Q5_0"},
    {7, "Q5_1"},      {8, "Q8_0"},      {9, "Q8_1"},   {10, "Q2_K"},   {11, "Q3_K"},
    {12, "Q4_K"},     {13, "Q5_K"},     {14, "Q6_K"},  {15, "Q8_K"},   {16, "IQ2_XXS"},
    {17, "IQ2_XS"},   {18, "IQ3_XXS"},  {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},
    {22, "IQ2_S"},    {23, "IQ4_XS"},   {24, "I8"},    {25, "I16"},    {26, "I32"},
    {27, "I64"},      {28, "F64"},      {29, "IQ1_M"}, {30, "BF16"},   {31, "Q4_0_4_4"},
    {32, "Q4_0_4_8"}, {33, "Q4_0_8_8"}, {34, "TQ1_0"}, {35, "TQ2_0"},  {39, "MXFP4"},
};

// Those whose names weights have here.
std::string SupportedTypes() {
  std::vector<absl::string_view> names;
  for (const GgmlType& type : kGgmlTypes) {
    if (kernels::DTypeFromName(type.name).has_value()) names.push_back(type.name);
  }
  return absl::StrJoin(names, ", ");
}

template <typename T>
T Load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// Calls `use` with the scalar at `from`, in its own type.
template <typename Use>
void WithScalar(GgufType type, const std::byte* from, Use use) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kBool:
      return use(Load<uint8_t>(from));
    case GgufType::kInt8:
      return use(Load<int8_t>(from));
    case GgufType::kUint16:
      return use(Load<uint16_t>(from));
    case GgufType::kInt16:
      return use(Load<int16_t>(from));
    case GgufType::kUint32:
      return use(Load<uint32_t>(from));
    case GgufType::kInt32:
      return use(Load<int32_t>(from));
    case GgufType::kUint64:
      return use(Load<uint64_t>(from));
    case GgufType::kInt64:
      return use(Load<int64_t>(from));
    case GgufType::kFloat32:
      return use(Load<float>(from));
    case GgufType::kFloat64:
      return use(Load<double>(from));
    case GgufType::kString:
    case GgufType::kArray:
      return;
  }
}

bool IsScalar(GgufType type) { return kScalarBytes[static_cast<uint32_t>(type)] != 0; }

bool IsFloat(GgufType type) { return type == GgufType::kFloat32 || type == GgufType::kFloat64; }

double NumberAt(GgufType type, const std::byte* from) {
  double number = 0;
  WithScalar(type, from, [&number](auto value) { number = static_cast<double>(value); });
  return number;
}

// Reads forward; each read is checked against what is left.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> file) : file_(file) {}

  [[nodiscard]] size_t at() const { return at_; }
  [[nodiscard]] uint64_t left() const { return file_.size() - at_; }
  [[nodiscard]] std::span<const std::byte> From(size_t begin) const {
    return file_.subspan(begin, at_ - begin);
  }

  Status Bad(absl::string_view why) const {
    return Error(absl::StatusCode::kInvalidArgument,
                 {.what = "the GGUF file is not valid",
                  .where = absl::StrCat("byte ", at_),
                  .why = std::string(why),
                  .fix = "fetch the file again: it may be cut short"});
  }

  StatusOr<std::span<const std::byte>> Take(uint64_t bytes, absl::string_view what) {
    if (bytes > left()) {
      return Bad(absl::StrCat(what, " needs ", bytes, " bytes, ", left(), " are left"));
    }
    const auto taken = file_.subspan(at_, bytes);
    at_ += bytes;
    return taken;
  }

  template <typename T>
  StatusOr<T> Scalar(absl::string_view what) {
    TESSERA_ASSIGN_OR_RETURN(const auto bytes, Take(sizeof(T), what));
    return Load<T>(bytes.data());
  }

  StatusOr<absl::string_view> Text(uint64_t limit, absl::string_view what) {
    TESSERA_ASSIGN_OR_RETURN(const uint64_t length, Scalar<uint64_t>(what));
    if (length > limit) {
      return Bad(absl::StrCat(what, " has ", length, " bytes, allowed ", limit));
    }
    TESSERA_ASSIGN_OR_RETURN(const auto bytes, Take(length, what));
    return absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  StatusOr<uint64_t> Count(uint64_t limit, uint64_t least_bytes, absl::string_view what) {
    TESSERA_ASSIGN_OR_RETURN(const uint64_t count, Scalar<uint64_t>(what));
    if (count > limit) return Bad(absl::StrCat(what, " is ", count, ", allowed ", limit));
    if (count > left() / least_bytes) {
      return Bad(absl::StrCat(what, " is ", count, ", more than the file can hold"));
    }
    return count;
  }

 private:
  std::span<const std::byte> file_;
  size_t at_ = 0;
};

class Parser {
 public:
  explicit Parser(std::span<const std::byte> file) : file_(file), cursor_(file) {}

  StatusOr<GgufFile> Run() {
    TESSERA_RETURN_IF_ERROR(ReadHeader());
    for (uint64_t i = 0; i < value_count_; ++i) TESSERA_RETURN_IF_ERROR(ReadKeyValue());
    TESSERA_RETURN_IF_ERROR(ReadAlignment());
    for (uint64_t i = 0; i < tensor_count_; ++i) TESSERA_RETURN_IF_ERROR(ReadTensor());
    TESSERA_RETURN_IF_ERROR(PlaceTensors());
    return std::move(result_);
  }

 private:
  Status ReadHeader() {
    TESSERA_ASSIGN_OR_RETURN(const auto magic, cursor_.Take(4, "the magic number"));
    if (std::memcmp(magic.data(), kMagic.data(), 4) != 0) {
      return cursor_.Bad("it does not start with GGUF");
    }
    TESSERA_ASSIGN_OR_RETURN(result_.version, cursor_.Scalar<uint32_t>("the version"));
    if ((result_.version & 0xffff) == 0 && result_.version != 0) {
      return Error(absl::StatusCode::kUnimplemented,
                   {.what = "big-endian GGUF is not supported",
                    .where = "byte 4",
                    .why = "its values are read in place on little-endian machines",
                    .fix = "fetch the model's little-endian file"});
    }
    if (result_.version < 2 || result_.version > 3) {
      return Error(absl::StatusCode::kUnimplemented,
                   {.what = absl::StrCat("GGUF version ", result_.version, " is not supported"),
                    .where = "byte 4",
                    .why = "supported are the versions 2 and 3",
                    .fix = "fetch a newer file of the model, or convert it again"});
    }
    // The least sizes: a tensor is name length, dimensions, one dimension, type, offset; a value is
    // key length, type and one byte.
    TESSERA_ASSIGN_OR_RETURN(tensor_count_,
                             cursor_.Count(GgufLimits::kTensors, 32, "the tensor count"));
    TESSERA_ASSIGN_OR_RETURN(value_count_,
                             cursor_.Count(GgufLimits::kValues, 13, "the value count"));
    return absl::OkStatus();
  }

  StatusOr<GgufType> ReadType() {
    TESSERA_ASSIGN_OR_RETURN(const uint32_t type, cursor_.Scalar<uint32_t>("a value type"));
    if (type >= kGgufTypeCount) return cursor_.Bad(absl::StrCat("unknown value type ", type));
    return static_cast<GgufType>(type);
  }

  // Walks one value, so that views into it need no further checks.
  StatusOr<GgufValue> ReadValue(GgufType type, uint64_t depth) {
    if (type == GgufType::kString) {
      TESSERA_ASSIGN_OR_RETURN(const absl::string_view text,
                               cursor_.Text(GgufLimits::kStringBytes, "a string"));
      return GgufValue(type, type, 1, std::as_bytes(std::span(text.data(), text.size())));
    }
    if (type != GgufType::kArray) {
      TESSERA_ASSIGN_OR_RETURN(const auto bytes,
                               cursor_.Take(kScalarBytes[static_cast<uint32_t>(type)], "a value"));
      return GgufValue(type, type, 1, bytes);
    }
    if (depth >= GgufLimits::kArrayDepth) return cursor_.Bad("arrays are nested too deeply");
    TESSERA_ASSIGN_OR_RETURN(const GgufType element, ReadType());
    const uint64_t scalar = kScalarBytes[static_cast<uint32_t>(element)];
    TESSERA_ASSIGN_OR_RETURN(
        const uint64_t count,
        cursor_.Count(GgufLimits::kArrayElements, scalar == 0 ? 8 : scalar, "an array's length"));
    const size_t begin = cursor_.at();
    if (scalar != 0) {
      TESSERA_RETURN_IF_ERROR(cursor_.Take(count * scalar, "an array").status());
    } else {
      for (uint64_t i = 0; i < count; ++i) {
        TESSERA_RETURN_IF_ERROR(ReadValue(element, depth + 1).status());
      }
    }
    return GgufValue(type, element, count, cursor_.From(begin));
  }

  Status ReadKeyValue() {
    TESSERA_ASSIGN_OR_RETURN(const absl::string_view key,
                             cursor_.Text(GgufLimits::kKeyBytes, "a key"));
    TESSERA_ASSIGN_OR_RETURN(const GgufType type, ReadType());
    TESSERA_ASSIGN_OR_RETURN(const GgufValue value, ReadValue(type, 0));
    if (key.empty()) return cursor_.Bad("a key is empty");
    if (!result_.values.emplace(std::string(key), value).second) {
      return cursor_.Bad(absl::StrCat("the key ", key, " is there twice"));
    }
    return absl::OkStatus();
  }

  Status ReadAlignment() {
    const GgufValue* value = result_.Find(kAlignmentKey);
    if (value == nullptr) return absl::OkStatus();
    const std::optional<int64_t> alignment = value->Integer();
    if (!alignment.has_value() || *alignment < 1 || *alignment > int64_t{kMaxAlignment} ||
        !std::has_single_bit(static_cast<uint64_t>(*alignment))) {
      return cursor_.Bad(absl::StrCat(kAlignmentKey, " must be a power of two up to 65536"));
    }
    alignment_ = static_cast<uint64_t>(*alignment);
    return absl::OkStatus();
  }

  Status ReadTensor() {
    TESSERA_ASSIGN_OR_RETURN(const absl::string_view name,
                             cursor_.Text(GgufLimits::kTensorNameBytes, "a tensor name"));
    CheckpointTensor tensor;
    tensor.name = std::string(name);
    TESSERA_ASSIGN_OR_RETURN(const uint32_t dimensions,
                             cursor_.Scalar<uint32_t>("a dimension count"));
    if (name.empty() || dimensions < 1 || dimensions > 4) {
      return cursor_.Bad(
          absl::StrCat("the tensor ", name, " has ", dimensions, " dimensions, allowed 1 to 4"));
    }
    for (uint32_t i = 0; i < dimensions; ++i) {
      TESSERA_ASSIGN_OR_RETURN(const uint64_t dimension, cursor_.Scalar<uint64_t>("a dimension"));
      tensor.shape.push_back(dimension);
    }
    // The file has the fastest dimension first.
    std::reverse(tensor.shape.begin(), tensor.shape.end());
    TESSERA_ASSIGN_OR_RETURN(const uint32_t type, cursor_.Scalar<uint32_t>("an element type"));
    const std::string type_name = GgmlTypeName(type);
    const std::optional<kernels::DType> dtype = kernels::DTypeFromName(type_name);
    if (!dtype.has_value()) {
      return Error(absl::StatusCode::kUnimplemented,
                   {.what = absl::StrCat("the element type ", type_name, " is not supported"),
                    .where = absl::StrCat("tensor ", name),
                    .why = absl::StrCat("supported are ", SupportedTypes()),
                    .fix = "fetch or make the model in one of these types"});
    }
    tensor.dtype = *dtype;
    TESSERA_ASSIGN_OR_RETURN(const uint64_t offset, cursor_.Scalar<uint64_t>("an offset"));
    const StatusOr<uint64_t> bytes = TensorBytes(tensor.dtype, tensor.shape);
    if (!bytes.ok()) {
      return cursor_.Bad(absl::StrCat("the tensor ", name, ": ", bytes.status().message()));
    }
    if (offset % alignment_ != 0) {
      return cursor_.Bad(absl::StrCat("the tensor ", name, " is not aligned to ", alignment_));
    }
    placed_.push_back({tensor.name, offset, *bytes});
    if (!result_.tensors.emplace(tensor.name, tensor).second) {
      return cursor_.Bad(absl::StrCat("the tensor ", name, " is there twice"));
    }
    return absl::OkStatus();
  }

  Status PlaceTensors() {
    const uint64_t padding = (alignment_ - cursor_.at() % alignment_) % alignment_;
    if (placed_.empty()) return absl::OkStatus();
    TESSERA_RETURN_IF_ERROR(cursor_.Take(padding, "the padding before the data").status());
    const std::span<const std::byte> data = file_.subspan(cursor_.at());
    std::sort(placed_.begin(), placed_.end(),
              [](const Placed& a, const Placed& b) { return a.offset < b.offset; });
    uint64_t end = 0;
    for (const Placed& placed : placed_) {
      if (placed.offset > data.size() || placed.bytes > data.size() - placed.offset) {
        return cursor_.Bad(absl::StrCat("the tensor ", placed.name, " ends ", placed.bytes,
                                        " bytes after offset ", placed.offset,
                                        ", beyond the data's ", data.size()));
      }
      if (placed.offset < end) {
        return cursor_.Bad(absl::StrCat("the tensor ", placed.name, " overlaps another"));
      }
      end = placed.offset + placed.bytes;
      result_.tensors.find(placed.name)->second.bytes = data.subspan(placed.offset, placed.bytes);
    }
    return absl::OkStatus();
  }

  struct Placed {
    std::string name;
    uint64_t offset;
    uint64_t bytes;
  };

  std::span<const std::byte> file_;
  Cursor cursor_;
  GgufFile result_;
  uint64_t tensor_count_ = 0;
  uint64_t value_count_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<Placed> placed_;
};

}  // namespace

std::optional<int64_t> GgufValue::Integer() const {
  if (!IsScalar(type_) || IsFloat(type_)) return std::nullopt;
  if (type_ == GgufType::kUint64 && Load<uint64_t>(bytes_.data()) > INT64_MAX) return std::nullopt;
  if (type_ == GgufType::kBool) return Load<uint8_t>(bytes_.data()) != 0 ? 1 : 0;
  int64_t integer = 0;
  WithScalar(type_, bytes_.data(), [&integer](auto value) {
    if constexpr (std::is_integral_v<decltype(value)>) integer = static_cast<int64_t>(value);
  });
  return integer;
}

std::optional<double> GgufValue::Number() const {
  if (!IsScalar(type_)) return std::nullopt;
  return NumberAt(type_, bytes_.data());
}

std::optional<absl::string_view> GgufValue::Text() const {
  if (type_ != GgufType::kString) return std::nullopt;
  return absl::string_view(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
}

std::optional<std::vector<double>> GgufValue::Numbers() const {
  if (type_ != GgufType::kArray || !IsScalar(element_)) return std::nullopt;
  std::vector<double> numbers;
  numbers.reserve(count_);
  const size_t stride = kScalarBytes[static_cast<uint32_t>(element_)];
  for (uint64_t i = 0; i < count_; ++i) {
    numbers.push_back(NumberAt(element_, bytes_.data() + i * stride));
  }
  return numbers;
}

std::optional<std::vector<absl::string_view>> GgufValue::Texts() const {
  if (type_ != GgufType::kArray || element_ != GgufType::kString) return std::nullopt;
  std::vector<absl::string_view> texts;
  texts.reserve(count_);
  const std::byte* at = bytes_.data();
  for (uint64_t i = 0; i < count_; ++i) {
    const uint64_t length = Load<uint64_t>(at);
    texts.emplace_back(reinterpret_cast<const char*>(at + 8), length);
    at += 8 + length;
  }
  return texts;
}

const GgufValue* GgufFile::Find(absl::string_view key) const {
  const auto found = values.find(std::string_view(key.data(), key.size()));
  return found == values.end() ? nullptr : &found->second;
}

std::string GgmlTypeName(uint32_t type) {
  for (const GgmlType& known : kGgmlTypes) {
    if (known.id == type) return known.name;
  }
  return absl::StrCat("type ", type);
}

StatusOr<GgufFile> ParseGguf(std::span<const std::byte> file) { return Parser(file).Run(); }

}  // namespace tessera::blockzoo
