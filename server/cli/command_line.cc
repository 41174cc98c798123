#include "server/cli/command_line.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"
#include "config/nearest.h"
#include "server/cli/version.h"

namespace tessera::server::cli {

struct ChosenCommand {
  std::function<Status()> run;
  CLI::Option* last = nullptr;
};

namespace {

std::string Text(absl::string_view text) { return std::string(text); }

// Adds a scalar option that shows its default where it has one.
template <typename T>
CLI::Option* AddScalar(CLI::App* app, absl::string_view names, T* value, absl::string_view help,
                       const char* type) {
  return app->add_option(Text(names), *value, Text(help))->type_name(type)->capture_default_str();
}

template <typename T>
CLI::Option* AddOptional(CLI::App* app, absl::string_view names, std::optional<T>* value,
                         absl::string_view help, const char* type) {
  return app
      ->add_option_function<T>(
          Text(names), [value](const T& given) { *value = given; }, Text(help))
      ->type_name(type);
}

void Walk(const CLI::App* app, const std::string& path, std::vector<CommandWord>* out) {
  CommandWord word{path, app->get_description(), {}, {}};
  for (const CLI::Option* option : app->get_options()) {
    const auto value =
        option->get_items_expected_max() > 0 ? OptionWord::Value::kTaken : OptionWord::Value::kNone;
    for (const std::string& name : option->get_lnames()) {
      word.options.push_back({"--" + name, option->get_description(), value});
    }
  }
  const std::vector<const CLI::App*> children =
      app->get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* child : children) {
    word.subcommands.push_back(child->get_name());
  }
  out->push_back(std::move(word));
  for (const CLI::App* child : children) {
    Walk(child, path.empty() ? child->get_name() : absl::StrCat(path, " ", child->get_name()), out);
  }
}

const CommandWord* FindWord(const std::vector<CommandWord>& tree, const std::string& path) {
  const auto at = std::find_if(tree.begin(), tree.end(),
                               [&](const CommandWord& word) { return word.path == path; });
  return at == tree.end() ? nullptr : &*at;
}

std::string Under(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, " ", name);
}

// A word of the line that names nothing, and what it was probably meant to be.
struct UnknownWord {
  std::string what;
  std::string nearest;
};

// Looks for the first such word; `path` becomes the command that the line had come to.
std::optional<UnknownWord> FindUnknown(const std::vector<CommandWord>& tree,
                                       const std::vector<std::string>& words, std::string* path) {
  const CommandWord* at = FindWord(tree, "");
  std::vector<OptionWord> options = at->options;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") break;
    if (absl::StartsWith(word, "--")) {
      const std::string name = word.substr(0, word.find('='));
      const auto known = std::find_if(options.begin(), options.end(),
                                      [&](const OptionWord& o) { return o.name == name; });
      if (known == options.end()) {
        std::vector<std::string> names;
        for (const OptionWord& option : options) names.push_back(option.name);
        return UnknownWord{absl::StrCat("there is no option ", Quoted(name)),
                           NearestName(name, names)};
      }
      const bool apart = known->value == OptionWord::Value::kTaken && name.size() == word.size();
      i += apart ? 1 : 0;
    } else if (!at->subcommands.empty()) {
      // The value of a short option cannot be told from a command.
      if (absl::StartsWith(word, "-")) break;
      const CommandWord* const child = FindWord(tree, Under(at->path, word));
      if (child == nullptr) {
        return UnknownWord{absl::StrCat("there is no command ", Quoted(Under(at->path, word))),
                           NearestName(word, at->subcommands)};
      }
      at = child;
      *path = at->path;
      options.insert(options.end(), at->options.begin(), at->options.end());
    }
  }
  return std::nullopt;
}

}  // namespace

void Command::Option(absl::string_view names, std::string* value, absl::string_view help) {
  chosen_->last = AddScalar(app_, names, value, help, "TEXT");
}
void Command::Option(absl::string_view names, std::optional<std::string>* value,
                     absl::string_view help) {
  chosen_->last = AddOptional(app_, names, value, help, "TEXT");
}
void Command::Option(absl::string_view names, std::vector<std::string>* value,
                     absl::string_view help) {
  chosen_->last =
      app_->add_option(Text(names), *value, Text(help))->type_name("TEXT")->allow_extra_args(false);
}
void Command::Option(absl::string_view names, uint32_t* value, absl::string_view help) {
  chosen_->last = AddScalar(app_, names, value, help, "N");
}
void Command::Option(absl::string_view names, uint64_t* value, absl::string_view help) {
  chosen_->last = AddScalar(app_, names, value, help, "N");
}
void Command::Option(absl::string_view names, double* value, absl::string_view help) {
  chosen_->last = AddScalar(app_, names, value, help, "X");
}
void Command::Option(absl::string_view names, std::optional<uint32_t>* value,
                     absl::string_view help) {
  chosen_->last = AddOptional(app_, names, value, help, "N");
}
void Command::Option(absl::string_view names, std::optional<uint64_t>* value,
                     absl::string_view help) {
  chosen_->last = AddOptional(app_, names, value, help, "N");
}
void Command::Option(absl::string_view names, std::optional<double>* value,
                     absl::string_view help) {
  chosen_->last = AddOptional(app_, names, value, help, "X");
}
void Command::Flag(absl::string_view names, bool* value, absl::string_view help) {
  chosen_->last = app_->add_flag(Text(names), *value, Text(help));
}
void Command::Required() { chosen_->last->required(); }
void Command::MayBeLeftOut() { chosen_->last->required(false); }
void Command::OneOf(const std::vector<std::string>& words) {
  chosen_->last->check(CLI::IsMember(words));
}
void Command::Argument(absl::string_view name, std::string* value, absl::string_view help) {
  chosen_->last = app_->add_option(Text(name), *value, Text(help))->type_name("")->required();
}
void Command::Arguments(absl::string_view name, std::vector<std::string>* value,
                        absl::string_view help) {
  chosen_->last = app_->add_option(Text(name), *value, Text(help))->type_name("")->required();
}

Command Command::Subcommand(absl::string_view name, absl::string_view summary) {
  CLI::App* const child = app_->add_subcommand(Text(name), Text(summary));
  child->fallthrough();
  return {child, chosen_};
}

void Command::RequireSubcommand() { app_->require_subcommand(1); }

void Command::Examples(absl::string_view text) { app_->footer(absl::StrCat("Examples:\n", text)); }

void Command::Run(std::function<Status()> run) {
  app_->callback([chosen = chosen_, run = std::move(run)] { chosen->run = run; });
}

struct CommandLine::Impl {
  Impl(absl::string_view summary, absl::string_view footer) : app(Text(summary), "tessera") {
    app.footer(Text(footer));
    app.set_version_flag("--version", VersionText());
    app.require_subcommand(1);
    app.get_formatter()->column_width(32);
  }
  CLI::App app;
  ChosenCommand chosen;
};

CommandLine::CommandLine(absl::string_view summary, absl::string_view footer)
    : impl_(std::make_unique<Impl>(summary, footer)) {}
CommandLine::~CommandLine() = default;

Command CommandLine::Add(absl::string_view name, absl::string_view summary) {
  return {impl_->app.add_subcommand(Text(name), Text(summary)), &impl_->chosen};
}

ParsedLine CommandLine::Parse(const std::vector<std::string>& words) {
  std::vector<std::string> reversed(words.rbegin(), words.rend());
  try {
    impl_->app.parse(std::move(reversed));
  } catch (const CLI::CallForVersion& version) {
    return {nullptr, absl::StrCat(version.what(), "\n"), "", ParsedLine::Kind::kText};
  } catch (const CLI::CallForAllHelp&) {
    return {nullptr, impl_->app.help("", CLI::AppFormatMode::All), "", ParsedLine::Kind::kText};
  } catch (const CLI::CallForHelp&) {
    return {nullptr, impl_->app.help(), "", ParsedLine::Kind::kText};
  } catch (const CLI::ParseError& problem) {
    return Complaint(words, problem.what());
  }
  return {impl_->chosen.run, "", "", ParsedLine::Kind::kRun};
}

ParsedLine CommandLine::Complaint(const std::vector<std::string>& words,
                                  absl::string_view problem) const {
  std::string path;
  const std::optional<UnknownWord> unknown = FindUnknown(Tree(), words, &path);
  std::string fix = absl::StrCat("see tessera", path.empty() ? "" : " ", path, " --help");
  if (!unknown) return {nullptr, std::string(problem), fix, ParsedLine::Kind::kUsageError};
  if (!unknown->nearest.empty()) {
    fix = absl::StrCat("did you mean ", unknown->nearest, "? ", fix);
  }
  return {nullptr, unknown->what, fix, ParsedLine::Kind::kUsageError};
}

std::vector<CommandWord> CommandLine::Tree() const {
  std::vector<CommandWord> words;
  Walk(&impl_->app, "", &words);
  return words;
}

}  // namespace tessera::server::cli
