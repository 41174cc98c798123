// Checks kernels/cuda/linear/cost_calibration.h on the products of a Llama-3-8B layer: has a
// context measure them and prints both ways' times, then has a second one take the table from its
// text, which must need no trial, say the same and compute the same. Arguments: [--all]; without it
// bf16, e4m3 and int4.
#include <algorithm>
#include <chrono>
#include <memory>

#include "kernels/cuda/context.h"
#include "kernels/cuda/linear/cost_calibration.h"
#include "tests/kernels/cuda/check_util.cuh"
#include "tests/kernels/cuda/gemm_reference.h"

namespace tessera::check {
namespace {

using kernels::Epilogue;
using kernels::KeptCosts;
using kernels::cuda::CostKey;
using kernels::cuda::CostTable;
using kernels::cuda::CudaContext;
using kernels::cuda::GemmArgs;
using kernels::cuda::GemmEngine;
using kernels::cuda::GemmEpilogue;
using kernels::cuda::ProductForm;
using kernels::cuda::ProductGroup;
using kernels::cuda::ProductWay;

constexpr int32_t kMaxRows = 8192;  // of a step

template <typename T>
T Must(StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", FourLines(value.status()).c_str());
  std::exit(2);
}

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<ProductGroup> GroupsOf(DType dtype) {
  std::vector<ProductGroup> groups = {{dtype, ProductForm::kStore, 4096, {4096, 1024, 1024}},
                                      {dtype, ProductForm::kResidual, 4096, {4096}},
                                      {dtype, ProductForm::kGated, 4096, {14336}},
                                      {dtype, ProductForm::kResidual, 14336, {4096}}};
  if (dtype == DType::kBF16) groups.push_back({dtype, ProductForm::kLogits, 4096, {128256}});
  return groups;
}

Epilogue EpilogueOf(ProductForm form) {
  constexpr Epilogue kEpilogues[] = {Epilogue::kStore, Epilogue::kLogits, Epilogue::kResidual,
                                     Epilogue::kGatedSilu};
  return kEpilogues[static_cast<int>(form)];
}

const char* NameOf(ProductForm form) {
  constexpr const char* kNames[] = {"qkv", "logits", "residual", "gate+up"};
  return kNames[static_cast<int>(form)];
}

// A context, and what was measured when it was made.
struct Started {
  std::unique_ptr<KeptCosts<CostTable>> costs = std::make_unique<KeptCosts<CostTable>>("");
  std::unique_ptr<CudaContext> context;
  double seconds = 0;

  [[nodiscard]] const CostTable& table() const { return costs->table; }
};

class CostTableCheck {
 public:
  CostTableCheck()
      : device_(Must(kernels::cuda::FindDevice(0))), memory_(device_), pool_({.threads = 1}) {}

  int Run(bool all) {
    std::vector<DType> dtypes = {DType::kBF16, DType::kF8Channel, DType::kI4G128};
    if (all) dtypes.insert(dtypes.end(), {DType::kF8Block128, DType::kI8Channel});
    // The library's own start belongs to no type.
    const Started nothing = Start({}, {});
    std::printf("%s; first context after %.2f s\n", device_.name.c_str(), nothing.seconds);
    for (const DType dtype : dtypes) CheckType(dtype);
    return report_.Finish();
  }

 private:
  // A context for products of `groups` that finds `table`.
  Started Start(const std::vector<ProductGroup>& groups, CostTable table) {
    Started started;
    started.costs->table = std::move(table);
    kernels::Backend::ContextNeeds needs{.max_width = 14336,
                                         .max_head_dim = 128,
                                         .max_vocab = 128256,
                                         .max_rows = kMaxRows,
                                         .max_sequences = 64};
    for (const ProductGroup& group : groups) {
      kernels::LinearGroup& product = needs.products.emplace_back();
      product.weight = group.dtype;
      product.in = group.in;
      std::copy(group.outs.begin(), group.outs.end(), product.outs.begin());
      product.epilogue = EpilogueOf(group.form);
    }
    const auto begin = std::chrono::steady_clock::now();
    started.context = Must(CudaContext::Create(device_, memory_, *started.costs, pool_, needs));
    started.seconds = SecondsSince(begin);
    return started;
  }

  void CheckType(DType dtype) {
    const char* name = kernels::InfoOf(dtype).name;
    const std::vector<ProductGroup> groups = GroupsOf(dtype);
    const Started first = Start(groups, {});
    const CostTable& table = first.table();
    std::printf("%s measured in %.2f s\n", name, first.seconds);
    for (const ProductGroup& group : groups) {
      report_.Case(table.Has(group, kMaxRows), "%s %s complete", name, NameOf(group.form));
      Print(group, table);
    }
    PrintLayer(groups, table);

    GemmEngine& engine = first.context->gemm();
    const CostKey key = CostKeyOf(device_, engine);
    const std::string text = table.Text(key);
    const Started second = Start(groups, Must(CostTable::Parse(text, key)));
    std::printf("%s again in %.3f s\n", name, second.seconds);
    report_.Case(second.table().Text(key) == text, "%s: the text is as before (%zu bytes)", name,
                 text.size());
    CheckRepeated(groups, table, name);
    for (const int rows : {8, 64, 96, 100, 256, 512}) {
      CheckProducts(dtype, rows, engine, second.context->gemm());
    }
  }

  // Restored algorithms take the time that the first engine's took: they came back whole. The
  // clock's drift is allowed for.
  void CheckRepeated(const std::vector<ProductGroup>& groups, const CostTable& table,
                     const char* name) {
    CostTable algorithms;
    algorithms.set_algorithms(table.algorithms());
    const Started repeated = Start(groups, algorithms);
    for (size_t i = 0; i < CostTable::kRows.size(); ++i) {
      double before = 0, after = 0;
      for (const ProductGroup& group : groups) {
        before += table.costs().at(group)[i].gemm_ns * 1e-3;
        after += repeated.table().costs().at(group)[i].gemm_ns * 1e-3;
      }
      report_.Case(after < before * 1.15, "%s gemm, %3d rows: %.1f us, restored %.1f", name,
                   CostTable::kRows[i], before, after);
    }
  }

  static void Print(const ProductGroup& group, const CostTable& table) {
    std::printf("      %-8s in %5d out %6d:", NameOf(group.form), group.in, group.outs[0]);
    const CostTable::Costs& costs = table.costs().at(group);
    for (size_t i = 0; i < costs.size(); ++i) {
      const int rows = CostTable::kRows[i];
      std::printf("  %d: %.1f%s%.1f", rows, costs[i].skinny_ns * 1e-3,
                  table.Choose(group, rows) == ProductWay::kSkinny ? " < " : " > ",
                  costs[i].gemm_ns * 1e-3);
    }
    std::printf("\n");
  }

  // Sums over the layer's groups: each way alone ("-" where it was given up), and the choice.
  static void PrintLayer(const std::vector<ProductGroup>& groups, const CostTable& table) {
    for (size_t i = 0; i < CostTable::kRows.size(); ++i) {
      double skinny = 0, gemm = 0, chosen = 0;
      bool whole = true;
      for (const ProductGroup& group : groups) {
        if (group.form == ProductForm::kLogits) continue;
        const kernels::cuda::ProductCost cost = table.costs().at(group)[i];
        whole &= cost.skinny_ns != 0;
        skinny += cost.skinny_ns * 1e-3;
        gemm += cost.gemm_ns * 1e-3;
        const bool takes_skinny = table.Choose(group, CostTable::kRows[i]) == ProductWay::kSkinny;
        chosen += (takes_skinny ? cost.skinny_ns : cost.gemm_ns) * 1e-3;
      }
      std::printf("      layer, %3d rows: skinny %7.1f%s gemm %7.1f chosen %7.1f us\n",
                  CostTable::kRows[i], skinny, whole ? " " : "-", gemm, chosen);
    }
  }

  // Both engines against float64 and each other, on the product of k and that of o.
  void CheckProducts(DType dtype, int rows, GemmEngine& first, GemmEngine& second) {
    CheckProduct(dtype, rows, 1024, 4096, GemmEpilogue::kStore, first, second);
    CheckProduct(dtype, rows, 4096, 4096, GemmEpilogue::kResidual, first, second);
  }

  void CheckProduct(DType dtype, int rows, int out, int in, GemmEpilogue epilogue,
                    GemmEngine& first, GemmEngine& second) {
    Rng rng(static_cast<uint64_t>(rows + out));
    const HostWeight weight(dtype, out, in, rng);
    std::vector<uint16_t> x(size_t(rows) * in);
    for (uint16_t& value : x) value = ToBf16(rng.Normal());
    const DeviceBuffer<uint8_t> weight_device(weight.bytes);
    const DeviceBuffer<uint16_t> x_device(x);
    const size_t element = epilogue == GemmEpilogue::kStore ? 2 : 4;
    std::vector<uint8_t> results[2];
    bool intact = true;
    for (int turn = 0; turn < 2; ++turn) {
      DeviceBuffer<uint8_t> y(size_t(rows) * out * element);
      if (epilogue == GemmEpilogue::kResidual) y.Upload(std::vector<uint8_t>(y.size(), 0));
      GemmArgs args{.dtype = dtype, .out = out, .in = in, .rows = rows};
      args.x = reinterpret_cast<const __nv_bfloat16*>(x_device.get());
      args.weight = reinterpret_cast<const std::byte*>(weight_device.get());
      args.epilogue = epilogue;
      args.y = y.get();
      args.y_stride = out;
      CHECK_CUDA(cudaDeviceSynchronize());
      const Status status = (turn == 0 ? first : second).Run(args, nullptr);
      if (!status.ok()) std::printf("%s\n", FourLines(status).c_str());
      CHECK_CUDA(cudaDeviceSynchronize());
      results[turn] = y.Download();
      intact &= y.CanaryIntact();
    }
    const double l2 = FromReference(weight, x, rows, results[0]);
    report_.Case(l2 < 6e-3 && intact && results[0] == results[1],
                 "%s %d x %d, %3d rows: relative L2 %.1e, the same bits from both: %s",
                 kernels::InfoOf(dtype).name, out, in, rows, l2,
                 results[0] == results[1] ? "yes" : "no");
  }

  // On 16 rows and 32 channels; the library's e4m3 products round their rows.
  static double FromReference(const HostWeight& weight, const std::vector<uint16_t>& x, int rows,
                              const std::vector<uint8_t>& y) {
    const size_t element = y.size() / (size_t(rows) * weight.out);
    std::vector<double> got, want;
    for (int j = 0; j < 32; ++j) {
      const int channel = j * (weight.out - 1) / 31;
      const std::vector<double> values = weight.Row(channel);
      for (int i = 0; i < std::min(rows, 16); ++i) {
        const int row = i * (rows - 1) / std::max(1, std::min(rows, 16) - 1);
        const uint16_t* source = x.data() + size_t(row) * weight.in;
        const size_t index = size_t(row) * weight.out + channel;
        want.push_back(Dot(weight.dtype == DType::kF8Channel ? HostRow(source, weight.in, weight.in)
                           : weight.dtype == DType::kF8Block128 ? HostRow(source, weight.in, 128)
                                                                : HostRow(source, weight.in),
                           values));
        got.push_back(element == 2 ? BitsToFloat(reinterpret_cast<const uint16_t*>(y.data())[index])
                                   : reinterpret_cast<const float*>(y.data())[index]);
      }
    }
    return Compare(got.data(), want.data(), got.size()).l2;
  }

  const kernels::cuda::DeviceInfo device_;
  kernels::cuda::DeviceMemory memory_;
  kernels::ThreadPool pool_;
  Report report_;
};

}  // namespace
}  // namespace tessera::check

int main(int argc, char** argv) {
  const bool all = argc > 1 && std::string(argv[1]) == "--all";
  return tessera::check::CostTableCheck().Run(all);
}
