// What a model answers, without a daemon: imports a checkpoint, and for each line "STEPS ID ID …"
// of the standard input prints the greedy continuation as the command line's `generate --json`
// does:
// {"token_ids":[…],"logprobs":[[[id, log-probability], …], …]}, as many as the sampler reports.
//
//   chain_logits CHECKPOINT
#include <iostream>
#include <sstream>

#include "blockzoo/chain.h"
#include "blockzoo/zoo.h"
#include "tests/support/engine_fixture.h"
#include "tests/support/tiny_checkpoint.h"

namespace tessera {
namespace {

struct Served {
  std::unique_ptr<blockzoo::Zoo> zoo;
  std::unique_ptr<blockzoo::ChainBinder> binder;
  std::unique_ptr<scheduler::Engine> engine;
};

StatusOr<Served> Serve(const std::string& directory, const std::string& checkpoint) {
  Served served;
  TESSERA_ASSIGN_OR_RETURN(served.zoo, blockzoo::Zoo::Open({.directory = directory,
                                                            .mode = blockzoo::ZooMode::kCreate}));
  TESSERA_RETURN_IF_ERROR(served.zoo->Import({.path = checkpoint, .name = "chain"}).status());
  TESSERA_ASSIGN_OR_RETURN(const blockzoo::ChainManifest manifest, served.zoo->Chain("chain"));
  TESSERA_ASSIGN_OR_RETURN(std::shared_ptr<const kernels::Backend> backend,
                           kernels::MakeCpuBackend(kernels::CpuIsa::kAuto));
  served.binder = std::make_unique<blockzoo::ChainBinder>(backend, blockzoo::CacheChoice());
  TESSERA_ASSIGN_OR_RETURN(const std::shared_ptr<const blockzoo::Chain> chain,
                           served.binder->Bind(manifest, *served.zoo));
  TESSERA_ASSIGN_OR_RETURN(served.engine,
                           scheduler::Engine::Create({.threads = 1}, backend, nullptr));
  auto tokens = std::make_shared<scheduler::TokenTable>();
  for (uint64_t i = 0; i <= chain->vocab(); ++i) tokens->offsets.push_back(0);
  TESSERA_RETURN_IF_ERROR(served.engine->AddChain(
      ChainId(1), {.name = "chain", .chain = chain, .tokens = std::move(tokens)}));
  return served;
}

scheduler::GenerationRequest RequestOf(const std::string& line, uint64_t number) {
  std::istringstream words(line);
  scheduler::GenerationRequest request;
  words >> request.stopping.max_tokens;
  for (TokenId id; words >> id;) request.prompt.push_back(id);
  request.id = RequestId(number);
  request.chain = ChainId(1);
  request.sampling.temperature = 0;
  request.stopping.ignore_eos = true;
  request.output.logprobs = kernels::SampleOp::kMaxTopLogprobs;
  request.arrival = SystemClock().Now();
  return request;
}

void Print(const testing::Answer& answer) {
  std::ostringstream text;
  text.precision(9);
  text << "{\"token_ids\":[";
  const char* comma = "";
  for (const TokenId id : answer.tokens[0]) {
    text << comma << id;
    comma = ",";
  }
  text << "],\"logprobs\":[";
  for (size_t step = 0; step < answer.top.size(); ++step) {
    text << (step == 0 ? "[" : ",[");
    comma = "";
    for (const kernels::TokenLogprob& entry : answer.top[step]) {
      text << comma << "[" << entry.id << "," << entry.logprob << "]";
      comma = ",";
    }
    text << "]";
  }
  std::cout << text.str() << "]}" << std::endl;
}

Status Run(const std::string& checkpoint) {
  const testing::TempDirectory directory;
  TESSERA_ASSIGN_OR_RETURN(const Served served, Serve(directory.path("zoo"), checkpoint));
  uint64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    testing::Reader reader(1);
    TESSERA_RETURN_IF_ERROR(served.engine->inbox().Reserve());
    TESSERA_RETURN_IF_ERROR(served.engine->inbox().Submit(
        {.request = RequestOf(line, ++number), .mailbox = reader.mailbox()}));
    const testing::Answer answer = reader.Wait();
    TESSERA_RETURN_IF_ERROR(answer.error);
    Print(answer);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: chain_logits CHECKPOINT\n";
    return 2;
  }
  const tessera::Status status = tessera::Run(argv[1]);
  if (status.ok()) return 0;
  std::cerr << tessera::FourLines(status) << "\n";
  return 1;
}
