// How a family of models marks reasoning and tool calls in its answers: data for MarkupParser.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tessera::server {

// What stands between `begin` and `end` of a call.
enum class CallBody : uint8_t {
  // One object or a list of objects {"name": …, "arguments": {…}} ("parameters" for the latter and
  // an "id" are understood, too); two that follow each other may have a ";" between them.
  kJson,
  // NAME arguments_begin {…}. Where an object or a list stands in the place of the name: kJson.
  kNamed,
  // NAME name_end, then for each argument key_begin KEY key_end value_begin VALUE value_end.
  kTagged
};

struct CallForm {
  std::string begin;  // empty: an answer that begins with { or [ is a call of an offered tool
  std::string end;    // empty: none. Models forget it.
  CallBody body = CallBody::kJson;
  // kNamed.
  std::string id_begin;  // between name and arguments_begin, before the call's id; empty: none
  std::string arguments_begin;
  // How the name is written. kIndexed: "functions.NAME:0", which is the id, too. kTyped: as it is,
  // or the word "function" in its place and the name on the line before the arguments.
  enum class Name : uint8_t { kPlain, kIndexed, kTyped } name = Name::kPlain;
  // kTagged. Space before these marks means nothing.
  std::string open;  // before the name; may be empty
  std::string name_end;
  std::string key_begin;
  std::string key_end;
  std::string value_begin;  // may be empty
  std::string value_end;
  std::string close;  // after the last argument; may be empty
  // kLines: a line break after value_begin and one before value_end are not of the value.
  // kDeclared: before value_begin stands "true" when the value is text and "false" when it is JSON;
  // of others the tool's schema says it.
  enum class Values : uint8_t { kExact, kLines, kDeclared } values = Values::kExact;
};

// A mark that is a control token of the vocabulary is found as that token alone, any other in the
// text. No mark is part of another one.
struct Markup {
  std::string reasoning_begin;  // in text only where the answer begins; empty: no reasoning
  std::string reasoning_end;
  std::vector<std::string> ignored;  // marks that mean nothing themselves
  std::vector<CallForm> calls;
};

// All marks of `markup` that are set.
void ForEachMark(Markup* markup, const std::function<void(std::string*)>& visit);

}  // namespace tessera::server
