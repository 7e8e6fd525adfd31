// The one table of codecs; a new one is one file and one line here.

#include <array>

#include "common/base/str.h"
#include "common/codec/blockwise.h"
#include "common/codec/codec.h"
#include "common/codec/precision.h"
#include "common/codec/uniform.h"

namespace weft {

Result<at::Tensor> Codec::Decode(const BlockTensor& tensor) const {
  WEFT_TRY_ASSIGN(const at::Tensor view, View(tensor));
  return view.const_data_ptr() == tensor.bytes.data() ? view.clone() : view;
}

std::span<const Codec* const> CodecRegistry() {
  static const std::array codecs = {&Float32Codec(),  &Float16Codec(),  &BFloat16Codec(),
                                    &Uniform8Codec(), &Uniform4Codec(), &Int8Codec(),
                                    &Int4Codec(),     &Nf4Codec()};
  return codecs;
}

Result<const Codec*> FindCodec(std::string_view name) {
  std::string known;
  for (const Codec* codec : CodecRegistry()) {
    if (codec->name() == name) return codec;
    known += Str(known.empty() ? "" : ", ", codec->name());
  }
  return NotFound(Str("[codec] \"", name, "\" is unknown; known: ", known));
}

}  // namespace weft
