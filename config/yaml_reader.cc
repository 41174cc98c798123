#include "config/yaml_reader.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <exception>
#include <sstream>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "config/foundation/text.h"

namespace tessera {
namespace {

Position PositionOf(const YAML::Mark& mark) {
  if (mark.is_null()) return {};
  return {mark.line + 1, mark.column + 1};
}

// Builds the tree from events. After the first problem it ignores what follows: the parser offers
// no way to stop but an exception.
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(absl::string_view file, std::vector<Problem>* problems)
      : file_(file), problems_(problems) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (!Accept(mark, "", anchor)) return;
    Node node;
    node.position = PositionOf(mark);
    Add(std::move(node));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(PositionOf(mark), "uses an alias (`*name`)", "write the value out");
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (!Accept(mark, tag, anchor)) return;
    Node node;
    node.position = PositionOf(mark);
    const bool plain = tag == "?" || tag.empty();
    const bool null_word =
        value.empty() || value == "~" || value == "null" || value == "Null" || value == "NULL";
    if (!plain || !null_word) {
      node.kind = NodeKind::kScalar;
      node.text = value;
    }
    Add(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(NodeKind::kList, mark, tag, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(NodeKind::kMap, mark, tag, anchor);
  }
  void OnMapEnd() override { Close(); }

  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] Node TakeRoot() { return std::move(root_); }

  void Fail(Position position, absl::string_view message, absl::string_view hint) {
    if (failed_) return;
    failed_ = true;
    problems_->push_back(
        {std::string(file_), position, "", std::string(message), std::string(hint)});
  }

 private:
  // An open map or list.
  struct Frame {
    Node node;
    bool has_key = false;
    std::string key;
    Position key_position;
    absl::flat_hash_set<std::string> keys;
  };

  bool Accept(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) Fail(PositionOf(mark), "has an anchor (`&name`)", "write the value out");
    if (!tag.empty() && tag != "?" && tag != "!") {
      Fail(PositionOf(mark), absl::StrCat("has the tag ", Quoted(tag)),
           "leave it out: a setting's type comes from its name");
    }
    return !failed_;
  }

  void Open(NodeKind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (!Accept(mark, tag, anchor)) return;
    if (frames_.size() >= static_cast<size_t>(kMaxDepth)) {
      Fail(PositionOf(mark), absl::StrCat("is nested more than ", kMaxDepth, " levels deep"), "");
      return;
    }
    if (!frames_.empty() && frames_.back().node.kind == NodeKind::kMap && !frames_.back().has_key) {
      Fail(PositionOf(mark), "has a key that is not text", "");
      return;
    }
    Frame frame;
    frame.node.kind = kind;
    frame.node.position = PositionOf(mark);
    frames_.push_back(std::move(frame));
  }

  void Close() {
    if (failed_) return;
    Node node = std::move(frames_.back().node);
    frames_.pop_back();
    Add(std::move(node));
  }

  void Add(Node node) {
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = frames_.back();
    if (frame.node.kind == NodeKind::kList) {
      frame.node.items.push_back(std::move(node));
    } else if (frame.has_key) {
      // The parser places an absent value at the token after it.
      if (node.kind == NodeKind::kNull) node.position = frame.key_position;
      frame.node.entries.push_back({std::move(frame.key), frame.key_position, std::move(node)});
      frame.has_key = false;
    } else {
      AddKey(std::move(node), &frame);
    }
  }

  void AddKey(Node node, Frame* frame) {
    if (node.kind != NodeKind::kScalar) {
      Fail(node.position, "has an empty key", "");
      return;
    }
    if (!frame->keys.insert(node.text).second) {
      Fail(node.position, absl::StrCat("repeats the key ", Quoted(node.text)), "keep one of them");
      return;
    }
    frame->has_key = true;
    frame->key = std::move(node.text);
    frame->key_position = node.position;
  }

  absl::string_view file_;
  std::vector<Problem>* problems_;
  bool failed_ = false;
  std::vector<Frame> frames_;
  Node root_;
};

}  // namespace

std::optional<Node> ReadYaml(absl::string_view text, absl::string_view file,
                             std::vector<Problem>* problems) {
  TreeBuilder builder(file, problems);
  Node root;
  try {
    std::istringstream input{std::string(text)};
    YAML::Parser parser(input);
    parser.HandleNextDocument(builder);
    root = builder.TakeRoot();
    TreeBuilder second(file, problems);
    if (!builder.failed() && parser.HandleNextDocument(second)) {
      builder.Fail({}, "has more than one YAML document", "take out the lines `---`");
    }
  } catch (const YAML::Exception& error) {
    builder.Fail(PositionOf(error.mark), absl::StrCat("is not YAML: ", error.msg), "");
  } catch (const std::exception& error) {
    builder.Fail({}, absl::StrCat("cannot be read as YAML: ", error.what()), "");
  }
  if (builder.failed()) return std::nullopt;
  if (root.kind == NodeKind::kNull) {
    root.kind = NodeKind::kMap;
    root.position = {1, 1};
  }
  return root;
}

}  // namespace tessera
