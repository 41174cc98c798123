// Every command: each function declares one with its options, in the source of its name. To add
// one: a source, a line here, and a line in cli.cc.
#pragma once

#include "server/cli/command_line.h"

namespace tessera::server::cli {

void AddServe(CommandLine& line);
void AddZoo(CommandLine& line);
void AddChat(CommandLine& line);
void AddGenerate(CommandLine& line);
void AddTokenize(CommandLine& line);
void AddPerplexity(CommandLine& line);
void AddBench(CommandLine& line);
void AddPlan(CommandLine& line);
void AddCheckConfig(CommandLine& line);
void AddDoctor(CommandLine& line);
// load, unload, ps, drain, resume, reload
void AddAdminCommands(CommandLine& line);
void AddCompletion(CommandLine& line);

}  // namespace tessera::server::cli
