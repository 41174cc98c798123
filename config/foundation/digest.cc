#include "config/foundation/digest.h"

#include <openssl/evp.h>

#include "config/foundation/check.h"

namespace tessera {

std::string Digest::Hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(64);
  for (uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

std::string Digest::Short() const { return Hex().substr(0, 12); }

StatusOr<Digest> Digest::FromHex(absl::string_view hex) {
  const auto value = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  Digest digest;
  if (hex.size() != 64) {
    return absl::InvalidArgumentError("a digest has 64 hexadecimal characters");
  }
  for (size_t i = 0; i < 32; ++i) {
    const int high = value(hex[2 * i]);
    const int low = value(hex[2 * i + 1]);
    if (high < 0 || low < 0) {
      return absl::InvalidArgumentError("a digest has 64 hexadecimal characters");
    }
    digest.bytes[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return digest;
}

struct Hasher::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  TESSERA_CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}

Hasher::~Hasher() = default;

Hasher& Hasher::AddBytes(std::span<const uint8_t> bytes) {
  TESSERA_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
  return *this;
}

Hasher& Hasher::AddText(absl::string_view text) {
  AddU64(text.size());
  return AddBytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

Hasher& Hasher::AddU64(uint64_t value) {
  std::array<uint8_t, 8> bytes;
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
  return AddBytes(bytes);
}

Hasher& Hasher::AddDigest(const Digest& digest) { return AddBytes(digest.bytes); }

Digest Hasher::Finish() {
  Digest digest;
  unsigned int size = 0;
  TESSERA_CHECK(EVP_DigestFinal_ex(state_->context, digest.bytes.data(), &size) == 1);
  TESSERA_CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
  return digest;
}

}  // namespace tessera
