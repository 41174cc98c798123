// The SentencePiece library as a reference, in a program of its own: its headers have another
// absl::string_view than ours, and its Protobuf cannot share a process with the server's.
//
//   sentencepiece_ids MODEL < TEXT    prints the token ids of each line, separated by spaces
#include <sentencepiece_processor.h>

#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  sentencepiece::SentencePieceProcessor processor;
  if (argc != 2 || !processor.Load(argv[1]).ok()) {
    std::cerr << "usage: sentencepiece_ids MODEL < TEXT\n";
    return 2;
  }
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<int> ids;
    if (!processor.Encode(line, &ids).ok()) return 1;
    for (const int id : ids) std::cout << id << ' ';
    std::cout << '\n';
  }
}
