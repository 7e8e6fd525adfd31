#pragma once
// The rows of the matrix of hostile adapters: what is spoilt in an update, and what the aggregator
// has to say of it.

#include <functional>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "tests/integration/hostile_updates.h"

namespace weft::testing {

enum class Answer {
  kVerdict,  // an update-verdict of the row's code; the site's part in the round is over
  kStray,    // likewise, of another round than the open one, which still waits for the site
  kCut,      // the message is no message of the protocol: the link is cut, the log has the code
};

struct HostileRow {
  std::string name;
  Code code = Code::kInvalidArgument;
  std::string words;  // of the reason
  std::function<Delivery(const GoodUpdate& good)> spoil;
  Answer answer = Answer::kVerdict;
};

[[nodiscard]] std::vector<HostileRow> HostileRows();

}  // namespace weft::testing
