#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/attention/prefill_plan.h"
#include "kernels/cuda/launch.cuh"

namespace tessera::kernels::cuda {
namespace {

bool UsesWgmma() { return CurrentDeviceFacts().major == 9; }

}  // namespace

uint32_t PrefillBlocks(uint32_t head_dim) {
  const int of_each = UsesWgmma() ? 1 : PrefillMmaBlocks(head_dim);
  return static_cast<uint32_t>(CurrentDeviceFacts().multiprocessors * of_each);
}

std::string MissingPrefill(const PrefillArgs& args) {
  if (CurrentDeviceFacts().major < 8) return "compute capability 8.0";
  switch (args.head_dim) {
    case 64:
    case 80:
    case 96:
    case 128:
    case 256:
      break;
    default:
      return "head_dim " + std::to_string(args.head_dim);
  }
  if (args.kv_dtype != DType::kBF16 && args.kv_dtype != DType::kF8E4M3) {
    return "key and value type " + std::to_string(static_cast<int>(args.kv_dtype));
  }
  if (args.kv_heads == 0 || args.q_heads % args.kv_heads != 0 ||
      args.q_heads / args.kv_heads > 128) {
    return std::to_string(args.q_heads) + " query heads over " + std::to_string(args.kv_heads) +
           " KV heads";
  }
  if (!(args.scale > 0) || args.scale > 3e38f) return "scale that is not positive and finite";
  if (args.window < 0) return "window below 0";
  if (args.q_stride % 8 != 0) return "a q_stride that is no multiple of 8";
  return "";
}

cudaError_t LaunchPrefill(const PrefillArgs& args, cudaStream_t stream) {
  const cudaError_t error =
      UsesWgmma() ? LaunchPrefillWgmma(args, stream) : LaunchPrefillMma(args, stream);
  return error != cudaSuccess || args.merges == 0 ? error : LaunchPrefillMerge(args, stream);
}

}  // namespace tessera::kernels::cuda
