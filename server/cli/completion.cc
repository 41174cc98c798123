#include "server/cli/completion.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "server/cli/commands.h"
#include "server/cli/console.h"

namespace tessera::server::cli {
namespace {

// In single quotes, for any of the shells.
std::string SingleQuoted(absl::string_view text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

std::string FishQuoted(absl::string_view text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

// Options of `word` and, since they may stand there too, of the commands around it.
std::vector<OptionWord> OptionsAt(const std::vector<CommandWord>& tree, const CommandWord& word) {
  std::vector<OptionWord> options;
  std::set<std::string> seen;
  for (const CommandWord& other : tree) {
    const bool around = !other.path.empty() && absl::StartsWith(word.path, other.path + " ");
    if (other.path != word.path && !around) continue;
    for (const OptionWord& option : other.options) {
      if (seen.insert(option.name).second) options.push_back(option);
    }
  }
  return options;
}

const CommandWord* Find(const std::vector<CommandWord>& tree, const std::string& path) {
  for (const CommandWord& word : tree) {
    if (word.path == path) return &word;
  }
  return nullptr;
}

std::string ChildPath(const CommandWord& word, const std::string& child) {
  return word.path.empty() ? child : absl::StrCat(word.path, " ", child);
}

std::string SummaryOf(const std::vector<CommandWord>& tree, const std::string& path) {
  const CommandWord* const word = Find(tree, path);
  return word == nullptr ? "" : word->summary;
}

// The arms of a `case` over "PATH/WORD" that walk down the tree, for bash and zsh.
std::string WalkArms(const std::vector<CommandWord>& tree) {
  std::string text;
  for (const CommandWord& word : tree) {
    for (const std::string& child : word.subcommands) {
      absl::StrAppend(&text, "      ", SingleQuoted(absl::StrCat(word.path, "/", child)),
                      ") at=", SingleQuoted(ChildPath(word, child)), " ;;\n");
    }
  }
  return text;
}

// The arms that list the options whose next word is their value.
std::string ValueArms(const std::vector<CommandWord>& tree) {
  std::string text;
  for (const CommandWord& word : tree) {
    std::vector<std::string> patterns;
    for (const OptionWord& option : OptionsAt(tree, word)) {
      if (option.value == OptionWord::Value::kTaken) {
        patterns.push_back(SingleQuoted(absl::StrCat(word.path, "/", option.name)));
      }
    }
    if (patterns.empty()) continue;
    absl::StrAppend(&text, "      ", absl::StrJoin(patterns, "|"), ") value=1 ;;\n");
  }
  return text;
}

}  // namespace

std::string BashCompletion(const std::vector<CommandWord>& tree) {
  std::string text = absl::StrCat(
      "# bash completion of tessera: source it, or save it in\n"
      "# ~/.local/share/bash-completion/completions/tessera\n"
      "_tessera() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} at='' value='' i words=''\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    if [ -n \"$value\" ]; then value=''; continue; fi\n"
      "    case \"$at/${COMP_WORDS[i]}\" in\n",
      WalkArms(tree), ValueArms(tree),
      "    esac\n"
      "  done\n"
      "  COMPREPLY=()\n"
      "  [ -z \"$value\" ] || return 0\n"
      "  case $at in\n");
  for (const CommandWord& word : tree) {
    std::vector<std::string> words = word.subcommands;
    for (const OptionWord& option : OptionsAt(tree, word)) words.push_back(option.name);
    absl::StrAppend(&text, "    ", SingleQuoted(word.path),
                    ") words=", SingleQuoted(absl::StrJoin(words, " ")), " ;;\n");
  }
  absl::StrAppend(&text,
                  "  esac\n"
                  "  local found\n"
                  "  while IFS= read -r found; do COMPREPLY+=(\"$found\"); done \\\n"
                  "    < <(compgen -W \"$words\" -- \"$current\")\n"
                  "}\n"
                  "complete -o bashdefault -o default -F _tessera tessera\n");
  return text;
}

std::string ZshCompletion(const std::vector<CommandWord>& tree) {
  const auto described = [](absl::string_view name, absl::string_view help) {
    return SingleQuoted(absl::StrCat(absl::StrReplaceAll(name, {{":", "\\:"}}), ":", help));
  };
  std::string text = absl::StrCat(
      "#compdef tessera\n"
      "# zsh completion of tessera: save it as _tessera in a folder of $fpath.\n"
      "_tessera() {\n"
      "  local at='' value='' i\n"
      "  local -a commands options\n"
      "  for ((i = 2; i < CURRENT; i++)); do\n"
      "    if [[ -n $value ]]; then value=''; continue; fi\n"
      "    case \"$at/${words[i]}\" in\n",
      WalkArms(tree), ValueArms(tree),
      "    esac\n"
      "  done\n"
      "  if [[ -n $value ]]; then _files; return; fi\n"
      "  case $at in\n");
  for (const CommandWord& word : tree) {
    std::vector<std::string> commands;
    std::vector<std::string> options;
    for (const std::string& child : word.subcommands) {
      commands.push_back(described(child, SummaryOf(tree, ChildPath(word, child))));
    }
    for (const OptionWord& option : OptionsAt(tree, word)) {
      options.push_back(described(option.name, option.help));
    }
    absl::StrAppend(&text, "    ", SingleQuoted(word.path), ")\n      commands=(",
                    absl::StrJoin(commands, "\n        "), ")\n      options=(",
                    absl::StrJoin(options, "\n        "), ") ;;\n");
  }
  absl::StrAppend(&text,
                  "  esac\n"
                  "  if [[ ${words[CURRENT]} == -* ]]; then\n"
                  "    _describe -o 'option' options\n"
                  "  elif (( ${#commands} )); then\n"
                  "    _describe 'command' commands\n"
                  "  else\n"
                  "    _files\n"
                  "  fi\n"
                  "}\n"
                  "if [ \"$funcstack[1]\" = _tessera ]; then _tessera \"$@\"; "
                  "else compdef _tessera tessera; fi\n");
  return text;
}

std::string FishCompletion(const std::vector<CommandWord>& tree) {
  std::string walk;
  for (const CommandWord& word : tree) {
    for (const std::string& child : word.subcommands) {
      absl::StrAppend(&walk, "            case ", FishQuoted(absl::StrCat(word.path, "/", child)),
                      "\n                set at ", FishQuoted(ChildPath(word, child)), "\n");
    }
    for (const OptionWord& option : OptionsAt(tree, word)) {
      if (option.value == OptionWord::Value::kNone) continue;
      absl::StrAppend(&walk, "            case ",
                      FishQuoted(absl::StrCat(word.path, "/", option.name)),
                      "\n                set value 1\n");
    }
  }
  std::string text = absl::StrCat(
      "# fish completion of tessera: save it as ~/.config/fish/completions/tessera.fish\n"
      "function __tessera_at\n"
      "    set -l at ''\n"
      "    set -l value 0\n"
      "    for word in (commandline -opc)[2..-1]\n"
      "        if test $value = 1\n"
      "            set value 0\n"
      "            continue\n"
      "        end\n"
      "        switch \"$at/$word\"\n",
      walk,
      "        end\n"
      "    end\n"
      "    test \"$at\" = \"$argv[1]\"\n"
      "end\n");
  for (const CommandWord& word : tree) {
    const std::string when = FishQuoted(absl::StrCat("__tessera_at \"", word.path, "\""));
    for (const std::string& child : word.subcommands) {
      absl::StrAppend(&text, "complete -c tessera -f -n ", when, " -a ", FishQuoted(child), " -d ",
                      FishQuoted(SummaryOf(tree, ChildPath(word, child))), "\n");
    }
    for (const OptionWord& option : OptionsAt(tree, word)) {
      absl::StrAppend(&text, "complete -c tessera -n ", when, " -l ", option.name.substr(2),
                      option.value == OptionWord::Value::kTaken ? " -r" : "", " -d ",
                      FishQuoted(option.help), "\n");
    }
  }
  return text;
}

void AddCompletion(CommandLine& line) {
  const auto shell = std::make_shared<std::string>();
  Command command = line.Add("completion", "Print the completion script of a shell");
  command.Argument("SHELL", shell.get(), "bash, zsh or fish");
  command.OneOf({"bash", "zsh", "fish"});
  command.Examples(
      "  source <(tessera completion bash)\n"
      "  tessera completion zsh > ~/.zfunc/_tessera\n"
      "  tessera completion fish > ~/.config/fish/completions/tessera.fish");
  command.Run([shell, &line] {
    const std::vector<CommandWord> tree = line.Tree();
    Print(*shell == "bash"  ? BashCompletion(tree)
          : *shell == "zsh" ? ZshCompletion(tree)
                            : FishCompletion(tree));
    return absl::OkStatus();
  });
}

}  // namespace tessera::server::cli
