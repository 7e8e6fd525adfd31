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

// RobertaProcessing and BertProcessing: cls … sep.
Result<PostProcessor> ReadClsSep(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView cls, json.At("cls"));
  WEFT_TRY_ASSIGN(const JsonView sep, json.At("sep"));
  WEFT_TRY_ASSIGN(const int32_t before, ReadTokenAndId(cls));
  WEFT_TRY_ASSIGN(const int32_t after, ReadTokenAndId(sep));
  return PostProcessor{.before = {before}, .after = {after}};
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
  }
  return out;
}

}  // namespace

Result<PostProcessor> ReadPostProcessor(const JsonView& json, int depth) {
  WEFT_TRY_ASSIGN(const JsonView member, json.At("type"));
  WEFT_TRY_ASSIGN(const std::string type, member.String());
  if (type == "Sequence") return ReadSequence(json, depth);
  if (type == "TemplateProcessing") return ReadTemplate(json);
  if (type == "RobertaProcessing" || type == "BertProcessing") return ReadClsSep(json);
  if (type == "ByteLevel") return PostProcessor{};  // it only moves offsets, which we do not keep
  return member.Error(Str("unknown post-processor \"", type,
                          "\"; known are Sequence, TemplateProcessing, RobertaProcessing, "
                          "BertProcessing, ByteLevel"));
}

}  // namespace weft
