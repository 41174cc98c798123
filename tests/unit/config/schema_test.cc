#include "config/schema.h"

#include <gtest/gtest.h>

#include <string>

namespace tessera {
namespace {

enum class Shape { kRound, kSquare };

struct Part {
  std::string id;
  int64_t count = 1;
};

struct Thing {
  std::vector<std::string> words = {"a"};
  std::optional<Duration> age;
  Shape shape = Shape::kSquare;
  std::vector<Part> parts;
};

const StructTable& PartTable() {
  static const auto* table = new StructTable{{
      TextField("id", &Part::id, Reload::kRestart, "Id"),
      NumberField("count", &Part::count, Range<int64_t>{1, 9}, Reload::kLive, "Count"),
  }};
  return *table;
}

const StructTable& ThingTable() {
  static const auto* table = new StructTable{{
      TextListField("words", &Thing::words, Reload::kLive, "Words"),
      OptionalField("age", &Thing::age, Range<Duration>{}, Reload::kLive, "Age"),
      ChoiceField("shape", &Thing::shape,
                  Choices<Shape>{{"round", Shape::kRound}, {"square", Shape::kSquare}},
                  Reload::kRestart, "Shape"),
      StructListField("parts", &Thing::parts, PartTable(), Reload::kRestart, "Parts"),
  }};
  return *table;
}

std::vector<Problem> Bind(absl::string_view yaml, Thing* thing,
                          const std::vector<Override>& overrides = {}) {
  std::vector<Problem> problems;
  Origins origins;
  std::optional<Node> root = ReadTree(yaml, TextFormat::kYaml, "s.yaml", &problems);
  if (!root) return problems;
  for (const Override& value : overrides) ApplyOverride(value, &*root, &problems);
  BindTree(ThingTable(), *root, "s.yaml", thing, &problems, &origins);
  return problems;
}

TEST(SchemaTest, BindsListsOptionalsAndChoices) {
  Thing thing;
  EXPECT_TRUE(Bind("words: [x, 'y z']\nage: 3s\nshape: round\nparts: [{id: p}, {count: 4}]", &thing)
                  .empty());
  EXPECT_EQ(thing.words, (std::vector<std::string>{"x", "y z"}));
  EXPECT_EQ(thing.age, std::chrono::seconds(3));
  EXPECT_EQ(thing.shape, Shape::kRound);
  ASSERT_EQ(thing.parts.size(), 2u);
  EXPECT_EQ(thing.parts[1].count, 4);
  EXPECT_TRUE(Bind("words: []\nage: null\n", &thing).empty());
  EXPECT_TRUE(thing.words.empty());
  EXPECT_FALSE(thing.age.has_value());
}

TEST(SchemaTest, WhatIsInOrderIsReadBesideWhatIsNot) {
  Thing thing;
  const auto problems = Bind("words: x\nage: 3\nshape: round\n", &thing);
  EXPECT_EQ(problems.size(), 2u);
  EXPECT_EQ(thing.shape, Shape::kRound);
  EXPECT_EQ(thing.words, std::vector<std::string>{"a"}) << "kept its default";
  EXPECT_EQ(Bind("words: [[a]]", &thing).size(), 1u);
}

TEST(SchemaTest, OverridesSplitListsAndReachIntoThem) {
  Thing thing;
  EXPECT_TRUE(Bind("parts: [{id: p}]", &thing,
                   {{"flag words", {"words"}, "k,l"},
                    {"flag parts[0].count", SplitPath("parts[0].count"), "5"},
                    {"flag parts.1.id", SplitPath("parts.1.id"), "q"}})
                  .empty());
  EXPECT_EQ(thing.words, (std::vector<std::string>{"k", "l"}));
  EXPECT_EQ(thing.parts.at(0).count, 5);
  EXPECT_EQ(thing.parts.at(0).id, "p");
  EXPECT_EQ(thing.parts.at(1).id, "q");
}

TEST(SchemaTest, DumpReadsBack) {
  Thing thing;
  thing.words = {"x: y", "#"};
  thing.parts = {{"~", 2}, {"", 3}, {"a b", 4}, {"-", 5}, {"...", 6}, {"line\nend", 7}};
  const std::string dump = DumpYaml(ThingTable(), &thing, {});
  Thing again;
  EXPECT_TRUE(Bind(dump, &again).empty()) << dump;
  EXPECT_TRUE(DiffStructs(ThingTable(), &thing, &again).empty()) << dump;
}

TEST(SchemaTest, DiffSeesEveryKind) {
  Thing before;
  Thing after;
  after.words = {"b"};
  after.age = Duration(std::chrono::seconds(1));
  after.parts = {{"p", 1}};
  const auto changes = DiffStructs(ThingTable(), &before, &after);
  ASSERT_EQ(changes.size(), 3u);
  EXPECT_EQ(changes[0].field, "words");
  EXPECT_EQ(changes[1].before, "null");
  EXPECT_EQ(changes[1].after, "1s");
  EXPECT_EQ(changes[2].field, "parts");
  EXPECT_EQ(changes[2].reload, Reload::kRestart);
}

TEST(SchemaTest, TheNearestOriginEncloses) {
  const Origins origins = {{"a", {"f", {1, 1}}}, {"a.b[0]", {"f", {2, 2}}}};
  EXPECT_EQ(NearestOrigin(origins, "a.b[0].c").position.line, 2);
  EXPECT_EQ(NearestOrigin(origins, "a.b[1].c").position.line, 1);
  EXPECT_EQ(NearestOrigin(origins, "z").position.line, 0);
}

}  // namespace
}  // namespace tessera
