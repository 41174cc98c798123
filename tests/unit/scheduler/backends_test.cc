// The same chains on the processor and on a CUDA device: log-probabilities of prompts and answers
// agree within what bfloat16 activations allow.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/engine_fixture.h"

namespace tessera::testing {
namespace {

using kernels::DType;

class BackendsTest : public EngineFixture {
 protected:
  void SetUp() override {
    EngineFixture::SetUp();
    if (kernels::CudaDevices().empty()) GTEST_SKIP() << "no CUDA device";
    auto cpu = kernels::MakeCpuBackend(kernels::CpuIsa::kAuto);
    auto cuda = kernels::MakeCudaBackend(0);
    ASSERT_TRUE(cpu.ok()) << cpu.status();
    ASSERT_TRUE(cuda.ok()) << cuda.status();
    cpu_ = std::move(*cpu);
    cuda_ = std::move(*cuda);
  }

  // Log-probabilities of every prompt token: of a prompt cut into steps of 96 rows, so that queries
  // of many and of few rows, and pages of earlier steps, are met.
  std::vector<double> Score(const std::shared_ptr<const kernels::Backend>& backend,
                            const TinyShape& shape, size_t prompt) {
    Use(backend);
    Start({.max_batch_tokens = 96});
    const ChainId chain = Add("a", tiny_.Make("a", shape, {1, 2, 3}, 9));
    scheduler::GenerationRequest request = Ask(chain, Prompt(3, prompt, shape.vocab), 1);
    request.output.prompt_logprobs = 0;
    const Answer answer = Run(std::move(request));
    EXPECT_TRUE(answer.error.ok()) << answer.error;
    std::vector<double> logprobs;
    for (const scheduler::TokenEvent& event : answer.prompt_events) {
      logprobs.push_back(event.logprob);
    }
    return logprobs;
  }

  // `bound`: of the difference, as a share of how far log-probabilities lie apart.
  void ExpectAgree(const TinyShape& shape, double bound) {
    const std::vector<double> a = Score(cpu_, shape, 230), b = Score(cuda_, shape, 230);
    ASSERT_EQ(a.size(), 229u);
    ASSERT_EQ(b.size(), a.size());
    const auto count = static_cast<double>(a.size());
    double mean = 0, spread = 0, error = 0;
    for (const double logprob : a) mean += logprob / count;
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_TRUE(std::isfinite(b[i])) << "token " << i + 1;
      spread += (a[i] - mean) * (a[i] - mean);
      error += (a[i] - b[i]) * (a[i] - b[i]);
    }
    const double relative = std::sqrt(error / spread);
    std::printf("%s head_dim %u: %.4f of the spread %.2f\n", kernels::InfoOf(shape.dtype).name,
                shape.head_dim, relative, std::sqrt(spread / count));
    EXPECT_LT(relative, bound) << kernels::InfoOf(shape.dtype).name << " head_dim "
                               << shape.head_dim;
  }

  std::shared_ptr<const kernels::Backend> cpu_, cuda_;
};

TEST_F(BackendsTest, EveryWeightTypeAgrees) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                            DType::kQ4_1, DType::kF8Channel, DType::kF8Block128, DType::kI8Channel,
                            DType::kI4G128, DType::kI4G64, DType::kI4G128Zero, DType::kI4G64Zero}) {
    TinyShape shape;
    shape.dtype = dtype;
    shape.width = 128;
    shape.hidden = 256;
    // The processor rounds the activations of GGUF types to 8 bits, the device those of e4m3
    // weights.
    const bool coarse =
        kernels::IsBlockFormat(dtype) || dtype == DType::kF8Channel || dtype == DType::kF8Block128;
    ExpectAgree(shape, coarse ? 0.3 : 0.05);
  }
}

TEST_F(BackendsTest, EveryHeadSizeAgrees) {
  for (const uint32_t head_dim : {64u, 80u, 96u, 128u, 256u}) {
    TinyShape shape;
    shape.dtype = DType::kBF16;
    shape.head_dim = head_dim;
    ExpectAgree(shape, 0.05);
  }
}

}  // namespace
}  // namespace tessera::testing
