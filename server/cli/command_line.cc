#include "server/cli/command_line.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
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
    for (const std::string& name : option->get_lnames()) {
      word.options.push_back("--" + name);
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
  ParsedLine line;
  try {
    impl_->app.parse(std::move(reversed));
  } catch (const CLI::CallForVersion& version) {
    return {nullptr, absl::StrCat(version.what(), "\n"), ParsedLine::Kind::kText};
  } catch (const CLI::CallForAllHelp&) {
    return {nullptr, impl_->app.help("", CLI::AppFormatMode::All), ParsedLine::Kind::kText};
  } catch (const CLI::CallForHelp&) {
    return {nullptr, impl_->app.help(), ParsedLine::Kind::kText};
  } catch (const CLI::ParseError& problem) {
    const CLI::App* shown = &impl_->app;
    while (!shown->get_subcommands().empty()) {
      shown = shown->get_subcommands().front();
    }
    const std::string path = shown == &impl_->app ? "" : " " + shown->get_name();
    return {nullptr, absl::StrCat(problem.what(), "; see tessera", path, " --help"),
            ParsedLine::Kind::kUsageError};
  }
  return {impl_->chosen.run, "", ParsedLine::Kind::kRun};
}

std::vector<CommandWord> CommandLine::Tree() const {
  std::vector<CommandWord> words;
  Walk(&impl_->app, "", &words);
  return words;
}

}  // namespace tessera::server::cli
