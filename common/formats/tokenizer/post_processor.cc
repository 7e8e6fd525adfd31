#include "common/formats/tokenizer/post_processor.h"

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/tokenizer/normalizer.h"

namespace weft {
namespace {

// ["</s>", 2]
Result<int32_t> ReadTokenAndId(const JsonView& json) {
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, json.Items());
  if (items.size() != 2) return json.Error("wanted [token, id]");
  return items[1].Count(limits::kTokenIdMax);
}

// RobertaProcessing: cls … sep, cls … sep sep … sep. BertProcessing: cls … sep … sep, whose second
// text has a type of its own.
Result<PostProcessor> ReadClsSep(const JsonView& json, bool is_bert) {
  WEFT_TRY_ASSIGN(const JsonView cls, json.At("cls"));
  WEFT_TRY_ASSIGN(const JsonView sep, json.At("sep"));
  WEFT_TRY_ASSIGN(const int32_t before, ReadTokenAndId(cls));
  WEFT_TRY_ASSIGN(const int32_t after, ReadTokenAndId(sep));
  using Source = PairPiece::Source;
  PostProcessor out{.before = {before}, .after = {after}};
  const int32_t second = is_bert ? 1 : 0;
  out.pair = {{Source::kIds, {before}, 0}, {Source::kFirst, {}, 0}, {Source::kIds, {after}, 0}};
  if (!is_bert) out.pair.push_back({Source::kIds, {after}, 0});
  out.pair.push_back({Source::kSecond, {}, second});
  out.pair.push_back({Source::kIds, {after}, second});
  return out;
}

// The ids that a template's special token stands for.
Status AppendSpecial(const JsonView& json, const std::string& name, std::vector<int32_t>& ids) {
  WEFT_TRY_ASSIGN(const JsonView table, json.At("special_tokens"));
  WEFT_TRY_ASSIGN(const JsonView entry, table.At(name));
  WEFT_TRY_ASSIGN(const JsonView list, entry.At("ids"));
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, list.Items());
  for (const JsonView& item : items) {
    WEFT_TRY_ASSIGN(const int32_t id, item.Count(limits::kTokenIdMax));
    ids.push_back(id);
  }
  return OkStatus();
}

Result<int32_t> TypeOf(const JsonView& json) {
  const auto member = json.Find("type_id");
  return member ? member->Count(1) : 0;
}

Result<std::vector<PairPiece>> ReadPairTemplate(const JsonView& json, const JsonView& pair) {
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, pair.Items());
  std::vector<PairPiece> pieces;
  int texts[2] = {0, 0};
  for (const JsonView& item : items) {
    PairPiece piece;
    if (const auto special = item.Find("SpecialToken")) {
      WEFT_TRY_ASSIGN(const JsonView member, special->At("id"));
      WEFT_TRY_ASSIGN(const std::string name, member.String());
      WEFT_TRY(AppendSpecial(json, name, piece.ids));
      WEFT_TRY_ASSIGN(piece.type, TypeOf(*special));
    } else if (const auto sequence = item.Find("Sequence")) {
      WEFT_TRY_ASSIGN(const std::string id, sequence->StringOr("id", "A"));
      if (id != "A" && id != "B") return sequence->Error("wanted text A or B");
      ++texts[id == "B"];
      piece.source = id == "A" ? PairPiece::Source::kFirst : PairPiece::Source::kSecond;
      WEFT_TRY_ASSIGN(piece.type, TypeOf(*sequence));
    } else {
      return item.Error("wanted SpecialToken or Sequence");
    }
    pieces.push_back(std::move(piece));
  }
  if (texts[0] == 1 && texts[1] == 1) return pieces;
  return pair.Error(
      Str("the texts stand in it ", texts[0], " and ", texts[1], " times, wanted once each"));
}

Result<PostProcessor> ReadTemplate(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView single, json.At("single"));
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, single.Items());
  PostProcessor out;
  int sequences = 0;
  for (const JsonView& item : items) {
    if (const auto special = item.Find("SpecialToken")) {
      WEFT_TRY_ASSIGN(const JsonView member, special->At("id"));
      WEFT_TRY_ASSIGN(const std::string name, member.String());
      WEFT_TRY(AppendSpecial(json, name, sequences == 0 ? out.before : out.after));
    } else if (const auto sequence = item.Find("Sequence")) {
      WEFT_TRY_ASSIGN(const std::string id, sequence->StringOr("id", "A"));
      if (id != "A") return sequence->Error(Str("the template for one text names \"", id, "\""));
      ++sequences;
    } else {
      return item.Error("wanted SpecialToken or Sequence");
    }
  }
  if (sequences != 1) {
    return single.Error(Str("the text stands in it ", sequences, " times, wanted once"));
  }
  if (const auto pair = json.Find("pair")) {
    WEFT_TRY_ASSIGN(out.pair, ReadPairTemplate(json, *pair));
  }
  return out;
}

Result<PostProcessor> ReadSequence(const JsonView& json, int depth) {
  if (depth >= kComponentDepthMax) return json.Error("Sequences are nested too deeply");
  WEFT_TRY_ASSIGN(const JsonView list, json.At("processors"));
  WEFT_TRY_ASSIGN(const std::vector<JsonView> items, list.Items());
  PostProcessor out;
  for (const JsonView& item : items) {  // each wraps what the ones before it made
    WEFT_TRY_ASSIGN(const PostProcessor part, ReadPostProcessor(item, depth + 1));
    out.before.insert(out.before.begin(), part.before.begin(), part.before.end());
    out.after.insert(out.after.end(), part.after.begin(), part.after.end());
    if (!part.pair.empty()) out.pair = part.pair;  // only one of them knows pairs
  }
  return out;
}

}  // namespace

Result<PostProcessor> ReadPostProcessor(const JsonView& json, int depth) {
  WEFT_TRY_ASSIGN(const JsonView member, json.At("type"));
  WEFT_TRY_ASSIGN(const std::string type, member.String());
  if (type == "Sequence") return ReadSequence(json, depth);
  if (type == "TemplateProcessing") return ReadTemplate(json);
  if (type == "RobertaProcessing") return ReadClsSep(json, false);
  if (type == "BertProcessing") return ReadClsSep(json, true);
  if (type == "ByteLevel") return PostProcessor{};  // it only moves offsets, which we do not keep
  return member.Error(Str("unknown post-processor \"", type,
                          "\"; known are Sequence, TemplateProcessing, RobertaProcessing, "
                          "BertProcessing, ByteLevel"));
}

}  // namespace weft
