// The program `tessera`: see cli/.
#include "server/cli/cli.h"

int main(int argc, char** argv) { return tessera::server::cli::Main(argc, argv); }
