#pragma once
// Classes of code points, as the tokenizers' rules name them (Unicode through utf8proc).

namespace weft {

[[nodiscard]] bool IsWhitespace(char32_t code_point);   // property White_Space
[[nodiscard]] bool IsNumeric(char32_t code_point);      // categories N*
[[nodiscard]] bool IsPunctuation(char32_t code_point);  // categories P*, and all ASCII punctuation
[[nodiscard]] bool IsMark(char32_t code_point);         // categories M*
/// Combining marks without a width of their own (Mn): accents.
[[nodiscard]] bool IsNonspacingMark(char32_t code_point);

/// Control, format and private-use characters (Cc, Cf, Co).
[[nodiscard]] bool IsControl(char32_t code_point);

/// A regular expression's \w: the property Alphabetic, marks, decimal digits,
/// connectors, joiners (Unicode Technical Standard 18, annex C).
[[nodiscard]] bool IsWordCharacter(char32_t code_point);

}  // namespace weft
